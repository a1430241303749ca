"""Responses and Anthropic messages as vLLM 0.32 spells them: recorded/ played again.

Standard library only.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.fakes.sse_builder import Json, chunk, dump

RECORDED = Path(__file__).with_name("recorded")
PATHS = {"/v1/responses": "responses", "/v1/messages": "messages"}

_SERVED, _TEXT = "smollm2:135m", "The capital of France is Paris."
_DELTA = re.compile(r"event: (response\.output_text\.delta|content_block_delta)\n")
_NUMBER = re.compile(r'("sequence_number":)\d+')


def count(body: Json) -> bytes:
    """The answer of count_tokens: as many as there are words."""
    number = len(dump(body["messages"]).split())
    return dump({"input_tokens": number, "context_management": {"original_input_tokens": number}})


class NamedAnswer:
    """One answer: the recorded one, under this model's name and with this text."""

    closing = ()

    def __init__(self, path: str, *, body: Json, model: str, text: str) -> None:
        self.words = re.findall(r"\s*\w+|\s*[^\w\s]", text)
        self.count = len(self.words)
        self._asked = {name: body[name] for name in ("instructions", "metadata") if name in body}
        self._names = {dump(_SERVED)[1:-1].decode(): dump(model)[1:-1].decode()}
        self._names |= {_TEXT: dump(text)[1:-1].decode()}
        self._file = RECORDED / PATHS[path]
        self._events = self._file.with_suffix(".sse").read_text().strip().split("\n\n")
        self._number = 0
        # What an engine says whose core has died; on /v1/responses nothing: it breaks off.
        died = (RECORDED / "messages-engine-died.sse").read_text().strip().split("\n\n")
        self.failure = [] if path == "/v1/responses" else died[-1:]

    def beginning(self) -> list[str]:
        first = next(i for i, event in enumerate(self._events) if _DELTA.match(event))
        return [self._spelled(event) for event in self._events[:first]]

    def token(self, word: str) -> str:
        delta = next(event for event in self._events if _DELTA.match(event))
        return self._spelled(delta.replace('"The"', dump(word).decode()))

    def ending(self) -> list[str]:
        last = max(i for i, event in enumerate(self._events) if _DELTA.match(event))
        return [self._spelled(event) for event in self._events[last + 1 :]]

    def whole(self) -> bytes:
        return self._renamed(self._file.with_suffix(".json").read_text()).encode()

    def event(self, text: str) -> bytes:
        """One event as one HTTP chunk."""
        return chunk(f"{text}\n\n".encode())

    def _spelled(self, event: str) -> str:
        head, _, data = event.partition("\ndata: ")
        fields = json.loads(data)
        if "response" in fields:
            fields["response"] |= self._asked
            data = dump(fields).decode()
        if "sequence_number" in fields:
            data = _NUMBER.sub(rf"\g<1>{self._number}", data)
            self._number += 1
        return f"{head}\ndata: {self._renamed(data)}"

    def _renamed(self, data: str) -> str:
        for old, new in self._names.items():
            data = data.replace(f'"{old}"', f'"{new}"')
        return data
