"""What an engine must have for a model that hears."""

from __future__ import annotations

import pytest

from vllamad.core.audio import Hearing, missing_packages


@pytest.mark.parametrize(
    ("hearing", "there", "missing"),
    [
        ("", (), ()),
        ("only", (), ("av", "soundfile")),
        ("only", ("soundfile",), ("av",)),
        ("only", ("av", "soundfile"), ()),
        ("beside", ("av", "soundfile"), ("torchaudio",)),
        ("beside", ("av", "soundfile", "torchaudio"), ()),
    ],
)
def test_missing_packages_are_named(
    hearing: Hearing, there: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    assert missing_packages(hearing, there) == missing
