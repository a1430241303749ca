"""Filling in the middle is promised where the tokenizer has the tokens and the model the skill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.checkpoints import QWEN2, SMOLLM2, write_checkpoint
from vllamad.models.checkpoint.fim_tokens import added_tokens, find_fim_tokens
from vllamad.models.checkpoint.metadata import read_facts
from vllamad.models.checkpoint.vllm_parsers import capabilities
from vllamad.translate.content.fill_in_middle import fill_in

QWEN = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>")


def ids(*tokens: str) -> dict[str, int]:
    return {token: 100 + number for number, token in enumerate(tokens)}


@pytest.mark.parametrize(
    ("model_type", "called", "tokens", "prompt", "ends"),
    [
        ("qwen2", "Qwen/Qwen2.5-Coder-7B", QWEN,
         "<|fim_prefix|>A<|fim_suffix|>B<|fim_middle|>", (100, 104)),
        ("qwen3_moe", "qwen3-coder:30b", QWEN,
         "<|fim_prefix|>A<|fim_suffix|>B<|fim_middle|>", (100, 104)),
        ("gemma", "codegemma", ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
         "<|file_separator|>"), "<|fim_prefix|>A<|fim_suffix|>B<|fim_middle|>", (103,)),
        ("starcoder2", "starcoder2", ("<fim_prefix>", "<fim_middle>", "<fim_suffix>",
         "<file_sep>"), "<fim_prefix>A<fim_suffix>B<fim_middle>", (103,)),
        ("llama", "deepseek-coder", ("<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"),
         "<｜fim▁begin｜>A<｜fim▁hole｜>B<｜fim▁end｜>", ()),
        ("llama", "codellama", ("▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"),
         "▁<PRE> A▁<SUF>B▁<MID>", (103,)),
    ],
)  # fmt: skip
def test_every_family_has_its_tokens(model_type, called, tokens, prompt, ends):
    found = find_fim_tokens(ids(*tokens), model_type, called)
    assert found is not None
    assert fill_in(found, "A", "B") == prompt
    assert found.ends == ends


@pytest.mark.parametrize(
    ("model_type", "tokens"),
    [("llama", ("<|im_start|>",)), ("llama", QWEN[:3]), ("qwen2", QWEN), ("qwen3", QWEN)],
)
def test_others_have_none(model_type, tokens):
    """All of Qwen have the tokens; only the coders were taught to use them."""
    assert find_fim_tokens(ids(*tokens), model_type, "Qwen/Qwen2.5-7B-Instruct") is None


def test_tokens_are_read_from_either_file(tmp_path: Path):
    decoder = {"7": {"content": "a"}, "8": {"content": "b"}, "x" * 9: {"content": "c"}}
    assert added_tokens({"added_tokens_decoder": decoder}, None) == {"a": 7, "b": 8}
    file = tmp_path / "tokenizer.json"
    file.write_text('{"added_tokens": [{"id": 3, "content": "<｜fim▁hole｜>"}], "model": {}}')
    assert added_tokens({}, file) == {"<｜fim▁hole｜>": 3}
    assert added_tokens({}, None) == {}


@pytest.mark.parametrize("content", ["", "[]", '{"added_tokens": [{"id": "x"}]}', "\xff"])
def test_a_tokenizer_that_cannot_be_understood_has_none(tmp_path: Path, content: str):
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content.encode("latin-1"))
    assert added_tokens({}, file) == {}


@pytest.mark.parametrize(
    ("config", "name", "offered"),
    [
        (QWEN2, "Qwen2.5-Coder-0.5B", ("completion", "insert")),
        (QWEN2, "Qwen2.5-0.5B", ("completion",)),
        (SMOLLM2, "any", ("completion", "insert")),
    ],
)
def test_insert_is_promised_of_a_checkpoint(tmp_path: Path, config: Any, name: str, offered: Any):
    tokens = [{"id": number, "content": token} for token, number in ids(*QWEN).items()]
    folder = write_checkpoint(tmp_path / name, config, tokenizer_json={"added_tokens": tokens})
    assert capabilities(read_facts(folder), {}, None) == offered
