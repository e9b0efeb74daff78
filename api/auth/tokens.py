"""Secrets that are shown once and kept as hashes: API keys, session cookies, CSRF tokens.

They carry 256 random bits, so a plain SHA-256 is enough; only passwords need a slow hash.
"""

import hashlib
import secrets
from dataclasses import dataclass

KEY_PREFIX = "ls_"


@dataclass(frozen=True)
class NewKey:
    """`secret` is shown once; `prefix` may be shown for ever, to recognise the key by."""

    prefix: str
    secret: str

    @property
    def secret_hash(self) -> bytes:
        return token_hash(self.secret)


def new_key() -> NewKey:
    """An API key `ls_<prefix>_<secret>`."""
    prefix = secrets.token_hex(4)
    return NewKey(prefix, f"{KEY_PREFIX}{prefix}_{secrets.token_urlsafe(32)}")


def new_token() -> str:
    """256 random bits as 43 characters that need no quoting in a cookie or a header."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
