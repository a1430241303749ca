"""The four ways to an engine, and the processes on them: a whole vllamad beside a bare relay."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.checkpoints import SMOLLM2, write_checkpoint
from tests.support.daemon import Daemon, cmdline, daemon, fake_config, fake_home, free_port
from vllamad.core.model_name import parse_model_name
from vllamad.models.store import model_store

RATE = 78.0  # tokens a second a stream: 256 streams make 20,000
FLAT, PACED = "flat:latest", "paced:latest"
SCENARIOS = {
    FLAT: {"stamped": True, "text": "x", "tokens": 1 << 30},
    PACED: {"stamped": True, "text": "x", "tokens": 1 << 30, "rate": RATE},
}
ENGINE, BARE = "engine", "bare relay"
SIDES = (ENGINE, BARE, "/api/chat", "/v1/chat/completions")

# Room for endless answers, in little memory: its cache takes 4 bytes a token.
_CHECKPOINT = SMOLLM2 | {
    "num_hidden_layers": 1,
    "num_attention_heads": 64,
    "num_key_value_heads": 1,
    "hidden_size": 64,
    "max_position_embeddings": 1 << 22,
}


@dataclass(frozen=True, slots=True)
class Way:
    """Where clients go; `relay` is the process between them and the engine."""

    address: str  # a port on loopback, or the path of a Unix socket
    route: str
    relay: int | None = None
    supervisor: int | None = None


class Bench:
    """What stands, for as long as the measurements take."""

    def __init__(self, vllamad: Daemon, endpoints: dict[str, str], pumps: dict[str, Way]) -> None:
        self.supervisor = vllamad.pid
        (self.gateway,) = vllamad.gateways()
        self._port = str(vllamad.port)
        self._endpoints = endpoints
        self._pumps = pumps

    def way(self, side: str, model: str) -> Way:
        if side == ENGINE:
            return Way(self._endpoints[model], "/v1/chat/completions")
        if side == BARE:
            return self._pumps[model]
        return Way(self._port, side, self.gateway, self.supervisor)


@contextmanager
def bench() -> Generator[Bench]:
    """Start everything, and load both models."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        home = fake_home(Path(folder), models=())
        for model in SCENARIOS:
            checkpoint = write_checkpoint(
                home / "made" / model,
                _CHECKPOINT,
                tokenizer_config_json={"chat_template": "x"},
            )
            model_store.add_model(
                home / "state" / "models", parse_model_name(model), checkpoint, source="bench"
            )
        lengths = (
            f"[model.{json.dumps(model)}]\ncontext_length = {1 << 22}" for model in SCENARIOS
        )
        config = fake_config(scenarios=SCENARIOS, more="\n".join(lengths))
        vllamad = stack.enter_context(daemon(home, config=config))
        for model in SCENARIOS:
            vllamad.chat(model, options={"num_predict": 1}).raise_for_status()
        endpoints = {model: endpoint(vllamad, model) for model in SCENARIOS}
        pumps = {model: stack.enter_context(pump(path)) for model, path in endpoints.items()}
        yield Bench(vllamad, endpoints, pumps)


def endpoint(vllamad: Daemon, model: str) -> str:
    """The socket of the engine that serves `model`, as its command line has it."""
    for process in vllamad.processes():
        words = cmdline(process.pid).decode().split("\0")
        if model in words and "--uds" in words:
            return words[words.index("--uds") + 1]
    raise SystemExit(f"no engine serves {model}")


@contextmanager
def pump(endpoint: str) -> Generator[Way]:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.pump", endpoint, str(port)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it listens
            yield Way(str(port), "/v1/chat/completions", process.pid)
        finally:
            process.kill()


def spent(pid: int | None) -> float:
    """CPU seconds of all threads of a process that are, and were."""
    # What clock_getcpuclockid(3) makes of a process: finer than the ticks of /proc/PID/stat.
    return time.clock_gettime((~pid << 3) | 2) if pid else 0.0


def memory(pid: int, what: str) -> float:
    """MiB of a process: its VmRSS now, or its VmHWM at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(what))
    return int(line.split()[1]) / 1024
