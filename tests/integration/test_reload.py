"""Another configuration while requests run: what differs is applied, and nothing else happens."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.support.daemon import Daemon, cmdline, daemon, fake_config, until
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.integration


def write(one: Daemon, more: str) -> None:
    (one.home / "vllamad.toml").write_text(fake_config(more=more))


def reload(one: Daemon, *words: str, code: int = 0) -> str:
    return one.ctl("reload", *words, code=code)


def changes(one: Daemon) -> dict[str, str]:
    """What a reload finds, when it counts."""
    *_, last = reload(one, "--wait", "--json").splitlines()
    return json.loads(last)["changes"]


def pid_of(one: Daemon, model: str) -> int | None:
    return next((w["pid"] for w in one.workers() if w["model"] == f"{model}:latest"), None)


def test_without_a_change_nothing_happens(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a")
        before = pid_of(one, "a"), one.gateways()
        assert "nothing has changed" in reload(one, "--wait")
        assert (pid_of(one, "a"), one.gateways()) == before


def test_only_the_model_whose_settings_changed_gets_a_new_worker(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a")
        one.chat("b")
        a, b = pid_of(one, "a"), pid_of(one, "b")
        write(one, "[model.a.args]\nseed = 7")
        told = reload(one, "--wait")
        assert 'model."a:latest".args  in a new worker' in told
        assert "replaced as soon as idle: a:latest" in told
        until(lambda: pid_of(one, "a") not in (None, a))
        assert one.chat("a").status_code == 200
        assert b"--seed\x007" in cmdline(pid_of(one, "a") or 0)
        assert pid_of(one, "b") == b


def test_a_setting_of_every_engine_is_no_change_for_a_model_that_has_its_own(home: Path) -> None:
    own = "[model.a.args]\nseed = 7\n"
    with daemon(home, config=fake_config(more=own)) as one:
        one.chat("a")
        one.chat("b")
        a, b = pid_of(one, "a"), pid_of(one, "b")
        (home / "vllamad.toml").write_text(
            fake_config(more=own).replace("[engine.env]", "[engine.args]\nseed = 9\n[engine.env]")
        )
        assert changes(one) == {"engine.args": "in a new worker"}
        until(lambda: pid_of(one, "b") not in (None, b))
        assert pid_of(one, "a") == a


def test_a_busy_model_is_replaced_when_its_answers_are_over(home: Path) -> None:
    hold = home / "hold"
    hold.touch()
    scenario = {"a": {"tokens": 40, "rate": 20, "hold": str(hold)}}
    with daemon(home, config=fake_config(scenarios=scenario)) as one:
        with one.streaming("a", options={"num_predict": 1000}) as answer:
            lines = answer.iter_lines()
            next(lines)
            before = pid_of(one, "a")
            text = (home / "vllamad.toml").read_text()
            (home / "vllamad.toml").write_text(text + "[model.a.args]\nseed = 7\n")
            assert "replaced as soon as idle: a:latest" in reload(one, "--wait")
            assert pid_of(one, "a") == before
            hold.unlink()
            *_, last = lines
        assert json.loads(last)["done"]
        assert one.chat("a", options={"num_predict": 1}).status_code == 200
        assert b"--seed\x007" in cmdline(pid_of(one, "a") or 0)


def test_what_the_gateways_are_told_counts_when_the_command_returns(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a")
        pid, before = pid_of(one, "a"), one.gateways()
        write(one, '[server]\ngateways = 2\nollama_version = "9.9.9"')
        reload(one, "--wait")
        answers = [httpx.get(f"{one.url}/api/version").json()["version"] for _ in range(8)]
        assert answers == ["9.9.9"] * 8, "on new connections; one that was kept may get one more"
        one.http.get("/api/version")
        assert one.http.get("/api/version").json()["version"] == "9.9.9"
        until(lambda: len(one.gateways()) == 2 and not set(before) & set(one.gateways()))
        assert pid_of(one, "a") == pid
        assert "(2 gateways)" in one.ctl("status")


def test_a_stream_goes_on_while_the_gateways_are_replaced(home: Path) -> None:
    hold = home / "hold"
    hold.touch()
    scenario = {"a": {"tokens": 60, "rate": 15, "hold": str(hold)}}
    config = fake_config(scenarios=scenario, more="[server]\ndrain_timeout = 0.5")
    with daemon(home, config=config) as one:
        with one.streaming("a", options={"num_predict": 1000}) as answer:
            lines = answer.iter_lines()
            next(lines)
            (old,) = one.gateways()
            changed = config.replace("drain_timeout = 0.5", "drain_timeout = 0.6")
            (home / "vllamad.toml").write_text(changed)
            reload(one, "--wait")
            assert old in one.gateways(), "it is still answering, longer than any drain limit"
            assert one.http.get("/api/version").status_code == 200
            hold.unlink()
            *_, last = lines
        assert json.loads(last)["done"]
        until(lambda: old not in one.gateways())


def test_a_file_with_faults_changes_nothing_and_names_each(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a")
        before = pid_of(one, "a"), one.gateways()
        write(one, "[server]\ngateways = 0\nlistn = 1")
        told = reload(one, "--wait", code=1)
        assert "vllamad.toml:2: server.gateways: must be a whole number from 1 to 64" in told
        assert 'vllamad.toml:3: server.listn: unknown key, did you mean "listen"?' in told
        assert "the previous configuration stays in force" in told
        *_, last = reload(one, "--json", code=1).splitlines()
        assert json.loads(last)["error"]["kind"] == "config"
        assert one.chat("a").status_code == 200
        assert (pid_of(one, "a"), one.gateways()) == before
        write(one, "")
        assert "nothing has changed" in reload(one, "--wait")


def test_what_takes_a_restart_is_named_and_not_done(home: Path) -> None:
    with daemon(home, config="[control]\ngroup = 'one'\n" + fake_config()) as one:
        (home / "vllamad.toml").write_text("[control]\ngroup = 'two'\n" + fake_config())
        for _ in range(2):
            assert changes(one) == {"control.group": "after a restart"}
        assert one.http.get("/api/version").status_code == 200


def test_a_hangup_reloads_and_a_fault_in_the_file_is_in_the_log(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        write(one, "[logging]\nlevel = 'debug'")
        assert one.process is not None
        one.process.send_signal(signal.SIGHUP)
        until(lambda: one.logged(LogEvent.CONFIG_RELOADED, changed="logging.level"))
        write(one, "[logging]\nlevel = 'loud'")
        one.process.send_signal(signal.SIGHUP)
        until(lambda: one.logged(LogEvent.CONFIG_REJECTED))
        assert one.http.get("/api/version").status_code == 200


def test_limits_of_the_scheduler_count_at_once_for_what_is_loaded(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a")
        write(one, "[scheduler]\nkeep_alive = 0.2")
        assert changes(one) == {"scheduler.keep_alive": "at once"}
        until(lambda: not one.workers())


def test_models_to_preload_are_loaded_and_one_no_longer_configured_is_let_go(
    home: Path,
) -> None:
    here = home / "made" / "a"
    with daemon(home, config=fake_config(more=f"[model.here]\npath = '{here}'")) as one:
        one.chat("here")
        write(one, "[scheduler]\npreload = ['b']")
        reload(one, "--wait")
        until(lambda: [w["model"] for w in one.workers() if w["state"] == "ready"] == ["b:latest"])


def test_reloads_under_load_lose_nobody(home: Path) -> None:
    with daemon(home, config=fake_config()) as one, ThreadPoolExecutor(4) as pool:
        one.chat("a")

        def ask(number: int) -> int:
            return one.chat("a" if number % 2 else "b").status_code

        answers = [pool.submit(ask, number) for number in range(60)]
        for seed in range(4):
            write(one, f"[server]\ndrain_timeout = {30 + seed}\n[model.a.args]\nseed = {seed}")
            reload(one, "--wait")
        assert {answer.result() for answer in answers} == {200}
