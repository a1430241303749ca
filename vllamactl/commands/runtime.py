"""Engine runtimes of this machine: install, list, use; needs no daemon."""

from __future__ import annotations

from vllamactl.call import Call


def install(call: Call, *, device: str | None, version: str | None) -> None: ...
def show(call: Call) -> None: ...
def use(call: Call, name: str) -> None: ...
