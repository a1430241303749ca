"""The response to a request without a prompt is one object."""

from __future__ import annotations

import pytest

from vllamad.translate.ollama import encode


@pytest.mark.parametrize(
    ("spelling", "reason", "rest"),
    [
        (encode.GENERATE, "load", '"response":"","done":true,"done_reason":"load"}'),
        (encode.GENERATE, "unload", '"response":"","done":true,"done_reason":"unload"}'),
        (
            encode.CHAT,
            "load",
            '"message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}',
        ),
    ],
)
def test_an_empty_request_is_answered_with_one_object(spelling, reason, rest):
    start = encode.opening('TEST:"é"') + b"2026-08-21T18:48:22Z"
    answer = encode.settled(spelling, start, reason).decode()
    assert answer == f'{{"model":"TEST:\\"é\\"","created_at":"2026-08-21T18:48:22Z",{rest}'


@pytest.mark.parametrize(
    ("spelling", "images", "rest"),
    [
        (encode.GENERATE, 0, '"response":"","done":false,"_debug_info":{"rendered_template":"p"}}'),
        (
            encode.CHAT,
            2,
            '"message":{"role":"","content":""},"done":false,'
            '"_debug_info":{"rendered_template":"p","image_count":2}}',
        ),
    ],
)
def test_a_prompt_that_is_only_looked_at_is_one_object(spelling, images, rest):
    start = encode.opening("a") + b"2026-08-21T18:48:22Z"
    answer = encode.rendered(spelling, start, "p", images).decode()
    assert answer == f'{{"model":"a","created_at":"2026-08-21T18:48:22Z",{rest}'
