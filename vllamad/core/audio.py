"""Can a model hear, and which Python packages must its engine have for that?"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

# Sound as well as text, sound alone (and then it only transcribes), or neither.
Hearing = Literal["", "beside", "only"]

_READING = ("av", "soundfile")  # sound files of all kinds
_CHATTING = ("torchaudio",)  # vLLM resamples with it what comes in a message


def missing_packages(hearing: Hearing, there: Collection[str]) -> tuple[str, ...]:
    """The packages such a model needs besides those that are `there`."""
    if not hearing:
        return ()
    needed = _READING if hearing == "only" else _READING + _CHATTING
    return tuple(name for name in needed if name not in there)
