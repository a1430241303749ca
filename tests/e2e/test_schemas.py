"""Structured output on real vLLM, with schemas as pydantic and zod make them."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from tests.support.daemon import Daemon
from tests.support.paths import MADE_SCHEMAS
from tests.support.real_engine import MODEL

pytestmark = pytest.mark.e2e

MADE = json.loads(MADE_SCHEMAS.read_text())
Word = Annotated[str, Field(pattern="^[a-z]{1,8}$")]


class Color(Enum):
    red = "red"
    green = "green"


class Author(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Word
    born: int | None = Field(ge=0, le=9, default=None)


class Book(BaseModel):
    """A book on a shelf."""

    model_config = ConfigDict(extra="forbid")
    title: Word = Field(description="in one word")
    authors: list[Author] = Field(min_length=1, max_length=2)
    color: Color = Color.red
    kind: Literal["paper", "e-book"]
    password: SecretStr = Field(max_length=4)
    years: set[int] = Field(max_length=1, default=set())


def asked(real: Daemon, schema: Any, limit: int = 150) -> dict[str, Any]:
    answer = real.http.post(
        "/api/chat",
        json={
            "model": MODEL,
            "messages": [{"role": "user", "content": "Describe a book as compact JSON."}],
            "format": schema,
            "stream": False,
            "options": {"temperature": 0, "num_predict": limit},
        },
    )
    return {"status": answer.status_code, **answer.json()}


def test_an_answer_is_an_instance_of_the_pydantic_model(real: Daemon) -> None:
    answer = asked(real, Book.model_json_schema(), limit=400)
    assert answer["status"] == 200, answer
    assert answer["done_reason"] == "stop"
    assert Book.model_validate_json(answer["message"]["content"])


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(schema, id=f"{maker}-{name}")
        for maker, made in MADE.items()
        for name, schema in made.items()
    ],
)
def test_the_engine_takes_what_pydantic_and_zod_make(real: Daemon, schema: Any) -> None:
    answer = asked(real, schema, limit=30)
    assert answer["status"] == 200, answer
    assert answer["message"]["content"].lstrip().startswith("{")


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strng"}, 'unknown type "strng"'),
        ({"$ref": "#/$defs/none"}, "its $ref to /$defs/none leads nowhere"),
        (
            {"type": "number", "minimum": 5, "maximum": 1},
            "minimum (5) is greater than its maximum (1)",
        ),
        ({"type": "object", "minProperties": 2}, "cannot build a grammar"),
        ({"$ref": "#"}, "cannot build a grammar"),
    ],
)
def test_a_grammar_that_cannot_be_built_is_400_and_says_why(
    real: Daemon, schema: Any, reason: str
) -> None:
    answer = asked(real, schema)
    assert answer["status"] == 400
    assert reason in answer["error"]
    assert asked(real, None, limit=1)["status"] == 200, "the engine lives"
