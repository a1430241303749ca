"""The packages an engine needs for a model that takes audio."""

from __future__ import annotations

import pytest

from vllamad.core.audio_support import AudioSupport, missing_packages


@pytest.mark.parametrize(
    ("support", "there", "missing"),
    [
        (AudioSupport.NONE, (), ()),
        (AudioSupport.TRANSCRIBE_ONLY, (), ("av", "soundfile")),
        (AudioSupport.TRANSCRIBE_ONLY, ("soundfile",), ("av",)),
        (AudioSupport.TRANSCRIBE_ONLY, ("av", "soundfile"), ()),
        (AudioSupport.WITH_TEXT, ("av", "soundfile"), ("torchaudio",)),
        (AudioSupport.WITH_TEXT, ("av", "soundfile", "torchaudio"), ()),
    ],
)
def test_missing_packages_are_named(
    support: AudioSupport, there: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    assert missing_packages(support, there) == missing
