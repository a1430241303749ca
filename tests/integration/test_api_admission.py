"""Who is let in: web pages by their origin, anybody by the host they ask for."""

from __future__ import annotations

from collections.abc import Generator
from http import HTTPStatus

import httpx
import pytest

from tests.support.api_requests import JSON
from tests.support.daemon import Daemon, daemon, fake_home, free_port

pytestmark = pytest.mark.integration

HEADERS = {
    "authorization", "content-type", "user-agent", "accept", "x-requested-with", "openai-beta",
    "x-stainless-arch", "x-stainless-async", "x-stainless-custom-poll-interval",
    "x-stainless-helper-method", "x-stainless-lang", "x-stainless-os",
    "x-stainless-package-version", "x-stainless-poll-helper", "x-stainless-retry-count",
    "x-stainless-runtime", "x-stainless-runtime-version", "x-stainless-timeout",
}  # fmt: skip
ANTHROPIC = {
    "x-api-key", "anthropic-version", "anthropic-beta",
    "anthropic-dangerous-direct-browser-access", "x-stainless-helper",
}  # fmt: skip


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Generator[httpx.Client]:
    """A daemon with nothing installed that listens on all addresses."""
    port = free_port()
    environ = {
        "VLLAMAD_SERVER_LISTEN": f"0.0.0.0:{port}",
        "VLLAMAD_SERVER_ALLOW_UNAUTHENTICATED": "true",
    }
    home = fake_home(tmp_path_factory.mktemp("open"), [])
    with (
        daemon(home, environ=environ),
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


@pytest.mark.vector(3, 4)
@pytest.mark.parametrize("path", ["/api/tags", "/api/ps"])
def test_3_4_nothing_installed_and_nothing_loaded_are_empty_lists(
    open_to_all: httpx.Client, path: str
) -> None:
    answer = open_to_all.get(path)
    assert (answer.status_code, answer.text) == (200, '{"models":[]}')
    assert answer.headers["content-type"] == JSON


@pytest.mark.vector(61)
@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:3000", HTTPStatus.OK),
        ("app://obsidian.md", HTTPStatus.OK),
        ("http://evil.example", HTTPStatus.FORBIDDEN),
        ("null", HTTPStatus.FORBIDDEN),
        ("chrome-extension://abc", HTTPStatus.FORBIDDEN),
    ],
)
def test_61_a_foreign_web_page_is_refused(plain: Daemon, origin: str, status: int) -> None:
    answer = plain.http.get("/api/tags", headers={"Origin": origin})
    assert answer.status_code == status
    granted = answer.headers.get("access-control-allow-origin")
    if status == HTTPStatus.OK:
        assert granted == origin
        assert answer.headers.get_list("vary") == ["Origin"]
    else:
        assert (granted, answer.content) == (None, b"")


@pytest.mark.vector(62)
@pytest.mark.parametrize("path", ["/api/chat", "/v1/messages", "/nope"])
def test_62_a_preflight_is_answered(plain: Daemon, path: str) -> None:
    origin = "http://127.0.0.1:8080"
    answer = plain.http.options(path, headers={"Origin": origin})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == origin
    methods = answer.headers["access-control-allow-methods"]
    assert methods == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    assert answer.headers["access-control-max-age"] == "43200"
    assert answer.headers.get_list("vary") == [
        "Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers",
    ]  # fmt: skip
    allowed = answer.headers["access-control-allow-headers"].lower().split(",")
    assert set(allowed) == HEADERS | ANTHROPIC


@pytest.mark.vector(63)
@pytest.mark.parametrize("path", ["/", "/api/tags", "/v1/models", "/nope"])
def test_63_a_foreign_host_is_refused_on_every_path(plain: Daemon, path: str) -> None:
    answer = plain.http.get(path, headers={"Host": "evil.example"})
    assert (answer.status_code, answer.content) == (403, b"")


@pytest.mark.vector(63)
@pytest.mark.parametrize("host", ["foo.local:11434", "192.168.1.5", "localhost"])
def test_63_hosts_that_no_web_page_can_name_are_let_in(plain: Daemon, host: str) -> None:
    assert plain.http.get("/api/tags", headers={"Host": host}).status_code == 200


@pytest.mark.vector(63)
def test_63_who_listens_to_the_world_lets_every_host_in(open_to_all: httpx.Client) -> None:
    assert open_to_all.get("/api/tags", headers={"Host": "evil.example"}).status_code == 200
