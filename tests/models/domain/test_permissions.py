import re
from pathlib import Path

import pytest

from models.domain.permissions import (
    PERMISSIONS,
    ROLE_PERMISSIONS,
    ROLE_PURPOSE,
    Role,
    may_assign,
    only_reads,
    permissions_of,
    render_markdown,
)

ROOT = Path(__file__).parents[3]


def test_the_document_is_in_step() -> None:
    assert (ROOT / "docs/permissions.md").read_text() == render_markdown()


def test_every_role_has_a_purpose_and_only_known_permissions() -> None:
    assert set(ROLE_PERMISSIONS) == set(ROLE_PURPOSE) == set(Role)
    assert all(granted <= set(PERMISSIONS) for granted in ROLE_PERMISSIONS.values())


def test_every_permission_that_a_route_asks_for_is_in_the_table_and_every_one_is_asked_for() -> None:
    asked = {
        permission for path in (ROOT / "api").rglob("*.py") for permission in re.findall(r'authorize\("([a-z_.]+)"\)', path.read_text())
    }
    assert asked == set(PERMISSIONS)


def test_who_only_looks_changes_nothing() -> None:
    for role in (Role.AUDITOR, Role.VIEWER):
        assert all(only_reads(permission) for permission in ROLE_PERMISSIONS[role])


def test_a_viewer_sees_no_addresses() -> None:
    assert not ROLE_PERMISSIONS[Role.VIEWER] & {"contacts.read", "consents.read", "sandbox.read", "audit.read"}


def test_an_unknown_role_may_do_nothing() -> None:
    assert permissions_of("king") == frozenset()


@pytest.mark.parametrize(
    ("assigner", "role", "may"),
    [
        ("owner", "owner", True),
        ("admin", "admin", True),
        ("admin", "owner", False),
        ("designer", "viewer", False),
        ("king", "viewer", False),
    ],
)
def test_only_owners_make_owners_and_only_admins_make_the_rest(assigner: str, role: str, may: bool) -> None:
    assert may_assign(assigner, role) is may
