"""The keys of words about single runs: a word that is said again under its key is the same word, whatever has become of the run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from pydantic import BaseModel

from activities.contracts.run_control import Place
from api.dependencies import Caller
from models.domain.errors import KeyReused, Unavailable
from models.store import idempotency
from models.store.idempotency import Reserved
from models.store.session import OrganizationSession


class Remembered(BaseModel):
    """What is kept under the key of a word: where the run stood, and how far its record was, when it was first said; once it is answered,
    the answer. `word` tells it from one that was refused under the same key before, whose refusal Temporal would give again."""

    word: UUID | None = None  # None: said of an earlier release
    sequence: int | None = None
    place: Place | None = None
    phase: str | None = None  # None: not answered yet
    changed: bool = False


@dataclass(frozen=True)
class Kept:
    """`first`: the key has not been used before, as far as it matters: the word cannot have been obeyed."""

    reserved: Reserved
    said: Remembered
    first: bool


async def reserve(session: OrganizationSession, caller: Caller, key: str, digest: str, said: Remembered) -> Kept:
    """The key is this word's from now on, if it was not already: then what is meant is what was meant when it was first said, wherever
    the run stands by now. Raises KeyReused where it is another request's."""
    assert caller.actor.id is not None  # only `system` has none
    note = said.model_dump_json().encode()
    found = await idempotency.reserve(session, caller.actor.id, key, bytes.fromhex(digest), note)
    if isinstance(found, Reserved):  # with the note of the same request before, which was taken for dead, and may have been obeyed
        return Kept(found, Remembered.model_validate_json(found.note or note), found.note in (None, note))
    if found.request_hash != bytes.fromhex(digest):
        raise KeyReused
    return Kept(Reserved(found.id), Remembered.model_validate_json(found.answer or note), first=False)


@asynccontextmanager
async def releasing(caller: Caller, kept: Kept | None) -> AsyncIterator[None]:
    """What is refused uses up no key. What was not answered may still be obeyed, and keeps its own, whatever a repetition is answered: or
    another one would be a new word, about wherever the run has come."""
    try:
        yield
    except Unavailable:
        raise
    except Exception:
        if kept is not None and kept.first:
            async with caller.session() as session:
                await idempotency.release(session, kept.reserved)
        raise


async def settle(caller: Caller, kept: Kept, phase: str, changed: bool) -> None:
    """The word is answered so, also when it is said again under its key."""
    answered = kept.said.model_copy(update={"phase": phase, "changed": changed})
    async with caller.session() as session:
        await idempotency.settle(session, kept.reserved, 200, answered.model_dump_json().encode())
