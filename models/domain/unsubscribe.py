"""The token in an unsubscribe link: who, from which topic, by which message. Pure.

It identifies person, topic and message by itself, needs no login, and cannot be made without the key. It holds opaque ids only.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from uuid import UUID

from models.domain.journey.definition import Channel

_VERSION = b"\x01"
_MAC = 16
_CODE_BY_CHANNEL: dict[Channel, bytes] = {"email": b"e", "sms": b"s"}
_CHANNEL_BY_CODE: dict[bytes, Channel] = {code: channel for channel, code in _CODE_BY_CHANNEL.items()}
_LENGTH = 2 + 4 * 16 + _MAC


class ForgedToken(ValueError):
    """Not a token made with this key."""


@dataclass(frozen=True)
class Unsubscribe:
    """One contact leaves one topic on one channel, by the link in one delivery."""

    organization_id: UUID
    contact_id: UUID
    topic_id: UUID
    channel: Channel
    delivery_id: UUID


def make_token(key: bytes, unsubscribe: Unsubscribe) -> str:
    """The token: 110 URL-safe characters, always the same for the same input. Does not expire."""
    ids = (unsubscribe.organization_id, unsubscribe.contact_id, unsubscribe.topic_id, unsubscribe.delivery_id)
    body = _VERSION + _CODE_BY_CHANNEL[unsubscribe.channel] + b"".join(identifier.bytes for identifier in ids)
    return base64.urlsafe_b64encode(body + _mac(key, body)).rstrip(b"=").decode()


def read_token(key: bytes, token: str) -> Unsubscribe:
    """What `make_token` was given.

    Raises:
        ForgedToken: not made with this key, or changed.
    """
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ForgedToken("malformed") from None
    body, mac = raw[:-_MAC], raw[-_MAC:]
    if len(raw) != _LENGTH or body[:1] != _VERSION or not hmac.compare_digest(mac, _mac(key, body)):
        raise ForgedToken("not made with this key")
    ids = [UUID(bytes=body[start : start + 16]) for start in range(2, _LENGTH - _MAC, 16)]
    return Unsubscribe(ids[0], ids[1], ids[2], _CHANNEL_BY_CODE[body[1:2]], ids[3])


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).digest()[:_MAC]
