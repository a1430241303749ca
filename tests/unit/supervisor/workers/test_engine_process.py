"""One life of the scripted engine: what is seen of it while it lives, and that nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.fakes.engine_process import read_stream
from tests.support.daemon import FAKE_SITE, ROOT, fake_home, is_alive
from tests.support.kv_caches import flat
from vllamad.config.settings import (
    EngineSettings,
    Paths,
    SchedulerSettings,
    Settings,
    WorkerSettings,
)
from vllamad.core.launch import Plan, Spec
from vllamad.core.lifecycle import State
from vllamad.core.memory import Need, Placement
from vllamad.errors import HostProblem, RuntimeProblem
from vllamad.host.processes.cgroup import Cgroups
from vllamad.host.processes.process_group import Launch
from vllamad.http.engine_client import client_for
from vllamad.supervisor.engine_runtimes import EngineRuntimes
from vllamad.supervisor.workers import engine_process
from vllamad.supervisor.workers.engine_process import VllmLauncher, VllmProcess
from vllamad.supervisor.workers.worker import Worker
from vllamad.supervisor.workers.worker_paths import log_file

pytestmark = pytest.mark.integration

PLAN = Plan(
    spec=Spec(
        model="a:latest",
        folder="/models/a",
        need=Need(weights=1, cache=flat(2), context_length=2048),
        context_length=512,
    ),
    placement=Placement(devices=(), per_device=1, kv_cache=1),
)
WATCHFUL = WorkerSettings(
    stop_timeout=5, kill_timeout=5, probe_interval=0.05, probe_timeout=0.5, probe_misses=2
)


def settings_of(home: Path, worker: WorkerSettings = WATCHFUL, /, **scenario: object) -> Settings:
    """A prepared home whose engine follows `scenario`."""
    fake_home(home, models=())
    for name in ("cache", "logs", "run"):
        (home / name).mkdir()
    paths = Paths(
        state=home / "state",
        cache=home / "cache",
        logs=home / "logs",
        run=home / "run",
        control=home / "control",
    )
    env = {"PYTHONPATH": f"{FAKE_SITE}:{ROOT}", "FAKE_ENGINE": json.dumps(scenario)}
    return Settings(paths=paths, worker=worker, engine=EngineSettings(env=env))


def lives_of(settings: Settings) -> VllmLauncher:
    return VllmLauncher(settings, EngineRuntimes(settings), os.environ)


@asynccontextmanager
async def living(settings: Settings) -> AsyncGenerator[VllmProcess]:
    with trio.fail_after(30):
        async with lives_of(settings).live(PLAN) as life:
            yield life


async def reason_of(
    home: Path, wait: Callable[[VllmProcess], Awaitable[str]], **scenario: object
) -> str:
    async with living(settings_of(home, **scenario)) as life:
        return await wait(life)


async def test_a_life_begins_with_a_private_folder_and_leaves_nothing_but_its_log(
    tmp_path: Path,
) -> None:
    async with living(settings_of(tmp_path)) as life:
        assert await life.wait_ready() == 512
        folder = life.endpoint.parent
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (await life.usage()).memory > 1 << 20
        assert is_alive(life.pid)
    assert not is_alive(life.pid)
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["w"]
    log = (tmp_path / "logs" / "a@latest.log").read_text()
    assert "Application startup complete." in log
    assert "Application shutdown complete." in log, "it was asked before it was killed"


async def test_what_a_life_before_left_behind_is_not_in_the_way(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    async with living(settings) as life:
        old = life.endpoint
    old.parent.mkdir()
    old.write_text("a socket that nobody listens on")
    async with living(settings) as life:
        assert await life.wait_ready()


async def test_one_that_cannot_hear_is_killed_at_once(tmp_path: Path) -> None:
    patient = replace(WATCHFUL, stop_timeout=60)
    async with living(settings_of(tmp_path, patient, ignore_term=True)) as life:
        await life.wait_ready()
        life.kill_without_grace()
        began = trio.current_time()
    assert trio.current_time() - began < 10


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        ({"exit": 3}, "the engine ended by itself: exit status 3"),
        ({"exit": 0}, "the engine ended by itself: exit status 0"),
        ({"exit": 1, "log": ["ValueError: no room"]}, "ValueError: no room"),
    ],
)
async def test_an_end_of_its_own_is_told_with_its_last_words(
    tmp_path: Path, scenario: dict[str, object], reason: str
) -> None:
    assert await reason_of(tmp_path, lambda life: life.wait_exited(), **scenario) == reason


async def test_an_end_for_lack_of_memory_says_so(tmp_path: Path) -> None:
    settings = replace(settings_of(tmp_path), worker=replace(WATCHFUL, memory_max=1 << 30))
    tree = Cgroups(tmp_path / "cgroup", memory=True)
    tree.top.mkdir()
    with trio.fail_after(30):
        async with VllmLauncher(settings, EngineRuntimes(settings), os.environ, cgroups=tree).live(
            PLAN
        ) as life:
            await life.wait_ready()
            (group,) = tree.top.iterdir()
            assert (group / "memory.max").read_text() == str(1 << 30)
            assert (group / "cgroup.procs").read_text() == "0", "the leader has joined"
            (group / "memory.events").write_text("oom_kill 2")
            (group / "memory.peak").write_text(str(1 << 30))
            os.kill(life.pid, signal.SIGKILL)
            assert await life.wait_exited() == (
                "killed by SIGKILL: out of memory, the kernel's OOM killer ended it;"
                " it had 1024 MiB; its memory_max is 1024 MiB"
            )


async def test_a_first_token_that_is_refused_is_why_it_failed(tmp_path: Path) -> None:
    once = replace(WATCHFUL, max_failures=1)
    engine_process = lives_of(settings_of(tmp_path, once, status=500))
    worker = Worker(PLAN, engine_process, once, SchedulerSettings(), lambda _: None)
    with trio.fail_after(30):
        await worker.run()
    assert worker.state is State.FAILED
    assert worker.reason.startswith("the engine refused its first request: ")


async def test_an_end_by_a_signal_names_it(tmp_path: Path) -> None:
    async def killed(life: VllmProcess) -> str:
        await life.wait_ready()
        os.kill(life.pid, signal.SIGKILL)
        return await life.wait_exited()

    told = await reason_of(tmp_path, killed)
    assert re.fullmatch(
        r"killed by SIGKILL: (not by the kernel's OOM killer; )?it had \d+ MiB", told
    ), told


@pytest.mark.case("F14")
async def test_a_remark_is_no_reason_where_a_signal_ended_it(tmp_path: Path) -> None:
    remark = "(EngineCore pid=9) WARNING 12-01 01:02:03 [x.py:1] ValueError: Using None for EOS"
    cause = "ERROR 12-01 01:02:03 [x.py:1] RuntimeError: no such kernel"

    async def killed(life: VllmProcess) -> str:
        await life.wait_ready()
        os.kill(life.pid, signal.SIGILL)
        return await life.wait_exited()

    told = await reason_of(tmp_path / "1", killed, log=[remark])
    assert told == "killed by SIGILL (illegal instruction)"
    told = await reason_of(tmp_path / "2", killed, log=[cause, remark])
    assert told == "killed by SIGILL (illegal instruction): RuntimeError: no such kernel"


async def test_the_core_s_signal_is_told_though_its_leader_ends_in_order(tmp_path: Path) -> None:
    log = [
        "RuntimeError: Engine core initialization failed. Failed core proc(s): {'EngineCore': -4}"
    ]
    told = await reason_of(tmp_path, lambda life: life.wait_exited(), exit=1, log=log)
    assert told.startswith("killed by SIGILL (illegal instruction)")


async def test_the_signal_that_ended_the_core_of_a_ready_engine_is_told(tmp_path: Path) -> None:
    async def killed(life: VllmProcess) -> str:
        await life.wait_ready()
        ((core, _),) = [one for one in life._group.members() if one[1].startswith("VLLM::")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_once_it_is_watched, core)
            return await life.wait_unhealthy()

    async def kill_once_it_is_watched(core: int) -> None:
        await trio.testing.wait_all_tasks_blocked(0.02)
        os.kill(core, signal.SIGSEGV)

    told = await reason_of(tmp_path, killed, children=["VLLM::EngineCore"])
    assert told.startswith("the engine core died: killed by SIGSEGV (segmentation fault)")


async def test_a_start_that_failed_counts_as_ended_though_every_process_lives(
    tmp_path: Path,
) -> None:
    log = ["(EngineCore pid=1) ERROR 11-23 04:00:05 [core.py:1] EngineCore failed to start."]
    async with living(settings_of(tmp_path, log=log)) as life:
        assert await life.wait_exited() == "EngineCore failed to start."
        assert is_alive(life.pid)


@pytest.mark.parametrize(
    ("name", "who"),
    [("VLLM::EngineCor", "the engine core"), ("VLLM::Worker", "the engine's Worker")],
)
async def test_the_death_of_the_core_is_seen_before_the_leader_notices(
    tmp_path: Path, name: str, who: str
) -> None:
    async def killed(life: VllmProcess) -> str:
        await life.wait_ready()
        core = next(pid for pid, comm in life._group.members() if comm == name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, os.kill, core, signal.SIGKILL)
            return await life.wait_unhealthy()

    reason = await reason_of(tmp_path, killed, children=[name])
    assert reason.startswith(f"{who} died")


async def test_an_engine_that_answers_no_probe_is_deaf(tmp_path: Path) -> None:
    async def stopped(life: VllmProcess) -> str:
        await life.wait_ready()
        os.kill(life.pid, signal.SIGSTOP)
        life.kill_without_grace()
        return await life.wait_unhealthy()

    assert await reason_of(tmp_path, stopped) == "no answer to 2 health probes"


def impatient(limit: float) -> WorkerSettings:
    return replace(WATCHFUL, stuck_timeout=limit)


async def test_an_engine_that_is_healthy_and_makes_no_token_is_stuck(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, impatient(0.4), stall_after=3)
    async with living(settings) as life, trio.open_nursery() as nursery:
        await life.wait_ready()
        async with client_for(str(life.endpoint)) as client:
            nursery.start_soon(read_stream, client)
            assert await life.wait_unhealthy() == "no token for 0.4 s while requests run"
            assert (await client.get("/health")).status_code == 200, "no other probe saw it"
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("tokens", [0, 10_000])
async def test_an_engine_that_idles_or_makes_tokens_slowly_is_not_stuck(
    tmp_path: Path, tokens: int
) -> None:
    settings = settings_of(tmp_path, impatient(0.2), tokens=tokens, rate=20)
    async with living(settings) as life, trio.open_nursery() as nursery:
        await life.wait_ready()
        async with client_for(str(life.endpoint)) as client:
            if tokens:
                nursery.start_soon(read_stream, client)
            with trio.move_on_after(1):
                raise AssertionError(await life.wait_unhealthy())
            nursery.cancel_scope.cancel()


async def test_a_runtime_that_is_gone_says_so(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    (tmp_path / "state" / "runtimes" / "current").unlink()
    with pytest.raises(RuntimeProblem, match="no runtime is installed"):
        async with living(settings):
            pass


async def test_a_folder_that_cannot_be_made_says_which(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    (tmp_path / "run" / "w").write_text("in the way")
    with pytest.raises(HostProblem, match=r"cannot make \S+/run/w/"):
        async with living(settings):
            pass


class Unkillable:
    """A group that is still there after KILL, and goes in its own time."""

    pid = 4711
    survives_restart = False
    cgroup = None

    def __init__(self) -> None:
        self.is_gone = False

    @asynccontextmanager
    async def spawn(
        self, launch: Launch, *, term_timeout: float, kill_timeout: float
    ) -> AsyncGenerator[Unkillable]:
        yield self
        raise HostProblem("cannot empty the process group of 4711")

    async def gone(self) -> None:
        await trio.lowlevel.checkpoint()
        self.is_gone = True


async def test_what_will_not_die_is_waited_for_since_it_still_holds_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Unkillable()
    monkeypatch.setattr(engine_process, "spawn", group.spawn)
    with pytest.raises(HostProblem, match="cannot empty"):
        async with living(settings_of(tmp_path)):
            pass
    assert group.is_gone


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("smollm2:135m", "smollm2@135m.log"),
        ("hf.co/org/Repo:Q4", "hf.co+org+Repo@Q4.log"),
    ],
)
def test_every_model_has_a_log_of_its_own(model: str, name: str) -> None:
    assert log_file(Path("/logs"), model) == Path("/logs") / name
