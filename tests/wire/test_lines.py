"""The answer to a request with nothing to answer is one object."""

from __future__ import annotations

import pytest

from vllamad.wire import lines


@pytest.mark.parametrize(
    ("spelling", "reason", "rest"),
    [
        (lines.GENERATE, "load", '"response":"","done":true,"done_reason":"load"}'),
        (lines.GENERATE, "unload", '"response":"","done":true,"done_reason":"unload"}'),
        (
            lines.CHAT,
            "load",
            '"message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}',
        ),
    ],
)
def test_an_empty_request_is_answered_with_one_object(spelling, reason, rest):
    start = lines.opening('TEST:"é"') + b"2026-08-21T18:48:22Z"
    answer = lines.settled(spelling, start, reason).decode()
    assert answer == f'{{"model":"TEST:\\"é\\"","created_at":"2026-08-21T18:48:22Z",{rest}'


@pytest.mark.parametrize(
    ("spelling", "images", "rest"),
    [
        (lines.GENERATE, 0, '"response":"","done":false,"_debug_info":{"rendered_template":"p"}}'),
        (
            lines.CHAT,
            2,
            '"message":{"role":"","content":""},"done":false,'
            '"_debug_info":{"rendered_template":"p","image_count":2}}',
        ),
    ],
)
def test_a_prompt_that_is_only_looked_at_is_one_object(spelling, images, rest):
    start = lines.opening("a") + b"2026-08-21T18:48:22Z"
    answer = lines.rendered(spelling, start, "p", images).decode()
    assert answer == f'{{"model":"a","created_at":"2026-08-21T18:48:22Z",{rest}'
