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
