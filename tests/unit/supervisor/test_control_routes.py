"""The routes of the control socket, over a real one: what each answers, and how each refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.fakes.workers import FakeLauncher, FakeProcess, managed_workers
from tests.support.daemon import fake_home
from vllamad import __version__
from vllamad.config.settings import ControlSettings, Paths, SchedulerSettings, Settings
from vllamad.core.model_name import ModelName
from vllamad.errors import (
    ConfigError,
    HostProblem,
    LoadFailed,
    NotAllowed,
    RuntimeProblem,
    VllamadError,
)
from vllamad.host.control_socket import Peer, bind_control
from vllamad.http.control_server import ControlRequest, ControlResponse, serve_http
from vllamad.models.installed import InstalledModels
from vllamad.protocol.control import Progress, Reloaded
from vllamad.supervisor.control_handlers import Call, Daemon, NoOrder
from vllamad.supervisor.control_routes import ROUTES, Control, ControlAccess, ControlRoute
from vllamad.supervisor.engine_runtimes import EngineRuntimes
from vllamad.supervisor.models.library import Library
from vllamad.supervisor.models.model_changes import ModelChanges
from vllamad.supervisor.progress_responses import Attempt, ticking
from vllamad.supervisor.workers.manager import WorkerManager
from vllamad.supervisor.workers.worker_paths import log_file

Report = Callable[[Progress], Awaitable[None]]


class Shelf(Library):
    """A library whose pulls are scripted."""

    pulled: list[ModelName]
    breaks: VllamadError | None = None

    async def fetch(self, name: ModelName, report: Report) -> None:
        self.pulled.append(name)
        await report(Progress(status="pulling", completed=1, total=2))
        if self.breaks:
            raise self.breaks
        await report(Progress(status="success", done=True))


class House:
    """A control socket, what is behind it, and a client."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        fleet: WorkerManager,
        daemon: Daemon,
        shelf: Shelf,
        attempt: Attempt,
    ) -> None:
        self.http = http
        self.fleet = fleet
        self.daemon = daemon
        self.shelf = shelf
        self.attempt = attempt  # what comes of a reload

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def order(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """The lines of a long answer."""
        answer = await self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.text.splitlines()]

    @property
    def states(self) -> dict[str, str]:
        return {worker.model: worker.state for worker in self.fleet.workers()}


@asynccontextmanager
async def house(home: Path, *story: FakeProcess, host: str = "100GiB") -> AsyncGenerator[House]:
    fake_home(home, models=("a", "org/b"))
    paths = Paths(
        state=home / "state", cache=home, logs=home, run=home, control=home / "control.sock"
    )
    memory = int(host.removesuffix("GiB")) << 30
    settings = Settings(
        paths=paths,
        control=ControlSettings(group="no-such-group"),
        scheduler=SchedulerSettings(memory=memory),
    )
    engines = EngineRuntimes(settings)
    async with managed_workers(FakeLauncher([*story] or [FakeProcess(load=0)])) as fleet:
        shelf = Shelf(settings, InstalledModels(paths.models, {}), engines, fleet.measured, {})
        shelf.pulled = []
        attempt = Attempt()
        daemon = Daemon(
            settings=settings,
            listen=["127.0.0.1:11434"],
            reload=lambda: attempt,
            fleet=fleet,
            library=shelf,
            orders=ModelChanges(paths.models, InstalledModels(paths.models, {}), shelf, fleet),
            started=1000.0,
            now=lambda: 1060.0,
            pid=4711,
            uid=0,
            gateways=lambda: 2,
            runtime=engines.info,
            waiting_for=lambda: engines.waiting_for,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(shelf.pulls.run)
            bound = trio.socket.from_stdlib_socket(bind_control(paths.control, "no-such-group"))
            nursery.start_soon(serve_http, trio.SocketListener(bound), Control(daemon).handle)
            transport = httpx.AsyncHTTPTransport(uds=str(paths.control))
            async with httpx.AsyncClient(transport=transport, base_url="http://control") as http:
                yield House(http, fleet, daemon, shelf, attempt)
            nursery.cancel_scope.cancel()


async def test_the_daemon_says_what_it_is(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        assert await one.get("/v1/version") == {"version": __version__, "api": 1}
        status = await one.get("/v1/status")
    assert (status["pid"], status["uptime"], status["gateways"]) == (4711, 60.0, 2)
    assert (status["installed"], status["queued"], status["message"]) == (2, 0, "")
    assert status["runtime"]["name"] == "fake"
    assert status["listen"] == ["127.0.0.1:11434"]


async def test_a_missing_runtime_is_told_with_advice_and_hides_nothing_else(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        (tmp_path / "state" / "runtimes" / "current").unlink()
        status = await one.get("/v1/status")
    assert status["runtime"] is None
    assert status["message"].startswith("cannot start an engine: no runtime is installed; install")
    assert status["installed"] == 2


async def test_installed_models_are_listed_and_shown(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        models = (await one.get("/v1/models"))["models"]
        assert sorted(model["name"] for model in models) == ["a:latest", "org/b:latest"]
        shown = await one.get("/v1/models/org%2Fb")
    assert shown["info"]["name"] == "org/b:latest"
    assert shown["info"] == next(model for model in models if model["name"] == "org/b:latest")
    assert shown["path"].startswith(str(tmp_path))
    assert shown["model_info"]["general.architecture"] == "llama"


async def test_the_configuration_in_force_is_shown(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        assert (await one.get("/v1/config"))["control"] == {"group": "no-such-group"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v2/version"),
        ("GET", "/v1/models/a/load"),
        ("POST", "/v1/version"),
        ("POST", "/v1/models/a/frobnicate"),
        ("DELETE", "/v1/models/a"),
    ],
)
async def test_what_is_no_route_says_so(tmp_path: Path, method: str, path: str) -> None:
    async with house(tmp_path) as one:
        answer = await one.http.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == f"no such route: {method} {path}"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/nope"),
        ("GET", "/v1/models/nope/logs"),
        ("POST", "/v1/models/nope/load"),
        ("POST", "/v1/models/nope/unload"),
        ("POST", "/v1/models/nope/restart"),
    ],
)
async def test_a_model_that_is_not_there_is_refused_before_anything_happens(
    tmp_path: Path, method: str, path: str
) -> None:
    async with house(tmp_path) as one:
        answer = await one.http.request(method, path)
        assert one.states == {}
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["kind"], error["message"]) == ("model-not-found", "model 'nope' not found")
    assert "vllamactl list" in error["hint"]


async def test_a_load_tells_how_it_goes_and_keeps_the_model_for_ever(tmp_path: Path) -> None:
    async with house(tmp_path, FakeProcess(load=0.1)) as one:
        *before, last = await one.order("/v1/models/a/load")
        assert before
        assert not any(line.get("done") for line in before)
        assert (last["status"], last["done"]) == ("ready", True)
        assert "error" not in last
        (worker,) = (await one.get("/v1/workers"))["workers"]
        assert (worker["model"], worker["state"]) == ("a:latest", "ready")
        assert worker["expires_in"] is None
        assert worker["leases"] == 0


async def test_a_load_that_fails_ends_in_its_reason_and_the_next_order_tries_again(
    tmp_path: Path,
) -> None:
    dying = FakeProcess(load=60, dies_after=0, why="ValueError: no room")
    async with house(tmp_path, dying, FakeProcess(load=0)) as one:
        *_, last = await one.order("/v1/models/a/load")
        assert last["done"]
        assert last["error"]["kind"] == "load-failed"
        assert "ValueError: no room" in last["error"]["message"]
        assert one.states == {"a:latest": "failed"}
        assert (await one.order("/v1/models/a/load"))[-1]["status"] == "ready"


async def test_a_model_too_large_for_the_machine_is_refused_with_the_numbers(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, host="1GiB") as one:
        *_, last = await one.order("/v1/models/a/load")
    assert last["error"]["kind"] == "does-not-fit"
    assert "at most 1024 MiB can be freed" in last["error"]["message"]


async def test_an_unload_ends_when_it_is_gone_and_may_be_repeated(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        await one.order("/v1/models/a/load")
        assert (await one.order("/v1/models/A/unload"))[-1]["status"] == "unloaded"
        assert one.states == {}
        assert (await one.order("/v1/models/a/unload"))[-1]["status"] == "was not loaded"


async def test_a_restart_is_another_life(tmp_path: Path) -> None:
    async with house(tmp_path, FakeProcess(load=0, pid=1), FakeProcess(load=0, pid=2)) as one:
        await one.order("/v1/models/a/load")
        assert (await one.order("/v1/models/a/restart"))[-1]["status"] == "ready"
        assert [worker.pid for worker in one.fleet.workers()] == [2]


async def test_loading_while_the_daemon_goes_down_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        await one.fleet.close()
        *_, last = await one.order("/v1/models/a/load")
    assert last["error"]["kind"] == "unavailable"


async def test_a_pull_is_told_line_by_line(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        lines = await one.order("/v1/models/pull", model="Org/Repo")
        assert lines == [
            {"status": "pulling", "completed": 1, "total": 2},
            {"status": "success", "done": True},
        ]
        assert [name.display() for name in one.shelf.pulled] == ["Org/Repo:latest"]


async def test_a_pull_that_breaks_ends_in_its_reason(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        one.shelf.breaks = HostProblem("cannot write: no space left", hint="make room")
        *_, last = await one.order("/v1/models/pull", model="a")
    assert last == {
        "error": {
            "kind": "host",
            "message": "cannot write: no space left",
            "hint": "make room",
            "status": 500,
            "errno": 0,
        },
        "done": True,
    }


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model":1}', b'{"model":"a/b/c/d/e"}'])
async def test_a_pull_of_nothing_readable_is_refused(tmp_path: Path, body: bytes) -> None:
    async with house(tmp_path) as one:
        answer = await one.http.post("/v1/models/pull", content=body)
        assert one.shelf.pulled == []
    assert answer.status_code == 400
    assert answer.json()["error"]["kind"] == "bad-input"


async def test_logs_are_the_last_lines_asked_for(tmp_path: Path) -> None:
    log_file(tmp_path, "a:latest").write_text("one\ntwo\nthree\n")
    async with house(tmp_path) as one:
        answer = await one.http.get("/v1/models/a/logs?lines=2")
    assert answer.text == "two\nthree\n"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


async def test_logs_may_be_followed(tmp_path: Path) -> None:
    log = log_file(tmp_path, "a:latest")
    log.write_text("one\n")
    request = b"GET /v1/models/a/logs?follow=1 HTTP/1.1\r\nHost: control\r\n\r\n"
    async with house(tmp_path), await trio.open_unix_socket(tmp_path / "control.sock") as stream:
        await stream.send_all(request)
        await until_said(stream, b"one\n")
        with log.open("a") as file:
            file.write("two\n")
        await until_said(stream, b"two\n")


async def until_said(stream: trio.SocketStream, wanted: bytes) -> None:
    said = b""
    with trio.fail_after(5):
        while wanted not in said:
            said += await stream.receive_some()


async def test_logs_of_a_model_that_never_ran_say_so(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        answer = await one.http.get("/v1/models/a/logs")
    assert answer.status_code == 500
    assert "cannot read" in answer.json()["error"]["message"]


@pytest.mark.parametrize("lines", ["0", "-1", "ten", "100001", "²", "9" * 5000])
async def test_a_number_of_lines_that_is_none_is_refused(tmp_path: Path, lines: str) -> None:
    async with house(tmp_path) as one:
        answer = await one.http.get("/v1/models/a/logs", params={"lines": lines})
    assert answer.status_code == 400
    assert "is not a number from 1 to 100000" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path"), [("GET", "v1/version"), ("POST", "v1/models/a/load")])
async def test_a_stranger_is_told_whom_to_join(tmp_path: Path, method: str, path: str) -> None:
    stranger = Peer(pid=1, uid=1234, gid=1234, groups=frozenset({1234}))
    request = ControlRequest(
        method=method, path=tuple(path.split("/")), query={}, body=b"", peer=stranger
    )
    async with house(tmp_path) as one:
        with pytest.raises(NotAllowed, match="uid 1234 may not control vllamad") as caught:
            await Control(one.daemon).handle(request)
        assert one.states == {}
    assert "no-such-group" in caught.value.hint


async def done(daemon: Daemon, call: Call[NoOrder]) -> ControlResponse:
    return ControlResponse(body=b"done")


async def test_a_route_without_access_takes_admin_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new = ControlRoute("GET", "/v1/new", done, NoOrder)
    assert new.access is ControlAccess.ADMIN
    path = ("v1", "new")
    stranger = Peer(pid=1, uid=1234, gid=1234, groups=frozenset({1234}))
    root = Peer(pid=2, uid=0, gid=0, groups=frozenset({0}))
    refused = ControlRequest(method="GET", path=path, query={}, body=b"", peer=stranger)
    async with house(tmp_path) as one:
        served = Control(one.daemon, (*ROUTES, new))
        with pytest.raises(NotAllowed):
            await served.handle(refused)
        caplog.set_level("INFO", "vllamad.supervisor.control_routes")
        assert await served.handle(replace(refused, peer=root)) == ControlResponse(body=b"done")
    assert [record.__dict__["fields"]["uid"] for record in caplog.records] == [0]


async def test_an_unknown_path_takes_admin_too(tmp_path: Path) -> None:
    stranger = Peer(pid=1, uid=1234, gid=1234, groups=frozenset({1234}))
    request = ControlRequest(method="GET", path=("v2",), query={}, body=b"", peer=stranger)
    async with house(tmp_path) as one:
        with pytest.raises(NotAllowed):
            await Control(one.daemon).handle(request)


def test_only_what_changes_nothing_is_for_reading() -> None:
    reading = {route.method for route in ROUTES if route.access is ControlAccess.READ}
    changing = {route.method for route in ROUTES if route.access is ControlAccess.ADMIN}
    assert (reading, changing) == ({"GET"}, {"POST"})


async def told_by(work: Callable[[], Awaitable[str]]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []

    async def send(line: bytes) -> None:
        lines.append(json.loads(line))

    await ticking(work, lambda: "working").produce(send)
    return lines


async def test_a_long_order_gives_a_sign_of_life_every_second(autojump_clock: MockClock) -> None:
    async def work() -> str:
        await trio.sleep(2.5)
        return "done"

    *signs, last = await told_by(work)
    assert [line.get("elapsed", 0) for line in signs] == [0, 1, 2]
    assert last == {"status": "done", "done": True, "elapsed": 2.5}


async def test_a_long_order_that_is_refused_ends_in_the_refusal(autojump_clock: MockClock) -> None:
    async def work() -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.sleep, 1))
            raise LoadFailed("cannot load a: no room")

    *_, last = await told_by(work)
    assert last["error"]["message"] == "cannot load a: no room"


async def test_a_runtime_problem_is_no_bug(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        (tmp_path / "state" / "runtimes" / "current").unlink()
        with pytest.raises(RuntimeProblem):
            await one.daemon.runtime()


async def test_a_reload_says_what_was_decided_and_then_when_it_counts(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        one.attempt.outcome = Reloaded(changes={"server.gateways": "at once"})
        one.attempt.decided.set()
        async with one.http.stream("POST", "/v1/reload") as answer:
            lines = answer.aiter_lines()
            first = json.loads(await anext(lines))
            assert first["reloaded"]["changes"] == {"server.gateways": "at once"}
            assert not first.get("done")
            one.attempt.outcome = Reloaded(changes={}, replaced=["a:latest"])
            one.attempt.over.set()
            (last,) = [json.loads(line) async for line in lines]
    assert (last["done"], last["reloaded"]["replaced"]) == (True, ["a:latest"])


async def test_a_reload_of_a_configuration_with_faults_names_them(tmp_path: Path) -> None:
    async with house(tmp_path) as one:
        one.attempt.error = ConfigError(("a.toml:1: x: y", "a.toml:2: z: w"), hint="as before")
        one.attempt.decided.set()
        one.attempt.over.set()
        (line,) = await one.order("/v1/reload")
    assert line["error"] == {
        "kind": "config",
        "message": "a.toml:1: x: y\na.toml:2: z: w",
        "hint": "as before",
        "status": 500,
        "problems": ["a.toml:1: x: y", "a.toml:2: z: w"],
    }
