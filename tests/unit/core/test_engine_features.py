"""What one engine can do is read from the file of its runtime, whichever version wrote it."""

from __future__ import annotations

import msgspec

from tests.support.engine_features import engine_features
from vllamad.core.engine_features import EngineFeatures


def test_an_engine_has_the_flags_it_lists_and_any_where_it_lists_none() -> None:
    assert engine_features(flags=("--uds",)).has_flag("uds")
    assert not engine_features(flags=("--uds",)).has_flag("model")
    assert engine_features().has_flag("model")


def test_the_file_of_a_runtime_calls_the_audio_packages_sound() -> None:
    features = engine_features(audio=("av",))
    assert msgspec.json.decode(msgspec.json.encode(features))["sound"] == ["av"]
    older = b'{"version":"1","device":"cpu","flags":[],"tool_parsers":[],"reasoning_parsers":[],'
    read = msgspec.json.decode(older + b'"fork":true}', type=EngineFeatures)
    assert (read.audio_packages, read.flashinfer) == ((), False)
