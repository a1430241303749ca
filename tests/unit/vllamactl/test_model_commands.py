"""Promises of list, show, pull and of model load, unload and restart."""

from __future__ import annotations

import re

import pytest
from msgspec import structs

from tests.fakes.control_daemon import ControlDaemon
from tests.support.ctl_runs import RunCtl
from vllamad.errors import NotAllowed
from vllamad.protocol.control import ModelDetail, ModelInfo, ModelMemory, Models, Progress
from vllamad.protocol.problem import Problem

SMOL = ModelInfo(
    name="smollm2:135m",
    digest="sha256:0123456789abcdef",
    size=271_000_000,
    modified_at="2020-01-01T00:00:00.123456789Z",
    path="/m/smol",
    family="llama",
    parameter_size="134.52M",
    quantization="BF16",
    context_length=8192,
    capabilities=["completion"],
)
DETAIL = ModelDetail(
    info=SMOL,
    path="/m/smol",
    parameters='stop    "<|im_end|>"\ntemperature 0.2\n',
    license="Apache License\n   Version 2.0, January 2004\nmore\n",
)


def without_times(text: str) -> str:
    return re.sub(r"\d+\.\ds", "0.0s", text)


def test_list_is_a_table(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/models", Models(models=[SMOL]))
    out = re.sub(r"\d+ years ago", "6 years ago", run("list").out)
    assert out == (
        "NAME            ID              SIZE      MODIFIED\n"
        "smollm2:135m    0123456789ab    271 MB    6 years ago\n"
    )


def test_list_as_json_keeps_the_known_shape(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/models", Models(models=[SMOL, SMOL]))
    answer = run("ls", "--json").json()
    assert isinstance(answer, dict)
    assert answer["total_size_mb"] == 542.0
    expected = {"name": "smollm2:135m", "size_mb": 271.0, "path": "/m/smol", "size": 271_000_000}
    assert expected.items() <= answer["models"][0].items()


def test_quiet_list_is_names(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/models", Models(models=[SMOL]))
    assert run("list", "-q").out == "smollm2:135m\n"


def test_show_is_blocks(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("GET", "/v1/models/smollm2:135m", DETAIL)
    assert run("show", "smollm2:135m").out == (
        "  Model\n"
        "    architecture      llama\n"
        "    parameters        134.52M\n"
        "    context length    8192\n"
        "    quantization      BF16\n"
        "    size              271 MB\n"
        "    id                0123456789ab\n"
        "    path              /m/smol\n"
        "\n"
        "  Capabilities\n"
        "    completion\n"
        "\n"
        "  Parameters\n"
        '    stop           "<|im_end|>"\n'
        "    temperature    0.2\n"
        "\n"
        "  License\n"
        "    Apache License\n"
        "    Version 2.0, January 2004\n"
    )


def test_show_says_how_a_cpu_computes_it(daemon: ControlDaemon, run: RunCtl) -> None:
    memory = ModelMemory(
        weights=538_000_000,
        context_length=8192,
        planned=4_000_000_000,
        dtype="float32",
        dtype_why="2.3 x as fast as bfloat16 here",
        threads=2,
    )
    daemon.says("GET", "/v1/models/smollm2:135m", structs.replace(DETAIL, memory=memory))
    lines = [line.split(maxsplit=2) for line in run("show", "smollm2:135m").out.splitlines()]
    assert ["computed", "in", "float32: 2.3 x as fast as bfloat16 here"] in lines
    assert ["threads", "2"] in lines
    answer = run("show", "--json", "smollm2:135m").json()
    assert isinstance(answer, dict)
    assert (answer["memory"]["dtype"], answer["memory"]["threads"]) == ("float32", 2)


@pytest.mark.parametrize(
    ("verb", "title", "end"),
    [
        ("load", "loading", "loaded m in 0.0s"),
        ("unload", "unloading", "unloaded m in 0.0s"),
        ("restart", "restarting", "restarted m in 0.0s"),
    ],
)
def test_an_order_is_watched_to_its_end(
    daemon: ControlDaemon, run: RunCtl, verb: str, title: str, end: str
) -> None:
    steps = [Progress(status="starting"), Progress(status="starting"), Progress(done=True)]
    daemon.says("POST", f"/v1/models/m/{verb}", steps)
    ran = run("model", verb, "m")
    assert (ran.code, without_times(ran.out)) == (0, f"✓ {end}\n")
    assert without_times(ran.err) == f"→ {title} m\n→ {title} m: starting\n"


def test_a_model_is_removed(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/models/m/delete", [Progress(status="removed", done=True)])
    assert without_times(run("rm", "m").out) == "✓ removed m in 0.0s\n"


def test_a_model_is_copied(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/models/m/copy", [Progress(status="copied", done=True)])
    assert without_times(run("cp", "m", "other").out) == "✓ copied m in 0.0s\n"
    assert daemon.asked[0].body == b'{"destination":"other"}'


def test_an_order_that_changed_nothing_says_so(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/models/m/load", [Progress(status="already loaded", done=True)])
    assert without_times(run("model", "load", "m").out) == "✓ loaded m in 0.0s: already loaded\n"


def test_a_quiet_order_says_nothing(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/models/m/load", [Progress(status="starting"), Progress(done=True)])
    ran = run("model", "load", "-q", "m")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_an_order_as_json_is_events(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/models/m/load", [Progress(status="starting"), Progress(done=True)])
    first, last = run("--json", "model", "load", "m").events()
    assert (first["event"], first["status"]) == ("progress", "starting")
    assert (last["event"], last["model"], last["status"]) == ("done", "m", "loaded")


def test_a_name_with_a_slash_arrives_whole(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/models/hf.co/Qwen/Q?:x/load", [Progress(done=True)])
    assert run("model", "load", "hf.co/Qwen/Q?:x").code == 0
    assert daemon.asked[0].path == ("v1", "models", "hf.co/Qwen/Q?:x", "load")


def test_a_failure_halfway_is_an_error(daemon: ControlDaemon, run: RunCtl) -> None:
    problem = Problem(kind="load-failed", message="cannot load m: no memory", hint="unload another")
    daemon.says("POST", "/v1/models/m/load", [Progress(status="starting"), Progress(error=problem)])
    ran = run("model", "load", "m")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.endswith("✗ cannot load m: no memory\n  unload another\n")


def test_a_failure_halfway_is_the_last_json_event(daemon: ControlDaemon, run: RunCtl) -> None:
    problem = Problem(kind="load-failed", message="no memory", hint="unload another")
    daemon.says("POST", "/v1/models/m/load", [Progress(status="starting"), Progress(error=problem)])
    ran = run("model", "load", "m", "--json")
    assert ran.code == 1
    assert ran.events()[-1] == {
        "error": {"kind": "load-failed", "message": "no memory", "hint": "unload another"}
    }
    assert ran.err == ""


@pytest.mark.parametrize("steps", [[], [Progress(status="starting")]])
def test_an_answer_without_an_end_is_no_success(
    daemon: ControlDaemon, run: RunCtl, steps: list[Progress]
) -> None:
    daemon.says("POST", "/v1/models/m/load", list(steps))
    ran = run("model", "load", "m")
    assert ran.code == 3
    assert "cannot follow the order to its end" in ran.err


def test_a_line_that_is_no_json_is_an_error(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/models/m/load", [b"<html>\n"])
    ran = run("model", "load", "m")
    assert ran.code == 1
    assert "cannot read the response of vllamad" in ran.err


def test_who_may_not_gets_exit_code_4(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/models/m/load", NotAllowed("you may not load models"))
    ran = run("model", "load", "m")
    assert (ran.code, ran.err.splitlines()[-1]) == (4, "✗ you may not load models")


def test_a_pull_shows_every_tenth(daemon: ControlDaemon, run: RunCtl) -> None:
    steps = [
        Progress(status="downloading", completed=done, total=200_000_000)
        for done in (0, 10_000_000, 19_000_000, 20_000_000, 200_000_000)
    ]
    daemon.says("POST", "/v1/models/pull", [*steps, Progress(status="success", done=True)])
    daemon.says("GET", "/v1/models/smol", DETAIL)
    ran = run("pull", "smol")
    assert without_times(ran.out) == "✓ pulled smol (271 MB) in 0.0s\n"
    assert without_times(ran.err) == (
        "→ pulling smol\n"
        "→ pulling smol: downloading  0% of 200 MB\n"
        "→ pulling smol: downloading  10% of 200 MB\n"
        "→ pulling smol: downloading  100% of 200 MB\n"
    )
    assert daemon.asked[0].body == b'{"model":"smol","detach":false}'


def test_a_pull_as_json_ends_in_the_known_shape(daemon: ControlDaemon, run: RunCtl) -> None:
    daemon.says("POST", "/v1/models/pull", [Progress(status="success", done=True)])
    daemon.says("GET", "/v1/models/smol", DETAIL)
    (last,) = run("pull", "smol", "--json").events()
    expected = {"event": "done", "model": "smollm2:135m", "cached": True, "path": "/m/smol"}
    assert expected.items() <= last.items()


@pytest.mark.parametrize("told", [[], [Progress(digest="sha256:a", completed=9, total=9)] * 2])
def test_a_pull_of_what_is_here_says_so(
    daemon: ControlDaemon, run: RunCtl, told: list[Progress]
) -> None:
    daemon.says("POST", "/v1/models/pull", [*told, Progress(status="success", done=True)])
    daemon.says("GET", "/v1/models/smol", DETAIL)
    assert run("pull", "smol").out == "✓ smol is already installed\n"
