"""Whether a model takes audio, and the Python packages its engine needs for that."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum, auto

_READ_FILES = ("av", "soundfile")  # audio files of all kinds
_RESAMPLE = ("torchaudio",)  # what vLLM resamples the audio of a message with


class AudioSupport(Enum):
    """How a model takes audio."""

    NONE = auto()
    WITH_TEXT = auto()  # in a message, beside text
    TRANSCRIBE_ONLY = auto()  # it has no prompt, and answers with the transcript alone


_NEEDED = {
    AudioSupport.NONE: (),
    AudioSupport.TRANSCRIBE_ONLY: _READ_FILES,
    AudioSupport.WITH_TEXT: _READ_FILES + _RESAMPLE,
}


def missing_packages(support: AudioSupport, installed: Collection[str]) -> tuple[str, ...]:
    """The packages that `support` needs and that are not among those `installed`."""
    return tuple(name for name in _NEEDED[support] if name not in installed)
