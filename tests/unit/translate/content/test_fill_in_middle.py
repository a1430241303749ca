"""A completion's suffix becomes part of its prompt, or a reason why not."""

from __future__ import annotations

import pytest

from vllamad.errors import BadInput, NotSupported
from vllamad.translate.content.fill_in_middle import FimTokens, apply_fim

TOKENS = FimTokens(before="<P>", after="<S>", middle="<M>", ends=(7, 9))
FULL = "registry.ollama.ai/library/m:latest"

Body = dict[str, object]


@pytest.mark.parametrize(
    ("body", "made"),
    [
        ({"prompt": "a", "suffix": "z"}, {"prompt": "<P>a<S>z<M>", "stop_token_ids": [7, 9]}),
        ({"suffix": "z"}, {"prompt": "<P><S>z<M>", "stop_token_ids": [7, 9]}),
        ({"prompt": ["a", "b"], "suffix": "z", "logprobs": 1, "echo": False},
         {"prompt": ["<P>a<S>z<M>", "<P>b<S>z<M>"], "logprobs": 1, "echo": False,
          "stop_token_ids": [7, 9]}),
        ({"prompt": "a", "suffix": "z", "stop_token_ids": [1]},
         {"prompt": "<P>a<S>z<M>", "stop_token_ids": [1, 7, 9]}),
        ({"prompt": "a", "suffix": "z", "stop_token_ids": "no"},
         {"prompt": "<P>a<S>z<M>", "stop_token_ids": "no"}),
    ],
)  # fmt: skip
def test_what_comes_after_goes_into_the_prompt(body: Body, made: Body) -> None:
    assert apply_fim(body, TOKENS, FULL) == made


@pytest.mark.parametrize("tokens", [TOKENS, None])
@pytest.mark.parametrize("body", [{"prompt": "a"}, {"prompt": [1, 2]}, {"echo": True}])
def test_without_a_suffix_nothing_changes(body: Body, tokens: FimTokens | None) -> None:
    assert apply_fim(body, tokens, FULL) == body
    assert apply_fim(body | {"suffix": ""}, tokens, FULL) == body


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"prompt": [1, 2]}, "suffix is not supported with a prompt of token ids: send its text"),
        ({"prompt": [[1], [2]]},
         "suffix is not supported with a prompt of token ids: send its text"),
        ({"prompt": "a", "echo": True},
         "suffix is not supported with echo: the model's prompt is not the one that was sent"),
        ({"prompt": {}}, "json: cannot unmarshal object into Go struct field"
         " CompletionRequest.prompt of type string"),
        ({"prompt": "a", "suffix": 5}, "json: cannot unmarshal number into Go struct field"
         " CompletionRequest.suffix of type string"),
    ],
)  # fmt: skip
def test_what_leaves_no_room_for_it_is_refused(body: Body, text: str) -> None:
    with pytest.raises(BadInput) as refused:
        apply_fim({"suffix": "z"} | body, TOKENS, FULL)
    assert (refused.value.status, refused.value.message) == (400, text)


def test_a_model_without_the_tokens_refuses() -> None:
    with pytest.raises(NotSupported, match=f"{FULL} does not support insert"):
        apply_fim({"prompt": "a", "suffix": "z"}, None, FULL)
