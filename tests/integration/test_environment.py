"""Surroundings that no developer has: containers, orchestrators, an environment made for Ollama."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.container import contained, problem
from tests.support.daemon import PATIENCE, ROOT, Daemon, fake_config, fake_home, free_port, until
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.integration

# What Kubernetes adds for services that are called "vllamad", "vllamad-server" and "ollama".
SERVICES = {
    "VLLAMAD_PORT": "tcp://10.0.0.1:11434",
    "VLLAMAD_SERVER_PORT": "tcp://10.0.0.1:11434",
    "VLLAMAD_SERVER_PORT_11434_TCP_ADDR": "10.0.0.1",
    "VLLAMAD_SERVER_SERVICE_HOST": "10.0.0.1",
    "VLLAMAD_SERVER_SERVICE_PORT": "11434",
    "OLLAMA_PORT": "tcp://10.0.0.1:11434",
}


@contextmanager
def running(
    home: Path, environ: Mapping[str, str], before: Sequence[str] = ()
) -> Generator[Daemon]:
    """A daemon all of whose folders are in `home`; on leaving it has ended."""
    one = Daemon(home, free_port(), home / "run")
    try:
        one.start(environ, before=before)
        yield one
        assert one.stop() == 0
    finally:
        one.http.close()
        if one.process is not None and not one.process_ended():
            one.process.kill()
            one.process.wait()


@pytest.fixture
def home() -> Generator[Path]:
    """A short one: a socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as folder:
        made = fake_home(Path(folder), ["a"])
        (made / "vllamad.toml").write_text(fake_config())
        yield made


@pytest.mark.case("F7")
def test_any_uid_without_a_home_on_a_read_only_root_answers(home: Path) -> None:
    before = [*contained(home), "env", "-u", "HOME", "--chdir", str(home)]
    if why := problem(before):
        pytest.skip(why)
    with running(home, SERVICES, before) as one:
        assert one.chat("a").json()["message"]["content"] == "The capital of France is Paris."
        inside = [*before, sys.executable, "-m", "vllamactl", "status"]
        told = subprocess.run(
            inside, env=one.environment(), capture_output=True, text=True, timeout=PATIENCE
        )
        assert "1 gateway" in told.stdout, told.stderr
        assert not one.logged(LogEvent.CONFIG_IGNORED), (
            "what an orchestrator adds is told at debug only"
        )


@pytest.mark.case("F7")
def test_a_cache_that_may_hold_no_programs_is_told(home: Path) -> None:
    before = [*contained(home), "env", "-u", "HOME", "--chdir", str(home)]
    if why := problem(before):
        pytest.skip(why)
    with running(home, {"VLLAMAD_PATHS_CACHE": "/tmp/cache"}, before) as one:
        assert one.logged(LogEvent.FOLDER_NOEXEC, folder="/tmp/cache")


@pytest.mark.case("F7")
def test_the_command_needs_no_home_either(home: Path) -> None:
    before = [*contained(home), "env", "-u", "HOME"]
    if why := problem(before):
        pytest.skip(why)
    for words in (("vllamad", "--check-config"), ("vllamactl", "config", "--check")):
        done = subprocess.run(
            [*before, sys.executable, "-m", *words],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, ""), words


OLLAMAS = {
    "OLLAMA_FLASH_ATTENTION": "1",
    "OLLAMA_KV_CACHE_TYPE": "q8_0",
    "OLLAMA_CONTEXT_LENGTH": "1024",
    "OLLAMA_NUM_PARALLEL": "2",
    "OLLAMA_DEBUG": "1",
}


@pytest.mark.case("F8")
def test_an_environment_made_for_ollama_is_honoured_or_named_once(home: Path) -> None:
    store = home / "elsewhere"
    (store / "blobs").mkdir(parents=True)
    with running(home, OLLAMAS | {"OLLAMA_MODELS": str(store)}) as one:
        assert one.http.get("/api/tags").json()["models"] == [], "it looks in another folder"
        level = one.control("/v1/config")["logging"]["level"]
        text = one.text()
    assert (store / "vllamad").is_dir()
    assert level == "debug"
    for name in ("OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE"):
        assert text.count(f"setting={name} ") == 1
    assert "OLLAMA_CONTEXT_LENGTH" not in text


@pytest.mark.case("F8")
def test_the_context_of_every_model_is_ollama_s_default(home: Path) -> None:
    with running(home, OLLAMAS) as one:
        one.chat("a")
        (worker,) = one.workers()
        assert worker["context_length"] == 1024


@pytest.mark.case("F8")
def test_a_variable_without_effect_is_named_by_a_check(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vllamad", "--check-config"],
        cwd=home,
        env=Daemon(home, 1, home / "run").environment() | OLLAMAS,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == [
        "OLLAMA_FLASH_ATTENTION has no effect: vLLM chooses the attention that suits the model and"
        " the machine",
        "OLLAMA_KV_CACHE_TYPE has no effect: the cache is not quantised; `kv-cache-dtype` in"
        " engine.args is vLLM's for q8_0",
    ]


def group(number: signal.Signals) -> Callable[[Daemon], None]:
    """As Ctrl-C in a terminal does, and `kill -- -PGID`."""
    return lambda one: os.killpg(one.pid, number)


def each_process(one: Daemon) -> None:
    """As a service manager does that tells each process of a service to end."""
    for pid in (*one.gateways(), one.pid):
        os.kill(pid, signal.SIGTERM)


@pytest.mark.case("F13")
@pytest.mark.parametrize("stop", [group(signal.SIGTERM), group(signal.SIGINT), each_process])
def test_a_stop_of_many_processes_at_once_is_quiet(
    home: Path, stop: Callable[[Daemon], None]
) -> None:
    one = Daemon(home, free_port(), home / "run")
    try:
        one.start({"VLLAMAD_SERVER_GATEWAYS": "3"})
        assert one.chat("a").status_code == 200
        began = len(one.text())
        stop(one)
        assert one.process is not None
        assert one.process.wait(PATIENCE) == 0
        said = one.text()[began:]
        assert "stopped" in said
        assert not re.search(r"WARNING|ERROR|died|again_in", said), said
    finally:
        one.http.close()
        if not one.process_ended():
            os.killpg(one.pid, signal.SIGKILL)


@pytest.mark.case("F12")
def test_what_a_library_prints_at_start_is_no_word_of_a_gateway(home: Path) -> None:
    site = home / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("print('hello from a library', flush=True)\n")
    with running(home, {"PYTHONPATH": f"{site}:{ROOT}"}) as one:
        assert one.chat("a").status_code == 200
        (old,) = one.gateways()
        (home / "vllamad.toml").write_text(fake_config(more="[server]\nallowed_hosts = ['x.y']"))
        one.ctl("reload", "--wait", code=0)
        until(lambda: one.gateways() != [old])
        assert "hello from a library" in one.text()
