"""CORS and allowed hosts: the published vectors, and the corners behind them."""

from __future__ import annotations

import pytest

from vllamad.access.host_and_origin import Gate, allowed_host, cors

HERE = "127.0.0.1:11434"
LOCAL = Gate(
    bind_is_loopback=True, own_names=frozenset({"Tower"}), own_addresses=frozenset({"8.9.10.11"})
)
PUBLIC = Gate(bind_is_loopback=False)


def status(gate: Gate, host: str = HERE, origin: str | None = None, method: str = "GET"):
    return gate.admit(origin=origin, host=host, method=method).status


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "https://localhost",
        "http://127.0.0.1:8080",
        "http://0.0.0.0:1",
        "app://obsidian.md",
        "file://",
        "tauri://localhost",
        "vscode-webview://x",
        "vscode-file://vscode-app",
    ],
)
def test_local_origins_are_let_in_and_echoed(origin: str) -> None:
    decision = cors(origin, HERE, "GET")
    assert decision.status is None
    assert decision.headers == (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "chrome-extension://abc",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "HTTP://LOCALHOST",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_other_origins_are_refused(origin: str, method: str) -> None:
    decision = cors(origin, HERE, method)
    assert decision.status == 403
    assert decision.headers == ()


@pytest.mark.parametrize(
    ("origin", "method", "expected"),
    [("http://evil.example", "GET", 403), ("http://localhost:3000", "OPTIONS", 204)],
)
def test_the_gate_judges_the_origin_before_the_host(
    origin: str, method: str, expected: int
) -> None:
    assert status(LOCAL, "evil.example", origin, method) == expected


def test_without_an_origin_no_header_is_added() -> None:
    assert cors(None, HERE, "GET").headers == ()


@pytest.mark.parametrize("origin", ["http://evil.example:11434", "https://evil.example:11434"])
def test_the_own_origin_is_same_origin(origin: str) -> None:
    decision = cors(origin, "evil.example:11434", "POST")
    assert decision.status is None
    assert decision.headers == ()


def test_a_preflight_is_answered_at_once() -> None:
    decision = cors("http://127.0.0.1:8080", HERE, "OPTIONS")
    headers = dict(decision.headers)
    assert decision.status == 204
    assert headers["Access-Control-Allow-Origin"] == "http://127.0.0.1:8080"
    assert headers["Access-Control-Allow-Methods"] == "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
    assert headers["Access-Control-Max-Age"] == "43200"
    assert headers["Access-Control-Allow-Headers"] == (
        "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,"
        "X-Stainless-Arch,X-Stainless-Async,X-Stainless-Custom-Poll-Interval,"
        "X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,X-Stainless-Package-Version,"
        "X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
        "X-Stainless-Runtime-Version,X-Stainless-Timeout,"
        "X-Api-Key,Anthropic-Version,Anthropic-Beta,Anthropic-Dangerous-Direct-Browser-Access,"
        "X-Stainless-Helper"
    )
    assert [value for name, value in decision.headers if name == "Vary"] == [
        "Origin",
        "Access-Control-Request-Method",
        "Access-Control-Request-Headers",
    ]


@pytest.mark.parametrize(
    ("entry", "origin", "in_"),
    [
        ("https://a.example", "https://a.example", True),
        (" https://A.example ", "https://a.example", True),
        ("https://a.example", "https://a.example:1", False),
        ("*.a.example", "https://b.a.example", True),
        ("chrome-extension://*", "chrome-extension://abc", True),
        ("https://*.a.example", "https://b.a.example", True),
        ("https://*.a.example", "https://.a.exampl", False),
        ("https://aa*aa", "https://aaa", False),
    ],
)
def test_configured_origins_may_hold_one_star(entry: str, origin: str, in_: bool) -> None:
    assert (cors(origin, HERE, "GET", [entry]).status is None) == in_


def test_a_star_lets_everyone_in_and_varies_nothing() -> None:
    assert cors("null", HERE, "GET", ["*"]).headers == (("Access-Control-Allow-Origin", "*"),)
    assert "Vary" not in dict(cors("null", HERE, "OPTIONS", ["*"]).headers)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":11434",
        "localhost",
        "LOCALHOST:11434",
        "foo.local:11434",
        "a.b.internal",
        "x.localhost",
        "tower",
        "Tower:11434",
        "127.0.0.1:11434",
        "127.9.9.9",
        "192.168.1.5",
        "10.0.0.1:80",
        "172.31.255.255",
        "0.0.0.0",
        "8.9.10.11",
        "[::1]:11434",
        "[::1]",
        "[fd00::1]:1",
    ],
)
def test_local_hosts_are_let_in(host: str) -> None:
    assert status(LOCAL, host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:11434",
        "localhost.evil.example",
        "local",
        "evil.local.example",
        "8.8.8.8",
        "172.32.0.1",
        "192.0.2.1",
        "169.254.169.254",
        "[2001:db8::1]:80",
        "127.0.0.1.evil.example",
        "0x7f.1",
        "a:b:c",
    ],
)
def test_a_rebinding_host_is_refused_on_a_loopback_bind(host: str) -> None:
    assert status(LOCAL, host) == 403
    assert status(PUBLIC, host) is None


def test_configured_hosts_are_let_in() -> None:
    extra = ("box.example", "*.lab.example")
    gate = Gate(bind_is_loopback=True, hosts=extra)
    assert status(gate, "box.example:11434") is None
    assert status(gate, "a.lab.example") is None
    assert status(gate, "lab.example") == 403
    assert allowed_host(
        "Box.Example", bind_is_loopback=True, own_names=(), own_addresses=(), extra=extra
    )


def test_the_origin_is_judged_before_the_host() -> None:
    refused = LOCAL.admit(origin="http://localhost:1", host="evil.example", method="GET")
    assert refused.status == 403
    assert dict(refused.headers)["Access-Control-Allow-Origin"] == "http://localhost:1"


@pytest.mark.parametrize(
    ("gate", "host", "expected"),
    [(LOCAL, "localhost", 204), (LOCAL, HERE, None), (PUBLIC, "localhost", None)],
)
def test_options_without_an_origin_is_answered_for_names_only(
    gate: Gate, host: str, expected: int | None
) -> None:
    assert status(gate, host, method="OPTIONS") == expected
