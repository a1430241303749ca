"""What a gateway is told arrives as it was."""

from __future__ import annotations

from math import inf
from pathlib import Path

import msgspec
import pytest

from tests.support.engine_features import engine_features
from vllamad.config.settings import ModelSettings, Paths, Settings
from vllamad.protocol.gateway_setup import decode, encode, for_gateway

PATHS = Paths(
    state=Path("/s"), cache=Path("/c"), logs=Path("/l"), run=Path("/r"), control=Path("/r/c")
)


def test_settings_survive_the_way_to_a_gateway() -> None:
    models = {"a": ModelSettings(path="/a", args={"x": 1, "y": True, "z": "t"}, keep_alive=inf)}
    features = engine_features(tools=("hermes",), audio=("av",))
    settings = Settings(paths=PATHS, models=models)
    told = for_gateway(settings, (3, 4), loopback=True, features=features)
    assert decode(encode(told)) == told
    assert told.broker == Path("/r/broker.sock")
    assert told.models["a"].keep_alive is None


def test_the_environment_of_workers_is_not_told() -> None:
    settings = Settings(paths=PATHS, models={"a": ModelSettings(env={"HF_TOKEN": "secret"})})
    assert b"secret" not in encode(for_gateway(settings, (3,), loopback=True))


def test_garbage_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(b"{")
