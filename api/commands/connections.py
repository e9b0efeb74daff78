"""Making, changing and checking connections."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from activities.contracts.sending import SendOutcome
from activities.providers.destination import Destinations
from activities.providers.smtp import SmtpAccount, check
from api.commands.waking import wake
from api.dependencies import Caller
from models.domain.audit import Actor, NewEntry
from models.domain.connection import SmtpConfig, smtp_problems
from models.domain.errors import Invalid, Problem
from models.domain.phrases import json_path, plain_message
from models.sandbox_account import at_sandbox_now, sandbox_password, sandbox_username
from models.settings import Settings
from models.store import audit, connections
from models.store.connections import NewConnection, StoredConnection
from models.store.session import OrganizationSession

SANDBOX_CONCURRENCY = 32  # our own server, which does not mind

_ADVICE = {
    "address_not_allowed": "The host leads into a private network. Use a public host, or allow it in LEADSTATS_PRIVATE_DESTINATIONS.",
    "authentication_failed": "The server refused the username or the password.",
    "authentication_not_offered": "The server offers no login that we know. Leave out the username, or use another port.",
    "auth_refused": "The server refused the login.",
    "certificate_invalid": "The server's certificate is not valid for this host name.",
    "connect_timeout": "The server did not answer in time. Check host, port and firewall.",
    "connection_lost": "The server closed the connection. Check port and security.",
    "starttls_not_offered": "The server offers no STARTTLS on this port. Try security tls on port 465.",
    "tls_failed": "Encryption could not be agreed on. Check that port and security fit together.",
    "unreachable": "The host name does not resolve, or nothing answers there. Check host and port.",
}


@dataclass(frozen=True)
class CheckResult:
    """Whether a message could be handed over now; `reason` is a code and `advice` a sentence when not."""

    ok: bool
    reason: str | None
    advice: str | None


def secrets_key(settings: Settings) -> bytes:
    return settings.derive_key("connection-secrets")


async def create_connection(caller: Caller, new: NewConnection) -> StoredConnection:
    """The connection exists, its password sealed.

    Raises:
        Invalid: a field breaks a rule.
        Conflict: the name is taken.
    """
    _refuse_problems(SmtpConfig.model_validate(new.config), new.secret is not None)
    async with caller.session() as session:
        identifier = await connections.create(session, new, secrets_key(caller.services.settings))
        stored = await connections.get(session, identifier)
        await audit.append(session, [_entry(caller.actor, "connection.created", stored)])
    return stored


async def create_sandbox_connection(session: OrganizationSession, settings: Settings, actor: Actor) -> UUID:
    """The organization's mail goes to the sandbox's inbox, wherever that listens, until another connection is made the default.

    Writes its audit entry: call it near the end of the transaction. Raises Conflict when there is one already.
    """
    config = SmtpConfig(
        host=settings.sandbox_smtp_host,
        port=settings.sandbox_smtp_port,
        security="starttls",
        username=sandbox_username(session.organization_id),
        sender_address="hello@sandbox.example",
        sender_name="Sandbox",
        concurrency=SANDBOX_CONCURRENCY,
        sandbox=True,
    )
    secret = sandbox_password(settings, session.organization_id)
    new = NewConnection("Sandbox", "email", "smtp", config.model_dump(), secret=secret, is_default=True)
    identifier = await connections.create(session, new, secrets_key(settings))
    await audit.append(session, [_entry(actor, "connection.created", await connections.get(session, identifier))])
    return identifier


async def change_connection(caller: Caller, connection_id: UUID, changes: Mapping[str, Any]) -> StoredConnection:
    """The given fields are changed; the others stay. `password` None takes the password away. It counts as repaired: runs that
    were held for it ask again at once.

    Raises:
        NotFound: no such connection.
        Invalid: the result breaks a rule, for instance a new host with the old password.
        Conflict: the name is taken.
        Unavailable: changed, but the runs could not be told yet: repeat, or they ask by themselves within half an hour.
    """
    settings = caller.services.settings
    async with caller.session() as session:
        stored = await connections.get(session, connection_id)
        new = _changed(stored, changes, settings)
        await connections.change(session, stored, new, secrets_key(settings))
        if "password" in changes and changes["password"] is None:
            await connections.forget_secret(session, connection_id)
        stored = await connections.get(session, connection_id)
        await audit.append(session, [_entry(caller.actor, "connection.changed", stored, fields=sorted(changes))])
    await wake(caller, "connection", connection_id)
    return stored


def _changed(stored: StoredConnection, changes: Mapping[str, Any], settings: Settings) -> NewConnection:
    before = at_sandbox_now(SmtpConfig.model_validate(stored.config), stored.organization_id, settings)
    fields = {name: value for name, value in changes.items() if name in SmtpConfig.model_fields}
    try:
        config = SmtpConfig.model_validate({**before.model_dump(), **fields})
    except ValidationError as error:
        raise Invalid([Problem(json_path(e["loc"]), e["type"], plain_message(e)) for e in error.errors()]) from None
    _refuse_problems(config, changes.get("password", "kept" if stored.has_secret else None) is not None)
    moved = any(getattr(config, name) != getattr(before, name) for name in ("host", "port", "security"))
    if moved and stored.has_secret and "password" not in changes:
        # Otherwise whoever may edit a connection could have its password sent to a server of theirs.
        raise Invalid.field("password", "required", "Give the password again when host, port or security change.")
    new = NewConnection(
        stored.name,
        stored.channel,
        stored.provider,
        config.model_dump() | {"sandbox": config.sandbox and not moved},
        secret=changes.get("password"),
        is_default=stored.is_default,
        rate_per_second=stored.rate_per_second,
    )
    return replace(new, **{name: changes[name] for name in ("name", "is_default", "rate_per_second") if name in changes})


def _refuse_problems(config: SmtpConfig, has_password: bool) -> None:
    problems = smtp_problems(config, has_password)
    if problems:
        raise Invalid(problems)


async def delete_connection(caller: Caller, connection_id: UUID) -> None:
    """The connection and its password are gone. Raises NotFound; Conflict while it is needed."""
    async with caller.session() as session:
        stored = await connections.get(session, connection_id)
        await connections.delete(session, stored)
        await audit.append(session, [_entry(caller.actor, "connection.deleted", stored)])


async def check_connection(caller: Caller, connection_id: UUID) -> CheckResult:
    """Connects and logs in, sends nothing. A broken connection that works again is active afterwards, and runs that were held for
    it ask again at once.

    Raises:
        NotFound: no such connection.
        Unavailable: it works, but the runs could not be told yet: repeat, or they ask by themselves within half an hour.
    """
    settings = caller.services.settings
    async with caller.session() as session:
        stored = await connections.get(session, connection_id)
        sending = await connections.load_for_sending(session, connection_id, stored.channel, secrets_key(settings))
    answer = await check(SmtpAccount.of(sending, settings), Destinations(settings))
    ok = answer.outcome is SendOutcome.ACCEPTED
    async with caller.session() as session:
        if ok:
            await connections.mark_active(session, connection_id, sending.revision)
        await audit.append(session, [_entry(caller.actor, "connection.checked", stored, ok=ok, reason=answer.reason)])
    if ok:
        await wake(caller, "connection", connection_id)
        return CheckResult(True, None, None)
    return CheckResult(False, answer.reason, _ADVICE.get(answer.reason or "", "The server refused; the reason holds its code."))


def _entry(actor: Actor, action: str, stored: StoredConnection, **details: Any) -> NewEntry:
    return NewEntry(action, "connection", str(stored.id), actor, {"provider": stored.provider, **details})
