"""`vllamactl search`: what is known, without a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.ctl_runs import RunCtl


@pytest.fixture(autouse=True)
def nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No daemon, no hub, and nothing of the operator's."""
    monkeypatch.setenv("VLLAMAD_CONTROL", str(tmp_path / "none.sock"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_what_is_found_is_a_table(run: RunCtl) -> None:
    lines = run("search", "smollm2", "135M").out.splitlines()
    assert lines[0].split() == ["NAME", "SIZE", "CONTEXT", "VARIANTS", "LICENSE", "ABOUT"]
    assert lines[1].split()[:6] == ["smollm2:135m", "269", "MB", "8192", "bf16", "apache-2.0"]
    assert len(lines) == 2


def test_a_gated_model_says_so(run: RunCtl) -> None:
    (line,) = run("search", "llama3.3:70b").out.splitlines()[1:]
    assert "bf16, fp8, awq, int4" in line
    assert "llama3.3, gated" in line


def test_scripts_get_names_or_json(run: RunCtl) -> None:
    assert run("search", "-q", "qwq").out == "qwq:32b\n"
    (model,) = cast("dict[str, Any]", run("search", "--json", "qwen3:8b").json())["models"]
    assert (model["name"], model["license"], model["gated"]) == ("qwen3:8b", "apache-2.0", False)
    assert model["context_length"] == 40960
    assert model["kv_per_token"] == 147456
    assert [variant["repository"] for variant in model["variants"]] == [
        "Qwen/Qwen3-8B", "Qwen/Qwen3-8B-FP8", "Qwen/Qwen3-8B-AWQ",
    ]  # fmt: skip


def test_without_a_word_everything_is_shown(run: RunCtl) -> None:
    assert len(run("search", "-q").out.splitlines()) >= 180


def test_nothing_found_is_said_and_is_no_failure(run: RunCtl) -> None:
    ran = run("search", "no-such-model")
    assert (ran.code, len(ran.out.splitlines())) == (0, 1)
    assert "any org/repo can be pulled" in ran.err
    assert run("search", "--json", "no-such-model").json() == {"models": []}


def test_the_operators_own_are_found_too(run: RunCtl, tmp_path: Path) -> None:
    (tmp_path / "vllamad").mkdir()
    (tmp_path / "vllamad" / "catalog.toml").write_text(
        '[house]\nabout = "ours"\nlicense = "mit"\nlatest = "1b"\n'
        '[house.tags.1b]\nparameters = 1e9\ncontext = 4096\nbf16 = "org/house"\n'
    )
    assert run("search", "-q", "ours").out == "house:1b\n"


def test_a_fault_in_the_operators_own_is_named(run: RunCtl, tmp_path: Path) -> None:
    (tmp_path / "vllamad").mkdir()
    (tmp_path / "vllamad" / "catalog.toml").write_text("[house]\nabot = 1\n")
    ran = run("search", "qwen")
    assert ran.code == 1
    assert "catalog.toml: house: object contains unknown field `abot`" in ran.err


def test_a_fault_there_is_a_fault_of_the_configuration(run: RunCtl, tmp_path: Path) -> None:
    (tmp_path / "vllamad").mkdir()
    (tmp_path / "vllamad" / "catalog.toml").write_text("[house]\nabot = 1\n")
    ran = run("config", "--check")
    assert (ran.code, ran.out) == (1, "")
    assert "catalog.toml: house: object contains unknown field `abot`" in ran.err
