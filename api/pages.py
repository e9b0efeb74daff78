"""Cursor pages: newest last, by id. UUIDv7 ids are ordered by age, so the last id of a page is the cursor to the next."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel

from models.domain.errors import Invalid

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """`next_cursor` is passed back as `cursor` for the next page; null means there is none."""

    items: list[Item]
    next_cursor: str | None = None


@dataclass(frozen=True)
class PageQuery:
    limit: int
    after: UUID | None


def _page_query(
    limit: Annotated[int, Query(ge=1, le=500, description="How many to return at most.")] = 50,
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")] = None,
) -> PageQuery:
    if cursor is None:
        return PageQuery(limit, None)
    try:
        return PageQuery(limit, UUID(bytes=base64.urlsafe_b64decode(cursor + "==")))
    except ValueError:
        raise Invalid.field("cursor", "malformed", "Pass back next_cursor exactly as it was given, or leave it out.") from None


PageOf = Annotated[PageQuery, Depends(_page_query)]


def cursor_after(identifier: UUID) -> str:
    return base64.urlsafe_b64encode(identifier.bytes).rstrip(b"=").decode()


def page(items: Sequence[Item], ids: Sequence[UUID], query: PageQuery) -> Page[Item]:
    """A page of `items`, for which the store was asked with a limit of `query.limit + 1`, so that one too many
    tells that there is a next page. `ids` are the items' ids in the same order."""
    more = len(items) > query.limit
    return Page(items=list(items[: query.limit]), next_cursor=cursor_after(ids[query.limit - 1]) if more else None)
