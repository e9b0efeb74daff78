"""What database and inbox hold in the end, read with plain SQL, past every query of the product."""

from collections.abc import Collection
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from deploy.chaos.judge import Delivery, Outcome, Received, Run
from deploy.chaos.judge_replays import Link
from deploy.trial.installation import Installation

_RUNS: LiteralString = """
    SELECT lower(c.email), r.status, r.reason FROM runs r JOIN contacts c ON c.id = r.contact_id WHERE r.campaign_id = %s"""
_DELIVERIES: LiteralString = """
    SELECT d.id, lower(c.email), d.step_id, d.state, d.transmitting_at, d.run_id
    FROM deliveries d JOIN contacts c ON c.id = d.contact_id WHERE d.campaign_id = %s"""
_RECEIVED: LiteralString = "SELECT lower(recipient), subject, delivery_id FROM sandbox_messages WHERE subject <> ALL(%s)"
_LINKS: LiteralString = """
    SELECT r.id, lower(c.email), r.status, r.reason, r.replay_of, r.replayed_by, r.root_run_id
    FROM runs r JOIN contacts c ON c.id = r.contact_id WHERE r.campaign_id = %s"""


async def read_outcome(installation: Installation, campaign_id: str, others: Collection[str] = ()) -> Outcome:
    """`others`: subjects of messages that are another campaign's."""
    async with await _connect(installation) as connection:
        runs = await (await connection.execute(_RUNS, [campaign_id])).fetchall()
        deliveries = await (await connection.execute(_DELIVERIES, [campaign_id])).fetchall()
        received = await (await connection.execute(_RECEIVED, [list(others)])).fetchall()
    return Outcome([Run(*row) for row in runs], [Delivery(*row) for row in deliveries], [Received(*row) for row in received])


async def read_links(installation: Installation, campaign_id: str) -> list[Link]:
    """The campaign's runs as links of chains of replays."""
    async with await _connect(installation) as connection:
        return [Link(*row) for row in await (await connection.execute(_LINKS, [campaign_id])).fetchall()]


async def count_received(installation: Installation) -> int | None:
    """How many messages the inbox holds. None: the database did not answer."""
    try:
        async with await _connect(installation) as connection:
            row = await (await connection.execute("SELECT count(*) FROM sandbox_messages")).fetchone()
    except psycopg.OperationalError:
        return None
    return int(row[0]) if row else 0


async def _connect(installation: Installation) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    """A session of the installation's only organization."""
    connection = await psycopg.AsyncConnection.connect(installation.described["database_url"], connect_timeout=3, autocommit=True)
    organization_id: UUID = installation.organization_id
    await connection.execute("SELECT set_config('leadstats.organization_id', %s, false)", [str(organization_id)])
    return connection
