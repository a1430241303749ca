"""Settings decode in a gateway as the supervisor encoded them."""

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


def test_settings_decode_as_they_were_encoded() -> None:
    models = {"a": ModelSettings(path="/a", args={"x": 1, "y": True, "z": "t"}, keep_alive=inf)}
    features = engine_features(tools=("hermes",), audio=("av",))
    settings = Settings(paths=PATHS, models=models)
    sent = for_gateway(settings, (3, 4), loopback=True, features=features)
    assert decode(encode(sent)) == sent
    assert sent.broker == Path("/r/broker.sock")
    assert sent.models["a"].keep_alive is None


def test_the_environment_of_workers_is_not_sent() -> None:
    settings = Settings(paths=PATHS, models={"a": ModelSettings(env={"HF_TOKEN": "secret"})})
    assert b"secret" not in encode(for_gateway(settings, (3,), loopback=True))


def test_garbage_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(b"{")
