"""Structured output: what of a schema is judged here, and what the engine says of the rest."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import pytest

from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from tests.support.paths import MADE_SCHEMAS

pytestmark = pytest.mark.integration

HI = [{"role": "user", "content": "hi"}]
MADE = json.loads(MADE_SCHEMAS.read_text())
INTERNAL = (
    b'data: {"error":{"message":"Internal server error","type":"InternalServerError",'
    b'"param":null,"code":500}}\n\ndata: [DONE]\n\n'
)
UNKNOWN_KEY = (
    b'data: {"error":{"message":"Grammar error: Unimplemented keys: [\\"x\\"]",'
    b'"type":"BadRequestError","param":null,"code":400}}\n\ndata: [DONE]\n\n'
)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with `test`, and two models whose engine finds fault with every grammar."""
    folder = tmp_path_factory.mktemp("format")
    scenarios: dict[str, dict[str, Any]] = {}
    for name, said in (("internal", INTERNAL), ("refuses", UNKNOWN_KEY)):
        (folder / name).write_bytes(said)
        scenarios[name] = {"replay": str(folder / name)}
    home = fake_home(tmp_path_factory.mktemp("home"), ["test", *scenarios])
    with daemon(home, config=fake_config(scenarios=scenarios)) as running:
        yield running


def chat(one: Daemon, model: str, form: Any, **more: Any) -> tuple[int, Any]:
    body = {"model": model, "messages": HI, "format": form, "stream": False, **more}
    answer = one.http.post("/api/chat", json=body)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("schema", [schema for made in MADE.values() for schema in made.values()])
def test_schemas_of_pydantic_and_zod_pass(one: Daemon, schema: Any) -> None:
    assert chat(one, "test", schema)[0] == 200


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strng"}, 'invalid format: unknown type "strng" at the top'),
        (
            {"properties": {"a": {"pattern": "(((("}}},
            'invalid format: the pattern "((((" cannot be compiled (missing ), unterminated'
            " subpattern at position 3) at properties.a",
        ),
        (
            {"$ref": "https://e.example/schema"},
            'invalid format: a reference that leads elsewhere, "https://e.example/schema", at the'
            " top",
        ),
        (
            {"description": "x" * 70_000},
            "invalid format: the schema has 70018 bytes, at most 65536",
        ),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_schema_that_is_none_is_400_with_its_reason(
    one: Daemon, schema: Any, reason: str, stream: bool
) -> None:
    assert chat(one, "test", schema, stream=stream) == (400, {"error": reason})


@pytest.mark.parametrize("stream", [True, False])
def test_what_the_engine_cannot_build_is_400_with_its_reason(one: Daemon, stream: bool) -> None:
    refused = chat(one, "refuses", {"type": "object"}, stream=stream)
    assert refused == (400, {"error": 'invalid format: unsupported keys: "x"'})


@pytest.mark.parametrize("stream", [True, False])
def test_what_it_only_finds_while_building_is_400_too(one: Daemon, stream: bool) -> None:
    refused = chat(one, "internal", {"type": "object"}, stream=stream)
    reason = "invalid format: the engine cannot build a grammar of it"
    assert refused == (400, {"error": reason})
    body = {
        "model": "internal",
        "messages": HI,
        "stream": stream,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
    }
    if stream:
        answer = one.http.post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, reason)


def test_without_a_format_it_is_the_engines_own_fault(one: Daemon) -> None:
    assert chat(one, "internal", None) == (500, {"error": "Internal server error"})
