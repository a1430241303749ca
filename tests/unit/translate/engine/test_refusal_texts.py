"""No text of an engine reaches a client: known refusals and unknown ones get our messages."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.translate.engine.refusal_texts import (
    NO_GRAMMAR,
    REFUSED,
    TEMPLATE,
    TOO_LONG,
    explain_refusal,
)

pytestmark = pytest.mark.case("B6")

# What vLLM 0.32 writes, by the places in its source that a client's request can reach.
KNOWN = [
    ("This model's maximum context length is 2048 tokens. However, your prompt contains 4000",
     TOO_LONG),
    ("The decoder prompt (length 9) is longer than the maximum model length of 8. Make sure that "
     "`max_model_len` is no smaller than the number of text tokens.", TOO_LONG),
    ("The decoder prompt (length 8) plus the number of requested output tokens (at least 1) is "
     "longer than the maximum model length of 8.", TOO_LONG),
    ("The decoder prompt contains a(n) image item with 5000 embedding tokens, which exceeds the "
     "pre-allocated encoder cache size 4096.", TOO_LONG),
    ("Token id 99999999 is out of vocabulary (parameter=prompt)",
     "token id 99999999 is out of vocabulary"),
    ("token_id(s) [9] in stop_token_ids contain out-of-vocab token ids. Vocabulary size: 5",
     "stop_token_ids has a token id that is out of vocabulary"),
    ("token_id(s) [9] in logit_bias contain out-of-vocab token ids. Vocabulary size: 5",
     "logit_bias has a token id that is out of vocabulary"),
    ("The decoder prompt cannot be empty", "the prompt is empty"),
    ("Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)",
     "the prompt is empty"),
    ('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
     "this model does not support tools"),
    ('tool_choice=function "f" requires --tool-call-parser to be set',
     "this model does not support tools"),
    ("n must be 1 when using greedy sampling, got 2.", "n above 1 needs a temperature above 0"),
    ("min_tokens must be less than or equal to max_tokens=5, got 9.",
     "min_tokens is more than the answer may have"),
    ("truncate_prompt_tokens value is greater than max_model_len. Please request a smaller "
     "truncation size.", "truncate_prompt_tokens is more than the context holds"),
    ("Failed to transform json schema into a grammar: [12:00:01] /x/y.cc:50: bad", NO_GRAMMAR),
    ("The provided JSON schema contains features not supported by xgrammar.", NO_GRAMMAR),
    ("No compatible structured output backend was found for this request.", NO_GRAMMAR),
    ("Grammar error: Pointer '/$defs/none' does not exist",
     "invalid format: its $ref to /$defs/none leads nowhere"),
    ("Grammar error: minimum (5) is greater than maximum (-1.5)",
     "invalid format: its minimum (5) is greater than its maximum (-1.5)"),
    ('Grammar error: Unimplemented keys: ["unevaluatedProperties", "$x-y"]',
     'invalid format: unsupported keys: "unevaluatedProperties", "$x-y"'),
    ("Grammar error: Unimplemented keys: [\"of a client's own\"]", NO_GRAMMAR),
    ("Regex compilation timed out after 5s. Pattern: (a+)+", NO_GRAMMAR),
    ("At most 0 image(s) may be provided in one prompt.",
     "this model does not support image input"),
    ("At most 1 image(s) may be provided in one prompt. Set `--limit-mm-per-prompt`",
     "this model takes at most 1 image a request"),
    ("/models/x is not a multimodal model", "this model does not support image or audio input"),
    ("Multi-modal processor not available for text-only models",
     "this model does not support image or audio input"),
    ("Failed to load image: cannot identify image file <_io.BytesIO object at 0x7f>",
     "invalid image input"),
    ("Invalid or corrupted audio data. Ensure the input is a valid audio or video file",
     "invalid audio input"),
    ("Audio exceeds maximum allowed duration of 600s (metadata reports 700.0s). Set "
     "VLLM_MAX_AUDIO_DECODE_DURATION_S to increase this limit.", "the audio is too long"),
    ("Maximum file size exceeded (parameter=audio_filesize_mb)", "the audio is too long"),
    ("Input lengths must be either 1:1, 1:N or N:N",
     "Input lengths must be either 1:1, 1:N or N:N"),
    ("Harmony does not support reasoning_effort='max'",
     "this model does not support that reasoning effort"),
    ("The model does not support Embeddings API",
     "this model does not support requests of this kind"),
    ("Conversation roles must alternate user/assistant/user/assistant/...", TEMPLATE),
    ("System role not supported", TEMPLATE),
    ("As of transformers v4.44, default chat template is no longer allowed", TEMPLATE),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), KNOWN)
def test_a_known_refusal_gets_our_message_and_is_not_logged(text: str, message: str) -> None:
    assert explain_refusal(text) == (message, "")


PYDANTIC = (
    "1 validation error:\n  {'type': 'float_parsing', 'loc': 'body.temperature', 'msg': 'Input "
    "should be a valid number', 'input': 'my secret image'}"
)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("body.temperature", "invalid value for 'temperature'"),
        ("tool_choice.function.name", "invalid value for 'tool_choice.function.name'"),
        ("body.messages.0.content", "invalid value for 'messages.0.content'"),
        ("", REFUSED),
        ("function-wrap[__log_extra_fields__()]", REFUSED),
        ("a" * 90, REFUSED),
        ("--flag", REFUSED),
    ],
)
def test_an_unknown_refusal_names_only_the_field(param: str, message: str) -> None:
    words = explain_refusal(PYDANTIC, param)
    assert words.message == message
    assert words.unknown == "1 validation error: …"


def test_the_logged_text_has_nothing_of_the_clients_input() -> None:
    text = "Failed to apply X on data={'text': 'my secret'} with kwargs={} \"my secret\" it's"
    assert explain_refusal(text).unknown == "Failed to apply X on data=…"
    assert explain_refusal("Odd: `my secret` and 'my secret' there").unknown == "Odd: … and … there"
    assert explain_refusal("").unknown == "no text"
    assert len(explain_refusal("x " * 500).unknown) <= 160


FORBIDDEN = re.compile(r"'loc'|--[a-z]|vllm|pydantic|Traceback|/[a-z]+/|\.py\b|parameter=", re.I)
PIECES = [
    *(text for text, _ in KNOWN), PYDANTIC, "Traceback (most recent call last)",
    'File "/usr/lib/x.py", line 1', "--enable-x", "VLLM_X=1", "pid=7", "parameter=stop",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=4).map(" ".join),
       st.sampled_from(["", "body.top_p", "x.y"]) | st.text(max_size=20))  # fmt: skip
def test_no_text_of_the_engine_reaches_the_message(text: str, param: str) -> None:
    message = explain_refusal(text, param).message
    assert message
    assert not FORBIDDEN.search(message)
