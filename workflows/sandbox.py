"""The one sandbox of every worker, test and replayer, and the only place that lets modules through it."""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import SandboxImportNotificationPolicy

# Pure modules, loaded once per process and unguarded in it: ruff bans clock, chance and `workflow.unsafe` there, the import contracts
# what reaches outside, and CI also replays with the sandbox's defaults, which guard all of it. A module that defines a workflow is loaded
# anew for each of them; whatever it imports has to be named here. Never `workflows` itself: that would take the guard from all of them.
JOURNEY = ("batching", "clock", "listening", "moving", "operators", "performing", "trips")
PASSED_THROUGH = ("activities.contracts", "models.domain", *(f"workflows.{module}" for module in JOURNEY))

RUNNER = SandboxedWorkflowRunner(
    restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH).with_import_notification_policy(
        SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH | SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT
    )
)
