import pytest
from fastapi import FastAPI

from tests.api.conftest import Person, anonymous
from tests.api.rest import acme
from tests.api.rest.acme import Surroundings
from tests.api.rest.fake_temporal import FakeTemporal
from tests.api.test_isolation import ROUTES, Public

WITH_LOGIN = [name for name, line in ROUTES.items() if not isinstance(line, Public)]


@pytest.mark.parametrize("name", WITH_LOGIN)
async def test_a_parameter_that_the_route_does_not_know_is_refused(app: FastAPI, alice: Person, name: str) -> None:
    method, path = name.split()
    answer = await alice.client.request(method, f"{path}?zzz=1&cursor_=2")
    assert (answer.status_code, [error["path"] for error in answer.json()["errors"]]) == (422, ["query.zzz", "query.cursor_"])
    assert {error["code"] for error in answer.json()["errors"]} == {"unknown_parameter"}


async def test_every_parameter_that_is_described_is_known(app: FastAPI, alice: Person) -> None:
    described = {
        (method, path): [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
        if f"{method.upper()} {path}" in WITH_LOGIN
    }
    assert sum(map(bool, described.values())) > 20
    for (method, path), names in described.items():
        answer = await alice.client.request(method, path, params=dict.fromkeys([*names, "zzz"], "x"))
        assert [(error["path"], error["code"]) for error in answer.json()["errors"]] == [("query.zzz", "unknown_parameter")], path


async def test_it_says_which_parameters_there_are_and_asks_for_a_login_first(app: FastAPI, alice: Person) -> None:
    [error] = (await alice.client.get("/v1/deliveries", params={"status": "failed"})).json()["errors"]
    assert "use one of run_id, contact_id, campaign_id, journey_id, state, outcome, hidden, limit, cursor," in error["message"]
    [none] = (await alice.client.get("/v1/session", params={"status": "failed"})).json()["errors"]
    assert "there are none here" in none["message"]
    async with anonymous(app) as nobody:
        assert (await nobody.get("/v1/deliveries", params={"status": "failed"})).status_code == 401


async def test_a_value_that_no_outcome_has_is_refused(alice: Person) -> None:
    answer = await alice.client.get("/v1/deliveries", params={"outcome": "zzz"})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (422, "query.outcome")
    assert (await alice.client.get("/v1/deliveries", params={"outcome": "opted_out"})).status_code == 200


async def test_a_manner_that_the_address_cannot_say_releases_nobody(alice: Person, around: Surroundings, temporal: FakeTemporal) -> None:
    journey = await acme.publish(alice, around)
    assert (await alice.client.put(f"/v1/journeys/{journey}/pause")).status_code == 202
    told = len(temporal.started)
    answer = await alice.client.delete(f"/v1/journeys/{journey}/pause", params={"spread": "PT1H"})
    assert answer.status_code == 422 and "reason" in answer.json()["errors"][0]["message"] and len(temporal.started) == told
