"""Reloads, one after the other: what is decided, what is told, and that a fault changes nothing."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from vllamad.config.settings import (
    ControlSettings,
    ModelSettings,
    Paths,
    ServerSettings,
    Settings,
)
from vllamad.errors import ConfigError, HostProblem
from vllamad.host.systemd.notify import Notifier
from vllamad.supervisor.reload import Reloader

PATHS = Paths(
    state=Path("/s"), cache=Path("/c"), logs=Path("/l"), run=Path("/r"), control=Path("/r/c")
)
OLD = Settings(paths=PATHS)
TWO = replace(OLD, server=ServerSettings(gateways=2))


class Heard(Notifier):
    """What the service manager would hear."""

    def __init__(self) -> None:
        super().__init__({})
        self.words: list[str] = []

    def _send(self, state: str) -> None:
        self.words.append(state.partition("\n")[0])


class House:
    """A reloader, the settings in force, and what it read and applied."""

    def __init__(self, *sources: Settings | ConfigError) -> None:
        self.heard = Heard()
        self.sources = list(sources)
        self.present = OLD
        self.applied: list[Settings] = []
        self.refuses: HostProblem | None = None
        self.read_on = threading.Event()
        self.read_on.set()
        self.reloader = Reloader(self.heard, self.read)

    def read(self) -> Settings:
        self.read_on.wait(10)
        source = self.sources.pop(0)
        if isinstance(source, ConfigError):
            raise source
        return source

    async def apply(self, new: Settings) -> list[str]:
        if self.refuses is not None:
            raise self.refuses
        self.applied.append(new)
        self.present = new
        return ["a:latest"]


@asynccontextmanager
async def reloading(house: House) -> AsyncGenerator[Reloader]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.reloader.run, lambda: house.present, house.apply)
            yield house.reloader
            nursery.cancel_scope.cancel()


async def test_what_differs_is_applied_and_told_with_when_it_counts() -> None:
    house = House(TWO)
    async with reloading(house) as reloader:
        attempt = reloader.request()
        await attempt.over.wait()
    assert house.applied == [TWO]
    assert attempt.error is None
    assert attempt.outcome.changes == {"server.gateways": "at once"}
    assert attempt.outcome.replaced == ["a:latest"]
    assert house.heard.words == ["RELOADING=1", "READY=1"]


async def test_what_takes_a_restart_is_told_and_not_applied() -> None:
    house = House(replace(TWO, control=ControlSettings(group="other")))
    async with reloading(house) as reloader:
        attempt = reloader.request()
        await attempt.over.wait()
    assert house.applied == [TWO]
    assert attempt.outcome.changes["control.group"] == "after a restart"


async def test_a_fault_changes_nothing_and_is_shown_until_it_is_mended() -> None:
    fault = ConfigError(("a.toml:1: x: unknown key", "a.toml:2: y: must be a number"))
    house = House(fault, TWO)
    async with reloading(house) as reloader:
        attempt = reloader.request()
        await attempt.over.wait()
        assert isinstance(attempt.error, ConfigError)
        assert attempt.error.problems == fault.problems
        assert "stays in force" in attempt.error.hint
        assert attempt.decided.is_set(), "whoever waits for that is not left waiting"
        assert (house.applied, reloader.problem) == ([], "a.toml:1: x: unknown key")
        await reloader.request().over.wait()
        assert (house.applied, reloader.problem) == ([TWO], "")
    assert house.heard.words == ["RELOADING=1", "READY=1"] * 2


async def test_what_cannot_be_applied_is_told_and_the_next_one_is_tried() -> None:
    house = House(TWO, TWO)
    house.refuses = HostProblem("cannot start gateways: none serves after 60 s")
    async with reloading(house) as reloader:
        attempt = reloader.request()
        await attempt.over.wait()
        assert attempt.error is house.refuses
        house.refuses = None
        attempt = reloader.request()
        await attempt.over.wait()
    assert attempt.error is None
    assert house.applied == [TWO]


async def test_whoever_asks_while_one_is_under_way_shares_the_next() -> None:
    house = House(TWO, OLD)
    house.read_on.clear()
    async with reloading(house) as reloader:
        first = reloader.request()
        while house.heard.words != ["RELOADING=1"]:  # noqa: ASYNC110
            await trio.sleep(0.005)
        second, third = reloader.request(), reloader.request()
        assert first is not second
        assert second is third
        house.read_on.set()
        await third.over.wait()
    assert house.applied == [TWO, OLD]


async def test_stopped_on_the_way_it_is_not_told_that_it_is_ready() -> None:
    house = House(TWO)

    async def apply(_: Settings) -> list[str]:
        applying.set()
        await trio.sleep_forever()
        return []

    applying = trio.Event()
    house.apply = apply  # type: ignore[method-assign]
    async with reloading(house) as reloader:
        attempt = reloader.request()
        await applying.wait()
    assert attempt.over.is_set(), "whoever waits is not left waiting"
    assert house.heard.words == ["RELOADING=1"]


async def test_asked_before_it_runs_it_reloads_when_it_does() -> None:
    house = House(replace(OLD, models={"a": ModelSettings(keep_alive=1.0)}))
    attempt = house.reloader.request()
    async with reloading(house):
        await attempt.over.wait()
    assert attempt.outcome.changes == {'model."a".keep_alive': "at once"}
