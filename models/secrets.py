"""Envelope encryption of credentials at rest.

Each secret has its own random data key; the data key is wrapped by a key-encryption key, whose id is stored in the row.
Both layers are AES-256-GCM and bound to the caller's associated data.

Layout: version (1 byte) | nonce (12) | wrapped data key (48) | nonce (12) | ciphertext and tag.
"""

import hashlib
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_VERSION = b"\x01"
_NONCE = 12
_WRAPPED = 48
_HEADER = 1 + _NONCE + _WRAPPED


class SecretUnreadable(Exception):
    """The secret was sealed under another key, for another row, or was changed. Says nothing of its content."""


@dataclass(frozen=True)
class Sealed:
    key_id: str
    blob: bytes


def key_id(key: bytes) -> str:
    """A name for a key that does not reveal it."""
    return hashlib.sha256(b"key-id:" + key).hexdigest()[:16]


def seal(key: bytes, secret: str, binding: bytes) -> Sealed:
    """`secret` encrypted under a fresh data key, readable only with `key` and the same `binding`."""
    data_key, nonce = os.urandom(32), os.urandom(_NONCE)
    body = nonce + AESGCM(data_key).encrypt(nonce, secret.encode(), binding)
    return Sealed(key_id(key), _VERSION + _wrap(key, data_key, binding) + body)


def unseal(key: bytes, sealed: Sealed, binding: bytes) -> str:
    """The secret.

    Raises:
        SecretUnreadable: wrong key, wrong binding, or the bytes were changed.
    """
    data_key = _unwrap(key, sealed, binding)
    body = sealed.blob[_HEADER:]
    try:
        return AESGCM(data_key).decrypt(body[:_NONCE], body[_NONCE:], binding).decode()
    except (InvalidTag, ValueError):
        raise SecretUnreadable("the secret was changed") from None


def _wrap(key: bytes, data_key: bytes, binding: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, data_key, binding)


def _unwrap(key: bytes, sealed: Sealed, binding: bytes) -> bytes:
    if sealed.key_id != key_id(key):
        raise SecretUnreadable(f"the secret is sealed under key {sealed.key_id}, which is not the current one")
    if sealed.blob[:1] != _VERSION or len(sealed.blob) < _HEADER:
        raise SecretUnreadable("the secret has an unknown format")
    wrapped = sealed.blob[1:_HEADER]
    try:
        return AESGCM(key).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], binding)
    except InvalidTag:
        raise SecretUnreadable("the secret belongs to another row or was changed") from None
