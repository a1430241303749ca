"""Builds prompts that fill in the middle, with the model's own tokens around two texts."""

from __future__ import annotations

import msgspec

from vllamad.errors import BadInput, NotSupported
from vllamad.translate.go.fields import string
from vllamad.translate.go.json_decoder import is_list

_TOKEN_IDS = "suffix is not supported with a prompt of token ids: send its text"
_ECHO = "suffix is not supported with echo: the model's prompt is not the one that was sent"


class FimTokens(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens before the prefix, the suffix and the middle.

    `ends` are the ids of tokens that end the middle, besides the model's own end.
    """

    before: str
    after: str
    middle: str
    ends: tuple[int, ...] = ()


def fill_in(tokens: FimTokens, before: str, after: str) -> str:
    """Return the prompt for the text between `before` and `after`."""
    return f"{tokens.before}{before}{tokens.after}{after}{tokens.middle}"


def apply_fim(
    body: dict[str, object], tokens: FimTokens | None, full_name: str
) -> dict[str, object]:
    """Work the `suffix` of a request for completions, which no engine knows, into its prompts.

    Raises NotSupported if the model `full_name` has no `tokens` for it, BadInput if another field
    of the request excludes it.
    """
    after = string(body.get("suffix", ""), "CompletionRequest.suffix")
    rest = {key: value for key, value in body.items() if key != "suffix"}
    if not after:
        return rest
    if tokens is None:
        raise NotSupported(f"{full_name} does not support insert")
    if rest.get("echo"):
        raise BadInput(_ECHO)
    prompt, ends = rest.get("prompt", ""), rest.get("stop_token_ids", [])
    if is_list(prompt):
        rest["prompt"] = [fill_in(tokens, _text(item), after) for item in prompt]
    else:
        rest["prompt"] = fill_in(tokens, _text(prompt), after)
    if is_list(ends):  # the engine refuses other types
        rest["stop_token_ids"] = [*ends, *tokens.ends]
    return rest


def _text(prompt: object) -> str:
    if is_list(prompt) or isinstance(prompt, int):
        raise BadInput(_TOKEN_IDS)
    return string(prompt, "CompletionRequest.prompt")
