"""The route table: which route a request gets, and what holds for a route that says little."""

from __future__ import annotations

import pytest
from quart import Response

from vllamad.access.api_keys import Access
from vllamad.gateway.context import Context
from vllamad.gateway.routes.table import ROUTES, Api, Body, Route, RouteTable, api_of_unknown

TABLE = RouteTable(ROUTES)

# All that takes a key which may manage; every other route was decided to be open or for inference.
MANAGING = {
    ("POST", "/api/copy"),
    ("POST", "/api/create"),
    ("DELETE", "/api/delete"),
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/blobs/<digest>"),
}


async def handler(context: Context) -> Response:
    return Response(b"")


def test_a_route_without_access_takes_a_key_that_manages() -> None:
    assert Route("/new", ("POST",), handler).access is Access.MANAGE


@pytest.mark.parametrize("access", Access)
def test_the_access_of_each_route_is_the_one_that_was_decided(access: Access) -> None:
    routes = {
        (method, route.path)
        for route in ROUTES
        if route.access is access
        for method in route.methods
    }
    match access:
        case Access.MANAGE:
            assert routes == MANAGING
        case Access.OPEN:
            assert {path for _, path in routes} == {"/", "/api/version"}
        case Access.INFER:
            assert ("POST", "/api/chat") in routes


def test_no_method_of_a_path_is_there_twice() -> None:
    pairs = [(method, route.path) for route in ROUTES for method in route.methods]
    assert len(pairs) == len(set(pairs)) > 30


@pytest.mark.parametrize(
    ("method", "path", "rule", "access"),
    [
        ("POST", "/api/chat", "/api/chat", Access.INFER),
        ("POST", "/api/pull/", "/api/pull", Access.MANAGE),
        ("GET", "/api/pull", "/api/pull", Access.MANAGE),
        ("POST", "//api/pull", "/api/pull", Access.MANAGE),
        ("HEAD", "/api/blobs/sha256:00", "/api/blobs/<digest>", Access.INFER),
        ("POST", "/api/blobs/sha256:00", "/api/blobs/<digest>", Access.MANAGE),
        ("GET", "/v1/models/hf.co/a/b", "/v1/models/<path:name>", Access.INFER),
        ("GET", "/", "/", Access.OPEN),
    ],
)
def test_a_request_gets_the_route_of_its_path_and_method(
    method: str, path: str, rule: str, access: Access
) -> None:
    route = TABLE.find(path, method)
    assert route is not None
    assert (route.path, route.access) == (rule, access)


@pytest.mark.parametrize("path", ["/api/nothing", "/api//pull", "/api/blobs/a/b", "x"])
def test_a_path_that_is_not_in_the_table_has_no_route(path: str) -> None:
    assert TABLE.find(path, "POST") is None
    assert TABLE.methods(path) == ()
    assert not TABLE.streams(path)


def test_the_methods_of_a_path_are_those_of_all_its_routes() -> None:
    assert TABLE.methods("/api/blobs/sha256:00") == ("HEAD", "POST")


def test_only_uploads_are_streamed() -> None:
    streamed = [route.path for route in ROUTES if route.body is Body.STREAMED]
    assert streamed == ["/api/blobs/<digest>"]
    assert TABLE.streams("/api/blobs/sha256:00")
    assert not TABLE.streams("/api/chat")


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/messages/batches", Api.ANTHROPIC),
        ("/v1/fine_tuning", Api.OPENAI),
        ("/v2/rank", Api.OPENAI),
        ("/api/nothing", Api.OLLAMA),
    ],
)
def test_an_unknown_path_is_refused_in_the_form_of_its_api(path: str, api: Api) -> None:
    assert api_of_unknown(path) is api
