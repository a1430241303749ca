"""How is a model asked for what stands between two texts? With tokens of its own around them."""

from __future__ import annotations

import msgspec

from vllamad.errors import BadInput, NotSupported
from vllamad.translate.go.fields import string
from vllamad.translate.go.json_decoder import is_list

_TOKEN_IDS = "suffix is not supported with a prompt of token ids: send its text"
_ECHO = "suffix is not supported with echo: the model's prompt is not the one that was sent"


class FimTokens(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens around what comes before, what comes after, and what is wanted.

    `ends` are the ids of tokens that end the piece besides the model's own end.
    """

    before: str
    after: str
    middle: str
    ends: tuple[int, ...] = ()


def fill_in(tokens: FimTokens, before: str, after: str) -> str:
    """The prompt that asks for what stands between `before` and `after`."""
    return f"{tokens.before}{before}{tokens.after}{after}{tokens.middle}"


def apply_fim(
    body: dict[str, object], tokens: FimTokens | None, full_name: str
) -> dict[str, object]:
    """A request for completions with its `suffix`, which no engine knows, worked into its prompts.

    Raises NotSupported where the model `full_name` has no `tokens` for it, BadInput where the rest
    of the request leaves no room for it.
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
        rest["prompt"] = [fill_in(tokens, _text(one), after) for one in prompt]
    else:
        rest["prompt"] = fill_in(tokens, _text(prompt), after)
    if is_list(ends):  # what is none the engine refuses
        rest["stop_token_ids"] = [*ends, *tokens.ends]
    return rest


def _text(prompt: object) -> str:
    if is_list(prompt) or isinstance(prompt, int):
        raise BadInput(_TOKEN_IDS)
    return string(prompt, "CompletionRequest.prompt")
