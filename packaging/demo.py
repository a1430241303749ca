"""A demonstration: prepare everything, start vllamad, ask a real model one question.

`make demo` runs it. PORT is where the API listens, MODEL asks a model from the hub instead of the
embedded one, CHECK=1 asserts the answer and its certainty, and ends. With
ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 AMX stays unused. It must not know how the daemon works: it
only runs the two programs and speaks HTTP.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from math import inf
from pathlib import Path
from typing import Any

from prepare import Stage, have_runtime, have_smollm2, home_paths, screen, stage

from vllamactl.render import DONE, FAILED, STEP
from vllamad.config.paths import path_problem
from vllamad.errors import HostProblem, VllamadError
from vllamad.host.machine import amx
from vllamad.host.machine.devices import cpu_name
from vllamad.host.processes.shim import descendants
from vllamad.runtimes.smollm2 import ANSWER, CONVERSATION, QUESTION

LONGEST = 64  # tokens of an answer
MARGIN = 2.0  # nats between each token of the answer and the next best one, at the least
START_LIMIT = 30.0  # seconds until the daemon is ready
STOP_LIMIT = 60.0  # seconds from TERM until the daemon is gone
ANSWER_LIMIT = 120.0  # seconds between two pieces of an answer
TICK = 0.2  # seconds between two checks that it is alive
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)

libc = ctypes.CDLL(None)


def main() -> int:
    port = int(os.environ.get("PORT") or 11434)
    check = os.environ.get("CHECK") == "1"
    paths = home_paths()
    refuse_busy(port)
    runtime = have_runtime(paths)
    model = os.environ.get("MODEL") or have_smollm2(paths, runtime)
    with run_directory(paths.run) as run, daemon(port, run, paths.logs / "demo.log"):
        if os.environ.get("MODEL"):
            order("pull", model)
        order("model", "load", model)
        answer, margin = ask(port, model)
        if check:
            return verdict(answer, margin, exact=not os.environ.get("MODEL"))
        return wait_for_the_end(what_next(port, model))


def refuse_busy(port: int) -> None:
    """Raise at once if the port is taken, before minutes of set-up."""
    with stage("port") as step, closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise HostProblem(
                f"cannot listen on 127.0.0.1:{port}: {(error.strerror or '').lower()}",
                hint=f"stop what listens there (an Ollama?), or: make demo PORT={port + 1}",
            ) from error
        step.result = f"127.0.0.1:{port} is free"


@contextmanager
def run_directory(usual: Path) -> Generator[Path]:
    """Yield the folder of the sockets: the usual one, unless its path is too long for a socket."""
    if path_problem("run", usual) is None:
        yield usual
        return
    with tempfile.TemporaryDirectory(prefix="vllamad-", dir="/tmp") as short:
        yield Path(short)


@contextmanager
def daemon(port: int, run: Path, log: Path) -> Generator[None]:
    """Run vllamad; leaving stops it and checks that no process or socket is left."""
    os.environ["VLLAMAD_SERVER_LISTEN"] = f"127.0.0.1:{port}"
    os.environ["VLLAMAD_PATHS_RUN"] = str(run)
    os.environ["VLLAMAD_CONTROL"] = str(run / "control.sock")
    notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notifications.settimeout(TICK)
    notifications.bind(f"\0vllamad-demo-{os.getpid()}")
    log.parent.mkdir(parents=True, exist_ok=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # processes it leaves behind become our children
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllamad"],
            env=os.environ | {"NOTIFY_SOCKET": f"@vllamad-demo-{os.getpid()}"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,  # Ctrl-C is for us: we end it in order
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
        )
    try:
        with stage("daemon") as step:
            with notifications:  # a full, unread socket would stall its writer
                wait_until_ready(process, notifications, step, log)
            step.result = f"vllamad listens on 127.0.0.1:{port}"
        yield
    except SystemExit as end:
        if end.code and process.poll() is None:
            print(tail(log), file=sys.stderr)
        raise
    finally:
        stop(process, run)


def wait_until_ready(
    process: subprocess.Popen[bytes], notifications: socket.socket, step: Stage, log: Path
) -> None:
    """Wait until vllamad says READY=1, as a service manager does. Raises HostProblem."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise HostProblem(f"cannot start: exit status {process.returncode}", hint=tail(log))
        try:
            lines = notifications.recv(4096).decode().splitlines()
        except TimeoutError:
            continue  # check that it is alive
        if "READY=1" in lines:
            return
        for line in lines:
            step.progress(line.removeprefix("STATUS="))
    raise HostProblem(f"cannot wait longer: not ready after {START_LIMIT:.0f} s", hint=tail(log))


def tail(log: Path, lines: int = 8) -> str:
    """Return the last lines of a log, and its path."""
    last = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join([*last, f"(whole log: {log})"])


def order(*words: str) -> None:
    """Run a command of vllamactl, which shows the progress. Ends the program if it fails."""
    done = subprocess.run([sys.executable, "-m", "vllamactl", *words], check=False)
    if done.returncode != 0:
        raise SystemExit(1)


def ask(port: int, model: str) -> tuple[str, float]:
    """Ask the one question behind three answered ones, and print the answer as it streams.

    Returns it, and by how many nats its least certain token led.
    """
    out = screen()
    print(f"{out.mark(STEP)} POST /api/chat: {QUESTION}\n\n  ", end="", flush=True)
    began = time.monotonic()
    answer, margin = "", inf
    try:
        for piece, lead in chat(port, model):
            print(piece, end="", flush=True)
            answer += piece
            margin = min(margin, lead)
    except (OSError, ValueError, VllamadError) as problem:
        print(f"\n\n{out.mark(FAILED)} question: {problem}", file=sys.stderr)
        raise SystemExit(1) from problem
    print(f"\n\n{out.mark(DONE)} question: answered  {time.monotonic() - began:.1f} s", flush=True)
    return answer, margin


def chat(port: int, model: str) -> Iterator[tuple[str, float]]:
    """The pieces of the answer, each with the lead of its least certain token, in nats.

    Raises HostProblem for an error, OSError for a lost connection.
    """
    body = {
        "model": model,
        "messages": CONVERSATION,
        "options": {"temperature": 0, "num_predict": LONGEST},
        "logprobs": True,
        "top_logprobs": 2,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_LIMIT)
    with closing(connection):
        connection.request("POST", "/api/chat", json.dumps(body))
        for line in connection.getresponse():
            piece = json.loads(line)
            if "error" in piece:
                raise HostProblem(str(piece["error"]))
            leads = map(lead, piece.get("logprobs") or [])
            yield piece["message"]["content"], min(leads, default=inf)


def lead(token: dict[str, Any]) -> float:
    """Return the lead of a token over the best other one, in nats; negative if it was behind."""
    others = [top["logprob"] for top in token["top_logprobs"] if top["token"] != token["token"]]
    return token["logprob"] - max(others, default=-inf)


def verdict(answer: str, margin: float, *, exact: bool) -> int:
    """Return 0 if the answer is right and certain. `exact`: it must equal the known answer."""
    right = answer.strip() == ANSWER if exact else "Paris" in answer
    certain = MARGIN <= margin < inf or not exact
    out = screen()
    print(f"{out.mark(DONE)} machine: {cpu_name()}; AMX: {amx.ask()}")
    outcome = "names Paris" if right else f"is not {ANSWER!r}" if exact else "does not name Paris"
    print(f"{out.mark(DONE if right else FAILED)} check: the answer {outcome}")
    print(
        f"{out.mark(DONE if certain else FAILED)} margin: each token led by {margin:.2f} nats or"
        f" more; the least is {MARGIN:.1f}",
        flush=True,
    )
    return 0 if right and certain else 1


def what_next(port: int, model: str) -> str:
    """Return commands to try while the daemon is up."""
    address = f"127.0.0.1:{port}"
    body = json.dumps({"model": model, "prompt": "Why is the sky blue?"})
    control = f"--socket {os.environ['VLLAMAD_CONTROL']}"
    return f"""
It is up. Try, in another terminal:

  curl http://{address}/api/generate -d '{body}'
  OLLAMA_HOST={address} ollama run {model}
  .venv/bin/vllamactl {control} ps
  .venv/bin/vllamactl {control} logs -f {model}

Ctrl-C stops it."""


def wait_for_the_end(advice: str) -> int:
    """Wait for Ctrl-C, and return 0, or until vllamad exits by itself, and return 1."""
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    print(advice, flush=True)
    end = signal.sigwait(ends)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
    if end == signal.SIGCHLD:
        print(f"{screen().mark(FAILED)} vllamad exited by itself", file=sys.stderr)
    return int(end == signal.SIGCHLD)


def stop(process: subprocess.Popen[bytes], run: Path) -> None:
    """Stop vllamad; raise HostProblem if a process or a socket of it is left."""
    print(flush=True)
    with stage("stop") as step:
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise HostProblem(
                f"cannot stop vllamad: alive {STOP_LIMIT:.0f} s after TERM"
            ) from error
        left = [f"process {pid}" for pid in children()]
        left += [str(path) for path in run.rglob("*") if path.is_socket()]
        if left:
            raise HostProblem("cannot stop vllamad cleanly: it left " + ", ".join(left))
        step.result = "no process and no socket is left"


def children() -> list[int]:
    """Return the processes below this one, adopted orphans included; reap the dead first."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return []
    return [process.pid for process in descendants(os.getpid())]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
