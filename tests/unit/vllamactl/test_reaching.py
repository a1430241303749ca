"""Promises of finding the daemon, of exit codes, and of the command as a process of its own."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.fakes.control_daemon import ControlDaemon, serving_control
from tests.support.ctl_runs import RunCtl
from vllamactl.__main__ import main
from vllamactl.control_client import sockets
from vllamad.http.control_server import Send, StreamResponse
from vllamad.protocol.control import Progress, Workers

COMMAND = [sys.executable, "-m", "vllamactl"]
SYSTEM = Path("/run/vllamad-control.sock")


def test_a_named_socket_is_the_only_one() -> None:
    assert sockets("/a", {"VLLAMAD_CONTROL": "/b"}) == (Path("/a"),)
    assert sockets(None, {"VLLAMAD_CONTROL": "/b", "VLLAMAD_HOME": "/c"}) == (Path("/b"),)
    assert sockets(None, {"VLLAMAD_HOME": "/c"}) == (Path("/c/run/control.sock"),)


def test_without_a_name_the_system_socket_is_among_those_tried() -> None:
    assert SYSTEM in sockets(None, {"XDG_RUNTIME_DIR": "/run/user/5"})


def test_the_first_socket_that_answers_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: RunCtl
) -> None:
    home = tmp_path / "h"
    daemon = ControlDaemon(home / "run" / "control.sock")
    daemon.says("GET", "/v1/workers", Workers(workers=[]))
    monkeypatch.delenv("VLLAMAD_CONTROL", raising=False)
    monkeypatch.setenv("VLLAMAD_HOME", str(home))
    with serving_control(daemon):
        assert run("ps").code == 0


@pytest.mark.parametrize("stale", [False, True])
def test_no_daemon_is_exit_code_3_with_advice(tmp_path: Path, run: RunCtl, stale: bool) -> None:
    path = tmp_path / "s"
    if stale:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    ran = run("status", "--socket", str(path))
    why = "connection refused" if stale else "no such file or directory"
    assert ran.code == 3
    assert ran.err == (
        "✗ cannot reach vllamad\n"
        f"  tried {path}: {why}\n"
        "  start it with `systemctl start vllamad`, or with `make demo` in a checkout; "
        "--socket PATH names another socket\n"
    )


def test_no_daemon_as_json(tmp_path: Path, run: RunCtl) -> None:
    ran = run("--json", "status", "--socket", str(tmp_path / "s"))
    assert (ran.code, ran.err) == (3, "")
    (event,) = ran.events()
    assert isinstance(error := event["error"], dict)
    assert error["kind"] == "not-reachable"


@contextmanager
def as_nobody() -> Generator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_socket_of_others_is_exit_code_4(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.path.chmod(0)
    with as_nobody():
        ran = run("ps")
    assert ran.code == 4
    assert ran.err.startswith(f"✗ cannot connect to {daemon.path}: permission denied\n  join the")


def test_a_daemon_that_says_no_http_is_not_reachable(tmp_path: Path, run: RunCtl) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(10)
        child = subprocess.Popen(
            [*COMMAND, "--socket", str(path), "ps"], stderr=subprocess.PIPE, text=True
        )
        with listening.accept()[0] as peer:
            peer.recv(65536)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 3
    assert err.startswith("✗ cannot complete the request to vllamad: ")


def test_a_command_line_asks_for_nothing_that_may_be_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["run"])
    assert capsys.readouterr().err.endswith("the following arguments are required: MODEL\n")


@pytest.mark.parametrize("argv", [(), ("nonsense",), ("logs", "-n", "-1", "m"), ("model",)])
def test_a_wrong_command_line_is_exit_code_2(argv: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2


def test_help_documents_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    assert "3  the daemon is not reachable" in capsys.readouterr().out


def test_the_command_starts_without_the_daemons_libraries() -> None:
    """A command line that imports trio or quart takes half a second to say anything."""
    code = "import sys, vllamactl.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    heavy = {"trio", "httpx", "quart", "hypercorn", "tomlkit", "huggingface_hub", "asyncio"}
    assert not heavy & set(loaded.split())


@contextmanager
def begun(*words: str) -> Generator[subprocess.Popen[str]]:
    """The command while it runs; on leaving it has ended, however the test went."""
    child = subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def test_ctrl_c_is_silent_and_130(daemon: ControlDaemon) -> None:
    # A log that never ends: its first line shows that the command is waiting for more.
    async def produce(send: Send) -> None:
        await send(b"first\n")
        await trio.sleep_forever()

    daemon.says("GET", "/v1/models/m/logs", StreamResponse(produce=produce))
    with begun("logs", "-f", "m") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "first\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "", "")


def test_a_reader_that_leaves_is_no_error(daemon: ControlDaemon) -> None:
    daemon.says("GET", "/v1/models/m/logs", b"line\n" * 100_000)
    with begun("logs", "-n", "100000", "m") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(60) == 0


def on_a_terminal(
    argv: list[str], environ: dict[str, str], watch: Callable[[bytes], object] = len
) -> str:
    """Everything a command shows on a terminal; `watch` sees it while it grows."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(argv, stdout=theirs, stderr=theirs, env=os.environ | environ)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 65536):
            shown += piece
            watch(shown)
    except OSError:  # how a terminal says that the last writer has left
        pass
    os.close(ours)
    assert child.wait(60) == 0
    return shown.decode()


def test_a_terminal_gets_a_spinner_that_goes_away(daemon: ControlDaemon) -> None:
    drawn = threading.Event()

    def watch(shown: bytes) -> None:
        if "⠹ loading m: weights".encode() in shown:
            drawn.set()

    async def produce(send: Send) -> None:
        await send(b'{"status":"weights"}\n')
        assert await trio.to_thread.run_sync(drawn.wait, 10)
        await send(b'{"done":true}\n')

    daemon.says("POST", "/v1/models/m/load", StreamResponse(produce=produce))
    environ = {"TERM": "xterm", "NO_COLOR": ""}
    shown = on_a_terminal([*COMMAND, "model", "load", "m"], environ, watch)
    assert "\x1b[1;32m✓\x1b[0m loaded m in" in shown.rpartition("\x1b[2K")[2]


def test_no_color_is_obeyed(daemon: ControlDaemon) -> None:
    daemon.says("POST", "/v1/models/m/load", [Progress(done=True)])
    shown = on_a_terminal([*COMMAND, "model", "load", "m"], {"TERM": "xterm", "NO_COLOR": "1"})
    assert "✓ loaded m in" in shown
    assert "\x1b[1" not in shown


def test_a_locale_without_our_symbols_is_no_crash(tmp_path: Path) -> None:
    child = subprocess.run(
        [*COMMAND, "ps", "--socket", str(tmp_path / "none")],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert child.returncode == 3
    assert child.stderr.startswith(b"? cannot reach vllamad\n")


def test_version_is_fast() -> None:
    """In seconds of processor time, which a busy machine stretches less than the clock's."""

    def spent() -> float:
        times = os.times()
        return times.children_user + times.children_system

    def once() -> float:
        before = spent()
        subprocess.run([*COMMAND, "version"], check=True, capture_output=True)
        return spent() - before

    assert min(once() for _ in range(3)) < 0.3  # 0.1 on a quiet machine
