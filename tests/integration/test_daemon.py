"""The daemon as a whole, with the scripted engine: every part started, killed and asked."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from tests.support.daemon import (
    ROOT,
    Daemon,
    daemon,
    fake_config,
    is_alive,
    until,
)
from vllamad.host.log_events import LogEvent
from vllamad.host.processes.shim import Process

pytestmark = pytest.mark.integration


def lines_of(response: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(line) for line in response.iter_lines()]


def pids(one: Daemon) -> list[int]:
    return [process.pid for process in one.processes()]


def test_the_first_request_loads_the_model_and_is_answered(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        answer = one.chat("a").json()
        assert answer["message"]["content"] == "The capital of France is Paris."
        assert answer["done_reason"] == "stop"
        assert [model["name"] for model in one.http.get("/api/ps").json()["models"]] == ["a:latest"]


def test_a_stream_is_ndjson_that_ends_in_done(home: Path) -> None:
    with daemon(home, config=fake_config()) as one, one.streaming("a") as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = lines_of(response)
    text = "".join(str(line["message"]["content"]) for line in lines)  # type: ignore[index]
    assert text == "The capital of France is Paris."
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert all(isinstance(lines[-1][key], int) for key in ("total_duration", "eval_count"))


def test_stopping_leaves_no_process_no_socket_and_no_file(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a")
        before = [*pids(one), *one.gateways()]
        assert len(before) >= 3
        assert one.stop() == 0
        assert not [pid for pid in before if is_alive(pid)]
        left = [path for path in one.run.rglob("*") if path.name != "w"]
        assert left == []


def test_a_ctrl_c_is_as_good_as_a_term(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a")
        assert one.stop(signal.SIGINT) == 0


def test_the_second_model_evicts_the_first_and_nothing_of_it_is_left(home: Path) -> None:
    more = "[scheduler]\nmax_loaded_models = 1"
    with daemon(home, config=fake_config(more=more)) as one:
        one.chat("a")
        first = pids(one)
        one.chat("b")
        assert not [pid for pid in first if is_alive(pid)]
        assert [worker["model"] for worker in one.workers()] == ["b:latest"]


def test_an_idle_model_goes_when_its_keep_alive_is_over(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a", keep_alive=0.2)
        processes = pids(one)
        until(lambda: not one.workers())
        assert not [pid for pid in processes if is_alive(pid)]


def test_an_empty_prompt_loads_and_with_keep_alive_nought_unloads(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        loaded = one.http.post("/api/generate", json={"model": "a"}).json()
        assert loaded["done_reason"] == "load"
        assert [worker["state"] for worker in one.workers()] == ["ready"]
        unloaded = one.http.post("/api/generate", json={"model": "a", "keep_alive": 0}).json()
        assert unloaded["done_reason"] == "unload"
        until(lambda: not one.workers())


def cores(one: Daemon) -> list[Process]:
    return [process for process in one.processes() if process.comm.startswith("VLLM::")]


def test_the_death_of_the_core_ends_the_stream_with_an_error_and_the_next_is_answered(
    home: Path,
) -> None:
    scenario = {"children": ["VLLM::EngineCor"], "tokens": 10_000, "rate": 50}
    config = fake_config(scenarios={"a": scenario})
    with daemon(home, config=config) as one, one.streaming("a") as response:
        stream = response.iter_lines()
        next(stream)
        until(lambda: cores(one))  # it takes its name a little after its birth
        [core] = cores(one)
        old = pids(one)
        os.kill(core.pid, signal.SIGKILL)
        *_, last = stream
        # The supervisor's word or the engine's own, whichever is first.
        assert "core" in json.loads(last)["error"].lower()
        until(lambda: not [pid for pid in old if is_alive(pid)])
        answer = one.chat("a", options={"num_predict": 3}).json()
        assert answer["done"] is True
        assert one.workers()[0]["restarts"] == 1


def test_a_stream_cut_by_the_engine_ends_with_an_error_line(home: Path) -> None:
    config = fake_config(scenarios={"a": {"cut_after": 3}})
    with daemon(home, config=config) as one, one.streaming("a") as response:
        lines = lines_of(response)
        assert "error" in lines[-1]
        assert not any(line.get("done") for line in lines)


def test_an_engine_that_cannot_start_says_why(home: Path) -> None:
    scenario = {"exit": 1, "log": ["ValueError: Free memory on device is less than desired"]}
    more = "[worker]\nmax_failures = 1"
    with daemon(home, config=fake_config(scenarios={"a": scenario}, more=more)) as one:
        refused = one.chat("a")
        assert refused.status_code == 500
        assert "Free memory on device is less than desired" in refused.json()["error"]
        again = one.chat("a")
        assert again.json() == refused.json(), "and at once, without another start"
        assert "Free memory" in one.ctl("ps", "--json")
        assert one.chat("b").status_code == 200, "a failing model does not stop another one"


def test_an_engine_that_ignores_term_and_leaves_an_orphan_is_emptied_all_the_same(
    home: Path,
) -> None:
    scenario = {"ignore_term": True, "orphan": True}
    more = "[worker]\nstop_timeout = 0.5"
    with daemon(home, config=fake_config(scenarios={"a": scenario}, more=more)) as one:
        one.chat("a")
        old = pids(one)
        one.ctl("model", "unload", "a")
        assert not [pid for pid in old if is_alive(pid)]


def test_a_killed_supervisor_takes_every_worker_and_gateway_along(home: Path) -> None:
    scenario = {"children": ["VLLM::EngineCor", "VLLM::Worker"], "orphan": True}
    with daemon(home, config=fake_config(scenarios={"a": scenario})) as one:
        one.chat("a")
        everything = [*pids(one), *one.gateways()]
        one.stop(signal.SIGKILL)
        assert until(lambda: not [pid for pid in everything if is_alive(pid)]) < 10


def test_a_daemon_starts_over_what_a_killed_one_left(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a")
        one.stop(signal.SIGKILL)
        until(lambda: one.process_ended())
        one.log.write_text("")
        one.start({})
        assert one.chat("a").status_code == 200


def test_a_killed_gateway_is_replaced_and_its_leases_are_free(home: Path) -> None:
    scenario = {"tokens": 100_000, "rate": 20}
    with daemon(home, config=fake_config(scenarios={"a": scenario})) as one:
        with one.streaming("a") as response:
            stream = response.iter_lines()
            next(stream)
            workers = pids(one)
            assert one.workers()[0]["leases"] == 1
            [gateway] = one.gateways()
            os.kill(gateway, signal.SIGKILL)
            until(lambda: one.workers()[0]["leases"] == 0)
        assert pids(one) == workers, "workers are untouched"
        until(lambda: one.gateways() not in ([], [gateway]))
        assert one.http.get("/api/version").status_code == 200


def test_a_client_that_leaves_frees_its_lease_and_the_engine_stops_working(home: Path) -> None:
    scenario = {"tokens": 100_000, "rate": 20}
    with daemon(home, config=fake_config(scenarios={"a": scenario})) as one:
        with one.streaming("a") as response:
            stream = response.iter_lines()
            next(stream)
            assert one.workers()[0]["leases"] == 1
        until(lambda: one.workers()[0]["leases"] == 0, limit=5)


def test_concurrent_first_requests_share_one_load(home: Path) -> None:
    with daemon(home, config=fake_config(scenarios={"a": {"load": 1}})) as one:
        codes: list[int] = []
        threads = [
            threading.Thread(target=lambda: codes.append(one.chat("a").status_code))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert codes == [200] * 20
        assert len(one.logged(LogEvent.WORKER_STARTING)) == 1


@pytest.mark.vector(32)
def test_a_full_queue_answers_busy_in_ollamas_words(home: Path) -> None:
    more = "[scheduler]\nmax_queue = 1"
    with daemon(home, config=fake_config(scenarios={"a": {"load": 3}}, more=more)) as one:
        waiting = [threading.Thread(target=one.chat, args=("a",)) for _ in range(2)]
        for thread in waiting:
            thread.start()
        until(lambda: one.workers() and one.workers()[0]["waiting"] == 2)
        busy = one.chat("a")
        for thread in waiting:
            thread.join()
        assert busy.status_code == 503
        assert busy.json() == {
            "error": "server busy, please try again.  maximum pending requests exceeded"
        }


def test_a_stop_lets_running_streams_finish(home: Path) -> None:
    hold = home / "hold"
    hold.touch()
    scenario = {"tokens": 40, "rate": 20, "hold": str(hold)}
    with daemon(home, config=fake_config(scenarios={"a": scenario})) as one:
        with one.streaming("a") as response:
            stream = response.iter_lines()
            next(stream)
            assert one.process is not None
            one.process.terminate()
            until(lambda: one.logged(LogEvent.GATEWAY_STOPPING))
            hold.unlink()
            *_, last = stream
        assert json.loads(last)["done"] is True
        assert one.process.wait(30) == 0


def test_a_flood_of_log_lines_neither_blocks_nor_fills_the_disk(home: Path) -> None:
    more = "[logging]\nmax_bytes = 100000\nkeep = 2"
    config = fake_config(scenarios={"a": {"flood": 3}}, more=more)
    with daemon(home, config=config) as one:
        assert one.chat("a").status_code == 200
        logs = list((home / "logs").iterdir())
        assert len(logs) <= 3
        assert sum(path.stat().st_size for path in logs) < 20_000_000


def test_prompts_and_answers_are_never_logged(home: Path) -> None:
    with daemon(home, config=fake_config(), words=["--log-level", "debug"]) as one:
        one.chat("a", "a very secret question")
        one.stop()
        assert "secret" not in one.text()
        assert "Paris" not in one.text()
        assert re.search(
            r"request .*model=a:latest .*status=200 .*completion_tokens=\d", one.text()
        )


def test_two_gateways_answer_on_one_address(home: Path) -> None:
    with daemon(home, config=fake_config(more="[server]\ngateways = 2")) as one:
        until(lambda: len(one.gateways()) == 2)
        assert one.chat("a").status_code == 200


def test_a_busy_port_is_named_before_any_engine_starts(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        done = subprocess.run(
            [sys.executable, "-m", "vllamad", "--listen", f"127.0.0.1:{one.port}"],
            cwd=home,
            env=one.environment()
            | {
                "VLLAMAD_PATHS_RUN": str(one.run / "2"),
                "VLLAMAD_PATHS_CONTROL": str(one.run / "2" / "c"),
            },
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{one.port}: Address already in use" in done.stderr
        assert "Traceback" not in done.stderr
        assert one.chat("a").status_code == 200, "the other one is untouched"


def test_check_config_names_every_fault_and_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[server]\nlisten = "127.0.0.1:99999"\n[schedular]\nkeep_alive = "5 m"\n')
    done = subprocess.run(
        [sys.executable, "-m", "vllamad", "--check-config", "--config", str(file)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 1
    assert f"{file}:2: server.listen: " in done.stderr
    assert f"{file}:3: schedular: " in done.stderr
    assert "scheduler" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_runtime_the_api_answers_and_a_load_says_what_to_do(home: Path) -> None:
    (home / "state" / "runtimes" / "current").unlink()
    with daemon(home, config="[worker]\nmax_failures = 1\n") as one:
        assert one.http.get("/api/tags").json()["models"]
        refused = one.chat("a")
        assert refused.status_code == 500
        assert "no runtime is installed" in refused.json()["error"]


def test_readiness_and_stopping_are_told_to_the_service_manager(home: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(home / "n")
        manager.bind(address)
        manager.settimeout(20)
        environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "600000"}
        with daemon(home, config=fake_config(), environ=environ) as one:
            heard: list[str] = []
            while "WATCHDOG=1" not in heard:
                heard += manager.recv(4096).decode().splitlines()
            assert "READY=1" in heard
            assert heard.index("READY=1") < heard.index("WATCHDOG=1")
            assert any(line.startswith("STATUS=") for line in heard)
            one.stop()
            manager.settimeout(1)
            rest: list[str] = []
            while "STOPPING=1" not in rest:
                rest += manager.recv(4096).decode().splitlines()


def test_an_unknown_option_is_told_by_the_version_that_does_not_know_it(home: Path) -> None:
    facts = home / "state" / "runtimes" / "fake" / "runtime.json"
    known = json.loads(facts.read_text()) | {"flags": ["--max-num-seqs"]}
    facts.write_text(json.dumps(known))
    config = fake_config(more='[worker]\nmax_failures = 1\n[model."a".args]\nmax-num-sequences = 3')
    with daemon(home, config=config) as one:
        refused = one.chat("a").json()["error"]
        assert "does not know --max-num-sequences" in refused
