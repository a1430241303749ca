"""The main job, shown: have everything ready, start vllamad, ask a real model one question.

`make demo` runs it. PORT is where the API listens, MODEL asks a model from the hub instead of the
embedded one, CHECK=1 asserts the answer, and that it was no coin toss, and ends. With
ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 a CPU that has AMX does without. It must not know how the daemon
does its work: it only runs the two programs and speaks HTTP.
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
from vllamad.host import amx
from vllamad.host.devices import cpu_name
from vllamad.host.shim import descendants
from vllamad.runtimes.smollm2 import ANSWER, CONVERSATION, QUESTION

LONGEST = 64  # tokens of an answer
MARGIN = 2.0  # nats between each token of the answer and the next best one, at the least
START_LIMIT = 30.0  # seconds until the daemon is ready
STOP_LIMIT = 60.0  # seconds from TERM until the daemon is gone
ANSWER_LIMIT = 120.0  # seconds between two pieces of an answer
TICK = 0.2  # seconds between two looks at whether it lives
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
    """End at once where the API could not listen: minutes of set-up would be in vain."""
    with stage("port") as told, closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise HostProblem(
                f"cannot listen on 127.0.0.1:{port}: {(error.strerror or '').lower()}",
                hint=f"stop what listens there (an Ollama?), or: make demo PORT={port + 1}",
            ) from error
        told.result = f"127.0.0.1:{port} is free"


@contextmanager
def run_directory(usual: Path) -> Generator[Path]:
    """Where the sockets lie: the usual place, unless its path is too long for a socket."""
    if path_problem("run", usual) is None:
        yield usual
        return
    with tempfile.TemporaryDirectory(prefix="vllamad-", dir="/tmp") as short:
        yield Path(short)


@contextmanager
def daemon(port: int, run: Path, log: Path) -> Generator[None]:
    """Run vllamad; leaving ends it and makes sure that nothing of it is left."""
    os.environ["VLLAMAD_SERVER_LISTEN"] = f"127.0.0.1:{port}"
    os.environ["VLLAMAD_PATHS_RUN"] = str(run)
    os.environ["VLLAMAD_CONTROL"] = str(run / "control.sock")
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.settimeout(TICK)
    heard.bind(f"\0vllamad-demo-{os.getpid()}")
    log.parent.mkdir(parents=True, exist_ok=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # whatever vllamad leaves behind becomes our child
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
        with stage("daemon") as told:
            with heard:  # a full, unread socket would stall whoever writes to it
                wait_until_ready(process, heard, told, log)
            told.result = f"vllamad listens on 127.0.0.1:{port}"
        yield
    except SystemExit as end:
        if end.code and process.poll() is None:
            print(tail(log), file=sys.stderr)
        raise
    finally:
        stop(process, run)


def wait_until_ready(
    process: subprocess.Popen[bytes], heard: socket.socket, told: Stage, log: Path
) -> None:
    """Wait until vllamad says READY=1, as a service manager does. Raises HostProblem."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise HostProblem(f"cannot start: it ended with {process.returncode}", hint=tail(log))
        try:
            lines = heard.recv(4096).decode().splitlines()
        except TimeoutError:
            continue  # to see whether it is alive
        if "READY=1" in lines:
            return
        for line in lines:
            told.progress(line.removeprefix("STATUS="))
    raise HostProblem(f"cannot wait longer: not ready after {START_LIMIT:.0f} s", hint=tail(log))


def tail(log: Path, lines: int = 8) -> str:
    """The last lines of a log, and where all of it is."""
    last = log.read_text(errors="replace").splitlines()[-lines:]
    return "\n".join([*last, f"(all of it: {log})"])


def order(*words: str) -> None:
    """Give an order through vllamactl, which shows how it goes. Ends the program if refused."""
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
            said = json.loads(line)
            if "error" in said:
                raise HostProblem(str(said["error"]))
            leads = map(lead, said.get("logprobs") or [])
            yield said["message"]["content"], min(leads, default=inf)


def lead(token: dict[str, Any]) -> float:
    """How far a token was ahead of the best other one, in nats; negative where it was behind."""
    others = [one["logprob"] for one in token["top_logprobs"] if one["token"] != token["token"]]
    return token["logprob"] - max(others, default=-inf)


def verdict(answer: str, margin: float, *, exact: bool) -> int:
    """Whether the model knows; 0 if it does. The embedded one's whole answer is known: `exact`."""
    right = answer.strip() == ANSWER if exact else "Paris" in answer
    certain = MARGIN <= margin < inf or not exact
    out = screen()
    print(f"{out.mark(DONE)} machine: {cpu_name()}; AMX: {amx.ask()}")
    told = "names Paris" if right else f"is not {ANSWER!r}" if exact else "does not name Paris"
    print(f"{out.mark(DONE if right else FAILED)} check: the answer {told}")
    print(
        f"{out.mark(DONE if certain else FAILED)} margin: each token led by {margin:.2f} nats or"
        f" more; {MARGIN:.1f} are asked for",
        flush=True,
    )
    return 0 if right and certain else 1


def what_next(port: int, model: str) -> str:
    """Lines to try while the daemon is up."""
    address = f"127.0.0.1:{port}"
    body = json.dumps({"model": model, "prompt": "Why is the sky blue?"})
    control = f"--socket {os.environ['VLLAMAD_CONTROL']}"
    return f"""
It is up. Try, in another terminal:

  curl http://{address}/api/generate -d '{body}'
  OLLAMA_HOST={address} ollama run {model}
  .venv/bin/vllamactl {control} ps
  .venv/bin/vllamactl {control} logs -f {model}

Ctrl-C ends it."""


def wait_for_the_end(advice: str) -> int:
    """Wait for Ctrl-C, which is a good end, or until vllamad has ended by itself."""
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    print(advice, flush=True)
    end = signal.sigwait(ends)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
    if end == signal.SIGCHLD:
        print(f"{screen().mark(FAILED)} vllamad has ended by itself", file=sys.stderr)
    return int(end == signal.SIGCHLD)


def stop(process: subprocess.Popen[bytes], run: Path) -> None:
    """End vllamad and see that no process and no socket of it is left."""
    print(flush=True)
    with stage("stop") as told:
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise HostProblem(f"cannot end vllamad: alive {STOP_LIMIT:.0f} s after TERM") from error
        left = [f"process {pid}" for pid in children()]
        left += [str(path) for path in run.rglob("*") if path.is_socket()]
        if left:
            raise HostProblem("cannot end vllamad cleanly: it left " + ", ".join(left))
        told.result = "no process and no socket is left"


def children() -> list[int]:
    """Processes below us, orphans that were handed to us included; the dead are buried first."""
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
