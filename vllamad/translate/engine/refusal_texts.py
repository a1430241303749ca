"""Messages for an engine's refusals: a table of the known ones.

An engine's texts name its flags, its paths, pydantic's types and the client's input. None is passed
on. An unknown text becomes one sentence, with the field if the engine names one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; "
    "shorten the prompt, adjust the context length in settings, "
    "or use a model with a longer context length"
)
REFUSED = "the model's engine refused this request"
TEMPLATE = "the model's chat template does not accept this conversation"
NO_GRAMMAR = "invalid format: the engine cannot build a grammar of it"

_NO_INPUT = "this model does not support {} input"

# Of vLLM 0.32. The groups of an expression fill the message: numbers and names of API fields.
_KNOWN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), text)
    for pattern, text in (
        (r"maximum context length|longer than the maximum model length", TOO_LONG),
        (r"exceeds the pre-allocated encoder cache|requested output tokens .* longer", TOO_LONG),
        (r"\btoken id (-?\d{1,20}) is out of vocabulary", "token id {} is out of vocabulary"),
        (r"in (stop_token_ids|logit_bias) contain out-of-vocab",
         "{} has a token id that is out of vocabulary"),
        (r"prompt cannot be empty|prompt .* non-empty|pass at least one prompt",
         "the prompt is empty"),
        (r"tool choice requires|--tool-call-parser|tool_choice=\S+ requires",
         "this model does not support tools"),
        (r"greedy sampling", "n above 1 needs a temperature above 0"),
        (r"min_tokens must be less", "min_tokens is more than the answer may have"),
        (r"smaller truncation size", "truncate_prompt_tokens is more than the context holds"),
        (r"Pointer '(/[\w$/~%.-]{0,200})' does not exist",
         "invalid format: its $ref to {} leads nowhere"),
        (r"minimum \((-?[\d.]{1,30})\) is greater than maximum \((-?[\d.]{1,30})\)",
         "invalid format: its minimum ({}) is greater than its maximum ({})"),
        (r'Unimplemented keys: \[("[\w$-]{1,60}"(?:, ?"[\w$-]{1,60}"){0,9})\]',
         "invalid format: unsupported keys: {}"),
        (r"grammar|xgrammar|json.schema|structured.output|response_format|regex", NO_GRAMMAR),
        (r"at most 0 (image|audio|video)", _NO_INPUT),
        (r"at most (\d{1,6}) (image|audio|video)", "this model takes at most {} {} a request"),
        (r"not a multimodal model|text-only models", _NO_INPUT.format("image or audio")),
        (r"(audio).{0,40}exceed|exceed.{0,40}(audio)|maximum (?:file|clip) size",
         "the audio is too long"),
        (r"audio", "invalid audio input"),
        (r"image", "invalid image input"),
        (r"Input lengths must be either 1:1, 1:N or N:N",
         "Input lengths must be either 1:1, 1:N or N:N"),
        (r"Harmony does not support|thinking_effort|reasoning_effort",
         "this model does not support that reasoning effort"),
        (r"does not support \w+ API|does not support (?:generation|pooling)",
         "this model does not support requests of this kind"),
        (r"\broles?\b|system message|template|must (?:start|begin|end) with", TEMPLATE),
    )
)  # fmt: skip
_FIELD = re.compile(r"(?:body\.)?([a-z][a-z0-9_]{0,40}(?:\.[a-z0-9_]{1,40}){0,5})")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`|[\[{(].*", re.DOTALL)
_LONGEST = 160  # characters for the log


class RefusalText(NamedTuple):
    """The message for the client; `unknown` is an unknown text for the log, else ""."""

    message: str
    unknown: str = ""


def explain_refusal(message: str, param: str = "") -> RefusalText:
    """Translate an engine's refusal; `param` is the field it names, if any."""
    for pattern, text in () if "validation error" in message[:40] else _KNOWN:
        if match := pattern.search(message):
            return RefusalText(text.format(*filter(None, match.groups())))
    named = _FIELD.fullmatch(param)
    return RefusalText(f"invalid value for '{named[1]}'" if named else REFUSED, _outline(message))


def _outline(message: str) -> str:
    """The text without its quotations: a client's input must not reach the log."""
    return " ".join(_QUOTED.sub("…", message).split())[:_LONGEST] or "no text"
