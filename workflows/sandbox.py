"""The one sandbox of every worker, test and replayer, and the only place that lets modules through it."""

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import SandboxImportNotificationPolicy

# Pure modules, loaded once per process and unguarded in it: ruff bans clock, chance and `workflow.unsafe` there, and CI also replays
# with the sandbox's defaults. Never `workflows` itself: that would take the guard from the code it is there for.
PASSED_THROUGH = ("activities.contracts", "models.domain", "workflows.batching", "workflows.clock")

RUNNER = SandboxedWorkflowRunner(
    restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH).with_import_notification_policy(
        SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH | SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT
    )
)
