"""The application around the routes: the checks in their order, and the form of a refusal."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from quart import Response
from quart.typing import TestClientProtocol as Client

from vllamad.access.api_keys import parse_keys
from vllamad.access.host_and_origin import Gate
from vllamad.config.settings import LogSettings, ServerSettings
from vllamad.gateway.app import make_app
from vllamad.gateway.context import Context
from vllamad.gateway.inference.upstream import RelayLimits
from vllamad.gateway.routes.table import ROUTES, Route
from vllamad.gateway.supervisor_client import SupervisorClient
from vllamad.models.installed import InstalledModels
from vllamad.protocol.gateway_setup import GatewaySettings

INFERS = {"Authorization": "Bearer infers-0123456789"}
MANAGES = {"X-Api-Key": "manages-0123456789"}
KEYS = "infers-0123456789 infer\nmanages-0123456789\n"


async def done(context: Context) -> Response:
    return Response(b"done")


def client(tmp_path: Path, keys: str = "", *more: Route) -> Client:
    settings = GatewaySettings(
        broker=tmp_path / "broker",
        control=tmp_path / "control",
        models_dir=tmp_path,
        sockets=(),
        loopback=False,
        server=ServerSettings(),
        logging=LogSettings(),
        models={},
        api_keys=parse_keys(keys) if keys else (),
    )
    context = Context(
        settings=settings,
        installed_models=InstalledModels(tmp_path, {}),
        gate=Gate(bind_is_loopback=False),
        limits=RelayLimits(),
        orders=SupervisorClient(settings.control),
    )
    return make_app(context, None, (*ROUTES, *more)).test_client()


NEW = Route("/api/new", ("POST",), done)  # a route that nothing was decided for


async def test_a_route_without_access_is_refused_without_a_key_that_manages(tmp_path: Path) -> None:
    http = client(tmp_path, KEYS, NEW)
    assert (await http.post("/api/new")).status_code == 401
    assert (await http.post("/api/new", headers=INFERS)).status_code == 403
    answer = await http.post("/api/new", headers=MANAGES)
    assert (answer.status_code, await answer.get_data()) == (200, b"done")


async def test_without_configured_keys_every_route_answers(tmp_path: Path) -> None:
    assert (await client(tmp_path, "", NEW).post("/api/new")).status_code == 200


async def test_an_open_route_takes_no_key(tmp_path: Path) -> None:
    assert (await client(tmp_path, KEYS).get("/api/version")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), (INFERS, 403), (MANAGES, 404)], ids=["none", "infer", "all"]
)
async def test_a_path_without_a_route_takes_a_key_that_manages(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    answer = await client(tmp_path, KEYS).get("/api/nothing", headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/api/pull", "//api/pull", "/api/pull/", "/api/blobs/sha256:00"])
async def test_no_spelling_of_a_managing_path_passes_with_an_inference_key(
    tmp_path: Path, path: str
) -> None:
    assert (await client(tmp_path, KEYS).post(path, headers=INFERS)).status_code == 403


async def test_the_origin_is_checked_before_the_key(tmp_path: Path) -> None:
    headers = {"Origin": "https://elsewhere.example"}
    answer = await client(tmp_path, KEYS).post("/api/pull", headers=headers)
    assert (answer.status_code, await answer.get_data()) == (403, b"")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/chat", "POST"),
        ("GET", "/api/blobs/sha256:00", "HEAD, POST"),
        ("BREW", "/api/tags", "HEAD, GET"),
    ],
)
async def test_a_method_that_a_path_lacks_is_refused_with_the_methods_it_has(
    tmp_path: Path, method: str, path: str, allowed: str
) -> None:
    answer = await client(tmp_path).open(path, method=method)  # pyright: ignore[reportCallIssue]  # no default of `json` in its protocol
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert await answer.get_data() == b"405 method not allowed"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/tags/", 301), ("POST", "/api/chat/", 307), ("POST", "/api/nothing/", 404)],
)
async def test_a_path_with_one_slash_too_many_is_redirected_to_its_route(
    tmp_path: Path, method: str, path: str, status: int
) -> None:
    answer = await client(tmp_path).open(path, method=method)  # pyright: ignore[reportCallIssue]  # no default of `json` in its protocol
    assert answer.status_code == status
    assert answer.headers.get("Location") == (path.rstrip("/") if status < 400 else None)


async def test_an_error_has_the_form_of_its_api(tmp_path: Path) -> None:
    http = client(tmp_path, KEYS)
    paths = ("/api/chat", "/rerank", "/v1/messages", "/v1/nothing")
    bodies = [await (await http.post(path)).get_json() for path in paths]
    assert isinstance(bodies[0]["error"], str)
    assert bodies[1]["error"]["type"] == "authentication_error"
    assert bodies[2]["type"] == "error"
    assert bodies[3]["error"]["code"] is None


async def test_the_log_names_the_route_and_not_only_the_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "vllamad.gateway.context"):
        await client(tmp_path).get("/api/blobs/sha256:00")
        await client(tmp_path).get("/api/nothing")
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert [line.get("route") for line in fields] == ["/api/blobs/<digest>", None]
