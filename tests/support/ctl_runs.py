"""One call of vllamactl in the test process: its exit status and output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True)
class CtlResult:
    code: int
    out: str
    err: str

    def json(self) -> object:
        return msgspec.json.decode(self.out)

    def events(self) -> list[dict[str, object]]:
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


RunCtl = Callable[..., CtlResult]
