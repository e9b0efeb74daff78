"""Clients of Temporal, connected the one way."""

from datetime import timedelta

from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.runtime import Runtime
from temporalio.service import RetryConfig

from models.settings import Settings
from workflows.payloads import plugin

PAYLOAD_KEY_ID = "1"


def payload_keys(settings: Settings) -> dict[str, bytes]:
    return {PAYLOAD_KEY_ID: settings.derive_key("payload-codec")}


async def connect(settings: Settings, *, patient: bool = False, lazy: bool = False, runtime: Runtime | None = None) -> Client:
    """A client of the Temporal that the standard environment variables name (TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE, TLS, API key).

    A patient client (workers) retries while the server is away; an impatient one (the API) gives up after 1.5 s, so that a caller
    gets a 503 rather than silence.
    """
    config = ClientConfig.load_client_connect_config()
    config.setdefault("target_host", "127.0.0.1:7233")
    retry = None if patient else RetryConfig(max_elapsed_time_millis=_milliseconds(timedelta(seconds=1.5)), max_retries=3)
    return await Client.connect(**config, plugins=[plugin(payload_keys(settings))], retry_config=retry, lazy=lazy, runtime=runtime)


def _milliseconds(duration: timedelta) -> int:
    return round(duration.total_seconds() * 1000)
