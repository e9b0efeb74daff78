import pytest
from fastapi import FastAPI, Request
from httpx2 import ASGITransport, AsyncClient

from deploy.api_command import configuration
from models.settings import Settings


async def seen(settings: Settings, trusted: str, sender: str) -> str:
    """The address that the application takes for the client's when `sender` claims to speak for 203.0.113.9."""
    app = FastAPI()

    @app.get("/")
    def address(request: Request) -> str:
        assert request.client is not None
        return request.client.host

    served = configuration(app, settings.model_copy(update={"trusted_proxies": trusted}))
    served.load()
    transport = ASGITransport(app=served.loaded_app, client=(sender, 1))
    async with AsyncClient(transport=transport, base_url="http://test", headers={"X-Forwarded-For": "203.0.113.9"}) as client:
        return str((await client.get("/")).json())


@pytest.mark.parametrize("sender", ["127.0.0.1", "::1", "198.51.100.7"])
async def test_nobody_speaks_for_another_address_unless_the_settings_say_so(
    settings: Settings, sender: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own variable
    assert await seen(settings, "", sender) == sender


@pytest.mark.parametrize("trusted", ["127.0.0.1", "10.0.0.0/8, 127.0.0.1", "*"])
async def test_a_proxy_that_the_settings_name_does(settings: Settings, trusted: str) -> None:
    assert await seen(settings, trusted, "127.0.0.1") == "203.0.113.9"


async def test_another_than_the_named_does_not(settings: Settings) -> None:
    assert await seen(settings, "10.0.0.0/8", "127.0.0.1") == "127.0.0.1"
