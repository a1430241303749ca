"""Assembles tool calls from fragments, and reads their arguments."""

from __future__ import annotations

import msgspec

from vllamad.errors import BadInput, EngineRefused
from vllamad.translate.engine.chunks import CallPiece
from vllamad.translate.go import json_decoder


class ToolCall(msgspec.Struct, frozen=True):
    """A complete call; arguments keep the model's order."""

    id: str
    name: str
    arguments: dict[str, object]


class _Parts(msgspec.Struct):
    id: str = ""
    name: str = ""
    arguments: str = ""


class CallBuffer:
    """The calls of one response, as far as they are received."""

    def __init__(self) -> None:
        self._parts: dict[int, _Parts] = {}

    def add(self, pieces: list[CallPiece]) -> None:
        for piece in pieces:
            parts = self._parts.setdefault(piece.index, _Parts())
            parts.id = parts.id or piece.id or ""
            if piece.function is not None:
                parts.name = parts.name or piece.function.name or ""
                parts.arguments += piece.function.arguments or ""

    def take_whole(self, *, cut_short: bool) -> tuple[ToolCall, ...]:
        """Take out every call, in the engine's order.

        A response that is `cut_short` by its token limit may end inside a call, which is left out.
        Raises EngineRefused for arguments that are no object.
        """
        calls: list[ToolCall] = []
        for index, parts in sorted(self._parts.items()):
            arguments = _object(parts.arguments)
            if arguments is not None:
                calls.append(ToolCall(parts.id or f"call_{index:08d}", parts.name, arguments))
            elif not cut_short:
                name = json_decoder.quoted(parts.name)
                raise EngineRefused(
                    f"engine returned invalid tool call arguments for {name}",
                    status=500,
                )
        self._parts = {}
        return tuple(calls)


def _object(text: str) -> dict[str, object] | None:
    """Read arguments; empty text is no arguments, and some models encode the object twice."""
    if not text.strip():
        return {}
    try:
        value = json_decoder.decode(text.encode(errors="replace"))
        if isinstance(value, str):
            value = json_decoder.decode(value.encode())
    except BadInput:
        return None
    return value if json_decoder.is_object(value) else None
