"""Headers that several routes understand."""

from typing import Annotated

from fastapi import Depends, Header, Request

from models.domain.errors import Invalid, StaleRevision


def etag(revision: int) -> str:
    return f'"{revision}"'


def _revision(
    if_match: Annotated[
        str | None, Header(alias="If-Match", max_length=64, description="The ETag that was read.", examples=['"3"'])
    ] = None,
) -> int | None:
    """The revision that the caller has read; None when they do not say."""
    if if_match is None:
        return None
    number = if_match.strip().removeprefix("W/").strip('"')
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise Invalid.field("header.If-Match", "malformed", 'Pass back the ETag exactly as it was given, such as "3".')
    return int(number)


def is_known(sent: str, if_none_match: str | None) -> bool:
    """Whether the caller has what this ETag is of already: then the answer is 304, without a body."""
    named = [each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")]
    return sent in named or named == ["*"]


def _required_revision(revision: Annotated[int | None, Depends(_revision)]) -> int:
    if revision is None:
        raise StaleRevision("Send the ETag of the draft that you changed as If-Match, so that nobody's work is lost.")
    return revision


def _idempotency_key(request: Request) -> str | None:
    """Of a POST; its form has been checked by `api.idempotency`, and `api.openapi` describes it."""
    return request.headers.get("Idempotency-Key")


IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", max_length=2_000, description="The ETag of what you have: 304 if that is still so.")
]
IfMatch = Annotated[int, Depends(_required_revision)]
OptionalIfMatch = Annotated[int | None, Depends(_revision)]
PostKey = Annotated[str | None, Depends(_idempotency_key)]
CommandKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=200,
        pattern="^[!-~]+$",
        description="Repeat the request with the same key when it was not answered, or answered 503: it is obeyed once.",
        examples=["pause-1042"],
    ),
]
