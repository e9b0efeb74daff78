"""Who may do what: one table. A role is a set of permissions; an API key's scopes are permissions too. Pure.

`docs/permissions.md` is this table rendered; a test keeps the two in step.
"""

from enum import StrEnum
from types import MappingProxyType

PERMISSIONS: dict[str, str] = {
    "organization.read": "see the organization's settings and its members",
    "organization.write": "change the organization's settings, its members and their roles; read the webhook secret",
    "api_keys.read": "list API keys (never their secrets)",
    "api_keys.write": "create and revoke API keys",
    "audit.read": "read and export the audit record",
    "contacts.read": "see contacts, their attributes and their addresses",
    "contacts.write": "create, change, import and delete contacts; define topics",
    "consents.read": "see consents and suppressions",
    "consents.write": "record and withdraw consent; suppress and release addresses",
    "events.read": "see contacts' events",
    "events.write": "send events, which may begin runs",
    "segments.read": "see segments; preview them together with contacts.read",
    "segments.write": "create, change and delete segments",
    "templates.read": "see templates; preview them together with contacts.read",
    "templates.write": "create templates and new versions of them",
    "connections.read": "see connections (never their credentials)",
    "connections.write": "connect, change and disconnect accounts at providers",
    "journeys.read": "see journeys and their versions",
    "journeys.write": "create and edit drafts of journeys",
    "journeys.publish": "publish a version; pause and resume a journey; cancel its runs",
    "journeys.approve": "approve or reject what somebody else wants to publish",
    "campaigns.read": "see campaigns and their progress",
    "campaigns.launch": "launch, pause, resume and cancel campaigns",
    "runs.read": "see runs and their timelines",
    "runs.start": "start a run for a contact",
    "runs.control": "pause, resume, retry, skip, redirect, replay and cancel runs, and change their variables",
    "runs.bulk": "do to many runs at once what one may do to one",
    "runs.review": "decide about runs that wait for a person's review",
    "deliveries.read": "see deliveries and what became of them",
    "sandbox.read": "read the sandbox's inboxes",
    "sandbox.write": "empty the sandbox's inboxes and script their failures",
}


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    DESIGNER = "designer"
    APPROVER = "approver"
    SUPPORT = "support"
    AUDITOR = "auditor"
    VIEWER = "viewer"


ROLE_PURPOSE = MappingProxyType(
    {
        Role.OWNER: "may do everything; only an owner makes or removes owners",
        Role.ADMIN: "connects accounts, manages people and keys, and may do everything but change owners",
        Role.DESIGNER: "builds contacts, segments, templates and journeys, and launches campaigns of published versions",
        Role.APPROVER: "reads everything in a journey, approves and publishes it and launches campaigns, but does not edit",
        Role.SUPPORT: "sees why something did or did not leave, and controls runs",
        Role.AUDITOR: "reads everything, the audit record included, and changes nothing",
        Role.VIEWER: "reads journeys, campaigns and their results, without contacts' details",
    }
)

_VIEW = frozenset(
    {
        "organization.read",
        "segments.read",
        "templates.read",
        "journeys.read",
        "campaigns.read",
        "runs.read",
        "deliveries.read",
    }
)
_PEOPLE = frozenset({"contacts.read", "consents.read", "events.read", "sandbox.read"})  # shows addresses or names
_READ = frozenset(name for name in PERMISSIONS if name.endswith(".read"))

ROLE_PERMISSIONS = MappingProxyType(
    {
        Role.OWNER: frozenset(PERMISSIONS),
        Role.ADMIN: frozenset(PERMISSIONS),
        Role.DESIGNER: _VIEW
        | _PEOPLE
        | {
            "connections.read",
            "contacts.write",
            "consents.write",
            "segments.write",
            "templates.write",
            "journeys.write",
            "journeys.publish",
            "campaigns.launch",
            "runs.start",
            "runs.control",
            "runs.bulk",
            "runs.review",
            "events.write",
            "sandbox.write",
        },
        Role.APPROVER: _VIEW
        | _PEOPLE
        | {"connections.read", "audit.read", "journeys.approve", "journeys.publish", "campaigns.launch", "runs.review"},
        Role.SUPPORT: _VIEW
        | _PEOPLE
        | {"connections.read", "audit.read", "consents.write", "events.write", "runs.start", "runs.control", "runs.bulk", "runs.review"},
        Role.AUDITOR: _READ,
        Role.VIEWER: _VIEW,
    }
)


def permissions_of(role: str) -> frozenset[str]:
    """What a member with this role may do; nothing for a role that does not exist."""
    return ROLE_PERMISSIONS[Role(role)] if role in Role._value2member_map_ else frozenset()


def only_reads(permission: str) -> bool:
    """Whether using this permission changes nothing: the only kind a suspended organization has."""
    return permission.endswith(".read")


def may_assign(assigner: str, role: str) -> bool:
    """Whether a member with the role `assigner` may give `role` to somebody, or take it away."""
    return assigner == Role.OWNER or (assigner == Role.ADMIN and role != Role.OWNER)


def render_markdown() -> str:
    """`docs/permissions.md`."""
    roles = list(Role)
    lines = [
        "# Roles and permissions",
        "",
        "Rendered from `models/domain/permissions.py` by `render_markdown()`; do not edit. A test keeps it in step.",
        "",
        "| role | who it is for |",
        "|---|---|",
        *(f"| {role} | {ROLE_PURPOSE[role]} |" for role in roles),
        "",
        "An API key's scopes are permissions. A key never does more than the member who made it may do now.",
        "",
        "| permission | allows to | " + " | ".join(roles) + " |",
        "|---|---|" + ":-:|" * len(roles),
    ]
    for name, purpose in PERMISSIONS.items():
        marks = " | ".join("yes" if name in ROLE_PERMISSIONS[role] else "" for role in roles)
        lines.append(f"| `{name}` | {purpose} | {marks} |")
    return "\n".join(lines) + "\n"
