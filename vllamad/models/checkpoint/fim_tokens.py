"""Finds the tokens with which a tokenizer marks a text whose middle the model fills in.

A model that has the tokens counts as trained on them, except in families where all models share
one tokenizer and only the coders were trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from vllamad.errors import BadInput
from vllamad.models.checkpoint.json_access import Json, get_object, get_text
from vllamad.models.store.safe_files import read_bounded
from vllamad.translate.content.fill_in_middle import FimTokens

_LIMIT = 64 << 20  # bytes of tokenizer.json
_ID = re.compile("[0-9]{1,9}")


class _Form(NamedTuple):
    before: str
    after: str
    middle: str
    space: str = ""  # between the first token and the text


# The first form whose tokens all exist is used.
_FORMS = (
    _Form("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen, CodeGemma, Granite 4
    _Form("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite
    _Form("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    _Form("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek
    _Form("▁<PRE>", "▁<SUF>", "▁<MID>", space=" "),  # Code Llama
)
# Tokens after which a model would continue with the next file.
_ENDS = (
    "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>",
    "<fim_pad>", "<file_sep>", "<repo_name>", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "▁<EOT>",
)  # fmt: skip


class _Token(msgspec.Struct):
    id: int
    content: str


class _Tokenizer(msgspec.Struct):
    added_tokens: list[_Token] = []


def find_fim_tokens(added: Mapping[str, int], model_type: str, called: str) -> FimTokens | None:
    """Find the tokens among the `added` ones, text to id.

    All Qwen models have them; only those with "coder" in the path `called` were trained on them.
    """
    if model_type.startswith("qwen") and "coder" not in called.casefold():
        return None
    for form in _FORMS:
        if form.before in added and form.after in added and form.middle in added:
            return FimTokens(
                before=form.before + form.space,
                after=form.after,
                middle=form.middle,
                ends=tuple(sorted(added[text] for text in _ENDS if text in added)),
            )
    return None


def added_tokens(tokenizer: Json, file: Path | None) -> dict[str, int]:
    """The tokens that a tokenizer adds to its vocabulary, text to id.

    Read from `tokenizer`, the tokenizer_config.json, else from tokenizer.json at `file`; an
    invalid file has none.
    """
    decoder = get_object(tokenizer, "added_tokens_decoder")
    ids = {get_text(get_object(decoder, key), "content"): key for key in decoder}
    if ids or file is None:
        return {token: int(key) for token, key in ids.items() if _ID.fullmatch(key)}
    try:
        listed = msgspec.json.decode(read_bounded(file, _LIMIT), type=_Tokenizer).added_tokens
    except (msgspec.DecodeError, BadInput):
        return {}
    return {token.content: token.id for token in listed}
