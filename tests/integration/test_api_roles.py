"""Conversations that a strict template refuses are rewritten for it, on each route."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.support.chat_templates import FAMILIES
from tests.support.checkpoints import SMOLLM2, write_checkpoint
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from vllamad.core.model_name import parse_model_name
from vllamad.models.store import model_store

pytestmark = pytest.mark.integration

SYSTEM = [{"role": "system", "content": "one"}, {"role": "system", "content": "two"}]
USER = [{"role": "user", "content": "three"}]
ASSISTANT = [{"role": "assistant", "content": "four"}]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with a model that has a strict template, and an engine that insists on it."""
    home = fake_home(tmp_path_factory.mktemp("roles"), ["plain"])
    folder = write_checkpoint(home / "made", SMOLLM2, chat_template_jinja=FAMILIES["gemma2"])
    model_store.add_model(
        home / "state" / "models", parse_model_name("strict"), folder, source="test"
    )
    config = fake_config(scenarios={"strict": {"strict": True}, "plain": {"strict": True}})
    with daemon(home, config=config) as running:
        yield running


@pytest.mark.case("F2", "F3")
@pytest.mark.parametrize(
    "messages",
    [SYSTEM + USER, USER + SYSTEM[:1] + USER, USER + USER, ASSISTANT + USER, SYSTEM[:1] + USER],
    ids=["two systems", "system later", "two users", "assistant first", "a system"],
)
@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/api/chat", {"stream": False}),
        ("/v1/chat/completions", {}),
        ("/v1/responses", {}),
        ("/v1/messages", {"max_tokens": 5}),
    ],
)
def test_a_conversation_that_the_template_refuses_is_answered(
    one: Daemon, path: str, more: dict[str, Any], messages: list[dict[str, str]]
) -> None:
    key = "input" if path == "/v1/responses" else "messages"
    answer = one.http.post(path, json={"model": "strict", key: messages, **more})
    assert answer.status_code == 200, answer.text


def test_the_engine_refuses_it_where_the_template_says_nothing_against_it(one: Daemon) -> None:
    """The scripted engine is as strict for `plain`, whose own template accepts everything."""
    answer = one.http.post("/v1/chat/completions", json={"model": "plain", "messages": USER + USER})
    assert answer.status_code == 400


def test_a_text_with_a_system_is_asked_as_one_turn(one: Daemon) -> None:
    body = {"model": "strict", "prompt": "why?", "system": "be brief", "stream": False}
    assert one.http.post("/api/generate", json=body).status_code == 200
