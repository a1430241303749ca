"""What generate can beside answering: go on from token ids, fill in the middle, show its prompt."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.checkpoints import QWEN2, SMOLLM2, write_checkpoint
from tests.support.daemon import Daemon, daemon, fake_config, fake_home, until
from vllamad.core.model_name import parse_model_name
from vllamad.host.log_events import LogEvent
from vllamad.models.store import model_store

pytestmark = pytest.mark.integration

JSON = "application/json; charset=utf-8"
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>")
TEXT = "The capital of France is Paris."
SAID = [*range(1000, 1007), 2]  # its tokens, and the end


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with `test`, the coder `qwen/coder`, and `begins`, whose template writes a BOS."""
    home = fake_home(tmp_path_factory.mktemp("generate"), ["test"])
    added = {str(7 + i): {"content": token} for i, token in enumerate(FIM)}
    install(home, "qwen/coder", QWEN2, tokenizer_config_json={"added_tokens_decoder": added})
    install(home, "begins", SMOLLM2, chat_template_jinja="{{ bos_token }}{{ messages }}")
    with daemon(home, config=fake_config()) as running:
        yield running


def install(home: Path, name: str, config: dict[str, Any], **files: Any) -> None:
    folder = write_checkpoint(home / "made" / name, config, **files)
    model_store.add_model(home / "state" / "models", parse_model_name(name), folder, source="test")


def generate(one: Daemon, **body: Any) -> tuple[int, Any]:
    answer = one.http.post("/api/generate", json={"model": "test", "stream": False, **body})
    return answer.status_code, answer.json()


@pytest.mark.vector(44)
def test_44_the_last_object_has_the_conversation_as_token_ids(one: Daemon) -> None:
    status, answer = generate(one, prompt="one two three")
    assert status == 200
    assert list(answer) == [
        "model", "created_at", "response", "done", "done_reason", "context", "total_duration",
        "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
        "eval_duration",
    ]  # fmt: skip
    assert answer["context"] == [0, 1, 2, *SAID]


@pytest.mark.vector(44)
def test_44_a_stream_has_it_on_its_last_line_alone(one: Daemon) -> None:
    body = {"model": "test", "prompt": "one two three"}
    lines = [json.loads(line) for line in one.http.post("/api/generate", json=body).iter_lines()]
    assert "".join(line["response"] for line in lines) == TEXT
    assert ["context" in line for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["context"] == [0, 1, 2, *SAID]


@pytest.mark.vector(44)
def test_44_raw_and_chat_have_none(one: Daemon) -> None:
    assert "context" not in generate(one, prompt="x", raw=True)[1]
    assert "context" not in one.chat("test").json()


def test_a_context_given_back_comes_before_the_new_turn(one: Daemon) -> None:
    _, answer = generate(one, prompt="one two", context=[7, 8, 9])
    assert answer["response"] == TEXT
    assert answer["prompt_eval_count"] == 5, "three tokens given, two of the prompt"
    assert answer["context"] == [0, 1, 2, 3, 4, *SAID], "the engine's word for all five"


def test_a_text_begins_only_once(one: Daemon) -> None:
    _, answer = generate(one, model="begins", prompt="one two", context=[7, 8, 9])
    assert answer["prompt_eval_count"] == 4


def test_an_empty_context_is_none(one: Daemon) -> None:
    assert generate(one, prompt="one two", context=[])[1]["prompt_eval_count"] == 2


def test_context_takes_no_pictures(one: Daemon) -> None:
    image = "iVBORw0KGgo="
    status, answer = generate(one, prompt="x", context=[1], images=[image])
    assert (status, answer) == (400, {"error": "context does not support images; use /api/chat"})


def test_34_a_model_with_the_tokens_fills_in_the_middle(one: Daemon) -> None:
    body = {"prompt": "def add(", "suffix": "return c", "_debug_render_only": True}
    status, answer = generate(one, model="qwen/coder", **body)
    assert status == 200
    asked = answer["_debug_info"]["rendered_template"]
    assert asked == "<|fim_prefix|>def add(<|fim_suffix|>return c<|fim_middle|>"
    body["_debug_render_only"] = False
    status, answer = generate(one, model="qwen/coder", **body)
    assert (status, answer["response"]) == (200, TEXT)
    shown = one.http.post("/api/show", json={"model": "qwen/coder"}).json()
    assert shown["capabilities"] == ["completion", "insert"]


@pytest.mark.parametrize("stream", [True, False, None])
@pytest.mark.vector(50)
def test_50_what_the_engine_would_be_given_is_shown_in_one_object(
    one: Daemon, stream: bool | None
) -> None:
    body = {"model": "test", "prompt": "Hello, world!", "stream": stream}
    answer = one.http.post("/api/generate", json={**body, "_debug_render_only": True})
    assert answer.headers["content-type"] == JSON
    told = answer.json()
    assert list(told) == ["model", "created_at", "response", "done", "_debug_info"]
    assert (told["response"], told["done"]) == ("", False)
    assert told["_debug_info"] == {"rendered_template": "<0><1>"}


@pytest.mark.vector(50)
def test_50_a_chat_has_an_empty_message_in_it(one: Daemon) -> None:
    told = one.chat("test", "Hello there", _debug_render_only=True).json()
    assert told["message"] == {"role": "", "content": ""}
    assert told["_debug_info"] == {"rendered_template": "<0><1>"}


@pytest.mark.vector(50)
def test_50_a_raw_prompt_is_what_it_is(one: Daemon) -> None:
    _, told = generate(one, prompt="Hello {{ there }}", raw=True, _debug_render_only=True)
    assert told["_debug_info"] == {"rendered_template": "Hello {{ there }}"}


def test_a_template_of_the_clients_own_is_refused(one: Daemon) -> None:
    refused = (400, {"error": "template override is not supported"})
    assert generate(one, prompt="x", template="{{ .Prompt }}") == refused
    assert generate(one, prompt="x", template="")[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {"options": {"num_ctx": 1_000_000}},
        {"options": {"num_ctx": 16}},
        {"shift": True, "truncate": True},
        {"shift": False, "truncate": False},
        {"suffix": "", "system": "", "context": None, "images": []},
    ],
)
def test_a_context_larger_or_smaller_than_the_loaded_one_is_no_error(
    one: Daemon, body: dict[str, Any]
) -> None:
    status, answer = generate(one, prompt="word " * 40, **body)
    assert (status, answer["response"]) == (200, TEXT)


def test_a_larger_context_than_the_loaded_one_is_remarked_on_once(one: Daemon) -> None:
    for num_ctx in (1_000_000, 2_000_000):
        generate(one, prompt="x", options={"num_ctx": num_ctx})
    large = LogEvent.REQUEST_NUM_CTX_TOO_LARGE
    until(lambda: one.logged(large, model="test:latest"))
    assert len(one.logged(large, model="test:latest")) == 1


def test_a_picture_of_too_many_pixels_is_refused(one: Daemon) -> None:
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 60000, 60000)
    image = base64.b64encode(header).decode()
    status, answer = generate(one, prompt="x", images=[image])
    assert status == 400
    assert answer["error"] == "cannot take an image of 3600000000 pixels, at most 67108864"
