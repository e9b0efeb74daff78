import re

from httpx2 import AsyncClient

from api.app import create_app
from api.dependencies import Services
from tests.api.conftest import anonymous


async def test_the_front_page_leads_on_and_its_links_answer(client: AsyncClient) -> None:
    page = await client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    links = re.findall(r'href="([^"]+)"', page.text)
    assert links == ["/v1/openapi.json", "/v1/health"]
    assert [(await client.get(link)).status_code in (200, 503) for link in links] == [True, True]


async def test_it_names_temporals_pages_where_they_are_known(services: Services) -> None:
    settings = services.settings.model_copy(update={"temporal_ui_url": "http://127.0.0.1:8233/?a=1&b=2"})
    async with anonymous(create_app(Services(settings, services.database, services.temporal))) as client:
        assert 'href="http://127.0.0.1:8233/?a=1&amp;b=2"' in (await client.get("/")).text


async def test_it_loads_nothing_from_anywhere(client: AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert not re.search(r"src=|<link|@import|url\(", page.text)
