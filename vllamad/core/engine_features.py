"""What one installed engine can do: the one type that all who must know it hold.

It is read from the runtime once. How a runtime is asked, and where it is kept, is not known here.
"""

from __future__ import annotations

import msgspec


class EngineFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """A version of vLLM as it is installed in one runtime, and what it understands."""

    version: str
    device: str  # cuda or cpu
    flags: tuple[str, ...]  # every long option, dashes included, sorted; empty: unknown
    tool_parsers: tuple[str, ...]
    reasoning_parsers: tuple[str, ...]
    # `sound` in the file that describes an installed runtime, older ones included.
    audio_packages: tuple[str, ...] = msgspec.field(default=(), name="sound")
    flashinfer: bool = False  # whether FlashInfer's compiled kernels are there
    fork: bool  # whether its worker processes may be forks of the launcher

    def has_flag(self, name: str) -> bool:
        """Whether it takes `--name`; one whose flags are unknown is taken to take all."""
        return not self.flags or f"--{name}" in self.flags
