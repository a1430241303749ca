"""What a changed setting takes until it counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vllamad.config.changes import Effect, changed_settings, effect_of, in_force
from vllamad.config.schema import SECTIONS
from vllamad.config.settings import (
    ApiKey,
    ControlSettings,
    EngineSettings,
    HubSettings,
    LogSettings,
    ModelSettings,
    Paths,
    SchedulerSettings,
    ServerSettings,
    Settings,
    WorkerSettings,
)

PATHS = Paths(
    state=Path("/s"), cache=Path("/c"), logs=Path("/l"), run=Path("/r"), control=Path("/r/c")
)
OLD = Settings(paths=PATHS, models={"a:latest": ModelSettings(context_length=512)})
MODELS = OLD.models

CASES: list[tuple[dict[str, object], dict[str, Effect]]] = [
    ({}, {}),
    ({"server": ServerSettings(gateways=2)}, {"server.gateways": Effect.NOW}),
    ({"server": ServerSettings(listen=("127.0.0.1:1",))}, {"server.listen": Effect.RESTART}),
    ({"control": ControlSettings(group="x")}, {"control.group": Effect.RESTART}),
    ({"paths": replace(PATHS, logs=Path("/else"))}, {"paths.logs": Effect.RESTART}),
    ({"paths": replace(PATHS, config_files=(Path("/etc/new.toml"),))}, {}),
    (
        {"scheduler": SchedulerSettings(max_queue=1, load_timeout=1)},
        {"scheduler.max_queue": Effect.NOW, "scheduler.load_timeout": Effect.LOAD},
    ),
    (
        {"worker": WorkerSettings(probe_misses=9, failed_cooldown=1)},
        {"worker.probe_misses": Effect.LOAD, "worker.failed_cooldown": Effect.NOW},
    ),
    ({"engine": EngineSettings(args={"seed": 1})}, {"engine.args": Effect.REPLACE}),
    ({"hub": HubSettings(endpoint="http://hub")}, {"hub.endpoint": Effect.NOW}),
    (
        {"logging": LogSettings(level="debug", keep=9)},
        {"logging.level": Effect.NOW, "logging.keep": Effect.LOAD},
    ),
    ({"api_keys": (ApiKey(digest="d", scope="infer"),)}, {"server.api_keys_file": Effect.NOW}),
    ({"hub_token": "t"}, {"hub.token_file": Effect.NOW}),
    ({"models": {}}, {'model."a:latest".context_length': Effect.REPLACE}),
    (
        {"models": {**MODELS, "b": ModelSettings(keep_alive=1.0, env={"A": "b"})}},
        {'model."b".keep_alive': Effect.NOW, 'model."b".env': Effect.REPLACE},
    ),
    ({"models": {**MODELS, "b": ModelSettings()}}, {}),
]


@pytest.mark.parametrize(("difference", "expected"), CASES)
def test_a_change_is_named_with_what_it_takes(
    difference: dict[str, object], expected: dict[str, Effect]
) -> None:
    new = replace(OLD, **difference)  # type: ignore[arg-type]
    assert changed_settings(OLD, new) == expected


@pytest.mark.parametrize(("difference", "expected"), CASES)
def test_what_takes_a_restart_stays_and_is_named_again_the_next_time(
    difference: dict[str, object], expected: dict[str, Effect]
) -> None:
    new = replace(OLD, **difference)  # type: ignore[arg-type]
    live = in_force(OLD, new)
    waiting = {key: effect for key, effect in expected.items() if effect is Effect.RESTART}
    assert changed_settings(live, new) == waiting
    assert changed_settings(OLD, live) == {
        key: effect for key, effect in expected.items() if key not in waiting
    }
    assert live.paths.config_files == new.paths.config_files


@pytest.mark.parametrize("section", SECTIONS)
def test_it_is_known_of_every_setting(section: str) -> None:
    assert {effect_of(section, key) for key in SECTIONS[section]} <= set(Effect)
