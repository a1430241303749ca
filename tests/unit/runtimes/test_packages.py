"""What an environment has, and what of it is not as it was installed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.support.wheels import write_wheel
from vllamad.runtimes.packages import damaged_packages, package_versions, remove_unrecorded


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The packages of a runtime in `tmp_path`: two, with two files each."""
    site = tmp_path / "lib/python3.11/site-packages"
    for name in ("one", "Two_more"):
        files = {f"{name}/__init__.py": "", f"{name}/code.py": "value = 1\n"}
        with zipfile.ZipFile(write_wheel(tmp_path / "wheels", name, "1.0", files)) as wheel:
            wheel.extractall(site)
    return site


def test_packages_are_known_by_their_normal_names(tmp_path: Path, site: Path) -> None:
    assert package_versions(tmp_path) == {"one": "1.0", "two-more": "1.0"}
    assert damaged_packages(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("value = 2\n", "1 file changed: one/code.py"),
        ("value", "1 file changed: one/code.py"),
        (None, "1 file missing: one/code.py"),
    ],
    ids=["changed", "cut", "gone"],
)
def test_a_file_that_is_not_as_installed_is_named(
    tmp_path: Path, site: Path, text: str | None, fault: str
) -> None:
    (site / "one/code.py").unlink()
    if text is not None:
        (site / "one/code.py").write_text(text)
    assert damaged_packages(tmp_path) == {"one": fault}


def test_of_many_files_the_first_is_named(tmp_path: Path, site: Path) -> None:
    (site / "one/code.py").unlink()
    (site / "one/__init__.py").unlink()
    assert damaged_packages(tmp_path) == {"one": "2 files missing: one/__init__.py ..."}


def test_what_python_compiled_does_not_count(tmp_path: Path, site: Path) -> None:
    (site / "one/__pycache__").mkdir()
    (site / "one/__pycache__/code.cpython-311.pyc").write_bytes(b"\0")
    assert damaged_packages(tmp_path) == {}


@pytest.mark.parametrize("lost", ["RECORD", "METADATA"])
def test_a_package_that_was_cut_amid_its_install_is_forgotten(
    tmp_path: Path, site: Path, lost: str
) -> None:
    (site / f"Two_more-1.0.dist-info/{lost}").unlink()
    if lost == "RECORD":
        assert damaged_packages(tmp_path) == {"two-more": "its list of files is missing"}
    assert remove_unrecorded(tmp_path) == ["two-more"]
    assert package_versions(tmp_path) == {"one": "1.0"}
    assert remove_unrecorded(tmp_path) == []
