"""What every table shares: ids, organization, times. Times are aware UTC, stored as `timestamptz`."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import uuid_utils.compat
from sqlalchemy import DateTime, MetaData, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

SQLModel.metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def new_id() -> UUID:
    """A UUIDv7: unique, and ordered by the millisecond it was made in, so that pages by id are pages by age."""
    return uuid_utils.compat.uuid7()


def utc_now() -> datetime:
    return datetime.now(UTC)


def moment(*, nullable: bool = False, index: bool = False, default_now: bool = False) -> Any:
    """A `timestamptz` column."""
    extra: dict[str, Any] = {"sa_column_kwargs": {"server_default": func.now()}} if default_now else {}
    if default_now:
        return Field(default_factory=utc_now, sa_type=DateTime(timezone=True), nullable=nullable, index=index, **extra)
    if nullable:
        return Field(default=None, sa_type=DateTime(timezone=True), nullable=True, index=index)
    return Field(sa_type=DateTime(timezone=True), nullable=False, index=index)


def document(**kwargs: Any) -> Any:
    """A JSONB column, an empty object (or, where it may be, NULL) by default."""
    if kwargs.pop("nullable", False):
        return Field(default=None, sa_type=JSONB, nullable=True, **kwargs)
    kwargs.setdefault("default_factory", dict)
    return Field(sa_type=JSONB, nullable=False, **kwargs)


class OrganizationRow(SQLModel):
    """A row that belongs to one organization. Row-level security is switched on for every such table."""

    id: UUID = Field(default_factory=new_id, primary_key=True)
    organization_id: UUID = Field(foreign_key="organizations.id", index=False)
    created_at: datetime = moment(default_now=True)
