"""Settings, read once from the environment at a composition root and passed on. Nothing else reads the environment."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, Field, SecretBytes, SecretStr, ValidationError, field_validator

MAXIMUM_PAGE_SIZE: Final = 300  # 1,000 runs in one workflow have gone beyond Temporal's limits of payload size and of a task's time
_DESTINATION: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/@]+):(?P<port>[0-9]{1,5})")
_VARIABLES: Final = {"database_url": "DATABASE_APP_URL", "owner_database_url": "DATABASE_URL", "state_directory": "LEADSTATS_STATE"}


class Settings(BaseModel):
    """Everything a process needs to know about where it runs.

    Temporal's address, namespace, TLS and API key are read by Temporal's own environment configuration
    (`temporalio.envconfig`), not here.
    """

    model_config = ConfigDict(frozen=True)

    database_url: SecretStr  # DATABASE_APP_URL: the role that cannot bypass row-level security
    owner_database_url: SecretStr | None = None  # DATABASE_URL: for migrations only
    secret_key: SecretBytes  # LEADSTATS_SECRET_KEY: 32 bytes, base64; every other key is derived from it
    state_directory: Path = Path(".leadstats")  # LEADSTATS_STATE
    public_url: str = "http://127.0.0.1:8000"  # LEADSTATS_PUBLIC_URL: in unsubscribe links
    temporal_ui_url: str | None = None  # LEADSTATS_TEMPORAL_UI_URL: Temporal's own pages, linked from the front page
    api_host: str = "127.0.0.1"  # LEADSTATS_API_HOST
    api_port: int = 8000  # LEADSTATS_API_PORT
    task_queue: str = "journeys"  # LEADSTATS_TASK_QUEUE
    page_size: int = Field(default=200, ge=1, le=MAXIMUM_PAGE_SIZE)  # LEADSTATS_PAGE_SIZE: runs per workflow of a campaign
    move_page_size: int = Field(default=100, ge=1, le=1000)  # LEADSTATS_MOVE_PAGE_SIZE: workflows that a publish plan tells at once
    pool_size: int = Field(default=20, ge=1)  # LEADSTATS_POOL_SIZE: database connections per process, at most
    worker_build_id: str | None = None  # LEADSTATS_WORKER_BUILD_ID: switches Temporal's worker versioning on
    max_cached_workflows: int = 260  # LEADSTATS_MAX_CACHED_WORKFLOWS
    sandbox_smtp_host: str = "127.0.0.1"  # LEADSTATS_SANDBOX_SMTP_HOST
    sandbox_smtp_port: int = 1025  # LEADSTATS_SANDBOX_SMTP_PORT
    trusted_proxies: str = ""  # LEADSTATS_TRUSTED_PROXIES: "address,network/bits" whose X-Forwarded-For and -Proto are believed; "*": any
    secure_cookies: bool = False  # LEADSTATS_SECURE_COOKIES: set it when served over https
    send_concurrency: int = 8  # LEADSTATS_SEND_CONCURRENCY: messages in the air per connection and worker process
    private_destinations: str = (
        ""  # LEADSTATS_PRIVATE_DESTINATIONS: "host:port,…" in private networks that connections and webhooks may reach
    )
    log_level: str = "INFO"  # LEADSTATS_LOG_LEVEL
    metrics_bind: str | None = None  # LEADSTATS_METRICS_BIND

    @field_validator("private_destinations")
    @classmethod
    def _reachable(cls, value: str) -> str:
        parse_destinations(value)
        return value

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Settings from the environment.

        Raises:
            ValueError: a required variable is missing or malformed; the message names it.
        """
        values: dict[str, object] = {
            name.removeprefix("LEADSTATS_").lower(): value
            for name, value in environment.items()
            if name.startswith("LEADSTATS_") and name not in ("LEADSTATS_SECRET_KEY", "LEADSTATS_STATE")
        }
        if "LEADSTATS_STATE" in environment:
            values["state_directory"] = environment["LEADSTATS_STATE"]
        if "DATABASE_URL" in environment:
            values["owner_database_url"] = environment["DATABASE_URL"]
        for name in ("DATABASE_APP_URL", "LEADSTATS_SECRET_KEY"):
            if not environment.get(name):
                raise ValueError(f"{name} is not set; `leadstats up` sets it, or see docs/operating.md")
        values["database_url"] = environment["DATABASE_APP_URL"]
        key = base64.b64decode(environment["LEADSTATS_SECRET_KEY"])
        if len(key) != 32:
            raise ValueError("LEADSTATS_SECRET_KEY must be 32 bytes in base64")
        values["secret_key"] = key
        known = {name: value for name, value in values.items() if name in cls.model_fields}
        try:
            return cls.model_validate(known)
        except ValidationError as error:
            raise ValueError(_complaint(error)) from None

    def derive_key(self, purpose: str) -> bytes:
        """A 32-byte key for one purpose (`payload-codec`, `connection-secrets`, `unsubscribe-links`, …)."""
        return HKDF(SHA256(), length=32, salt=None, info=purpose.encode()).derive(self.secret_key.get_secret_value())

    def keyed_hash(self, purpose: str, *parts: str | bytes) -> bytes:
        """HMAC-SHA-256 of the parts under the purpose's key: equal inputs can be matched, values cannot be read back."""
        digest = hmac.new(self.derive_key(purpose), digestmod=hashlib.sha256)
        for part in parts:
            encoded = part.encode() if isinstance(part, str) else part
            digest.update(len(encoded).to_bytes(4, "big") + encoded)
        return digest.digest()


def parse_destinations(value: str) -> frozenset[tuple[str, int]]:
    """Of `host:port,…`, with IPv6 addresses in brackets. Raises ValueError, which does not repeat the value."""
    entries = [entry.strip() for entry in value.split(",") if entry.strip()]
    found = [_DESTINATION.fullmatch(entry) for entry in entries]
    wrong = [number for number, match in enumerate(found, 1) if match is None or not 0 < int(match["port"]) < 65_536]
    if wrong:
        raise ValueError(f'write "host:port,…", such as "mail.internal:587,10.0.0.5:25"; entry {wrong[0]} is not of this form')
    return frozenset((match["host"].strip("[]"), int(match["port"])) for match in found if match is not None)


def variable(field: str) -> str:
    """The environment variable that sets a field of `Settings`."""
    return _VARIABLES.get(field, f"LEADSTATS_{field.upper()}")


def _complaint(error: ValidationError) -> str:
    """The environment variables that are wrong, and how. Never their values: some are secret."""
    wrong = {str(one["loc"][0]): one["msg"] for one in error.errors(include_input=False, include_url=False, include_context=False)}
    return "; ".join(f"{variable(name)}: {message}" for name, message in wrong.items())
