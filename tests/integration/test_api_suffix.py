"""`suffix` of `/v1/completions`: the model's own tokens around it, as `/api/generate` has it.

The scripted engine counts words, and refuses a `suffix` as vLLM does.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import openai
import pytest

from tests.support.checkpoints import QWEN2, write_checkpoint
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from vllamad.core.model_name import parse_model_name
from vllamad.models.store import model_store

pytestmark = pytest.mark.integration

FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>")
TEXT = "The capital of France is Paris."
CODE: dict[str, Any] = {"prompt": "a b", "suffix": "c d"}  # four words, three with tokens between


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with `test`, which fills nothing in, and `qwen/coder`, which does."""
    home = fake_home(tmp_path_factory.mktemp("suffix"), ["test"])
    added = {str(7 + i): {"content": token} for i, token in enumerate(FIM)}
    tokenizer = {"added_tokens_decoder": added}
    folder = write_checkpoint(home / "made/coder", QWEN2, tokenizer_config_json=tokenizer)
    model_store.add_model(
        home / "state" / "models", parse_model_name("qwen/coder"), folder, source="test"
    )
    with daemon(home, config=fake_config()) as running:
        yield running


@pytest.fixture
def client(one: Daemon) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{one.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_a_coder_fills_in_the_middle(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="qwen/coder", logprobs=1, **CODE)
    assert answer.choices[0].text == TEXT
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 3


def test_it_does_so_in_a_stream(client: openai.OpenAI) -> None:
    usage: Any = {"include_usage": True}
    events = list(
        client.completions.create(model="qwen/coder", stream=True, stream_options=usage, **CODE)
    )
    assert "".join(choice.text for event in events for choice in event.choices) == TEXT
    assert events[-1].usage is not None
    assert events[-1].usage.prompt_tokens == 3


def test_an_empty_suffix_is_none(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="test", prompt="a b", suffix="")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"model": "test"}, "registry.ollama.ai/library/test:latest does not support insert"),
        ({"echo": True},
         "suffix is not supported with echo: the model's prompt is not the one that was sent"),
        ({"prompt": [1, 2]}, "suffix is not supported with a prompt of token ids: send its text"),
        ({"suffix": ["x"]}, "json: cannot unmarshal array into Go struct field"
         " CompletionRequest.suffix of type string"),
    ],
)  # fmt: skip
def test_where_it_makes_no_sense_it_is_refused(
    one: Daemon, fields: dict[str, Any], text: str, stream: bool
) -> None:
    body = {"model": "qwen/coder", **CODE, "stream": stream} | fields
    answer = one.http.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": text, "type": "invalid_request_error", "param": None, "code": None,
    }  # fmt: skip
