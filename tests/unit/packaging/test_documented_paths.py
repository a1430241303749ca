"""The files and links that the documentation names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "decisions").glob("*.md")]
)
# The first part of a path in this repository; other paths are those of an installed system.
_PATH = re.compile(r"`((?:vllamad|vllamactl|tests|packaging|systemd|docs)/[\w./@-]+?)`")
# In docs/architecture.md and the decisions a module is named without `vllamad/` and `.py`.
_FOLDERS = "|".join(path.name for path in (ROOT / "vllamad").iterdir() if path.is_dir())
_MODULE = re.compile(rf"`((?:{_FOLDERS})/[\w/]+)(?:\.\w+)?`")
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.M)


def named_paths(page: Path) -> list[Path]:
    text = page.read_text()
    paths = [ROOT / path for path in _PATH.findall(text)]
    if page.name == "architecture.md" or page.parent.name == "decisions":
        paths += [ROOT / "vllamad" / module for module in _MODULE.findall(text)]
    return paths


def exists(path: Path) -> bool:
    return path.exists() or path.with_name(f"{path.name}.py").exists()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_check_finds_paths_and_links() -> None:
    assert len(named_paths(ROOT / "docs" / "architecture.md")) > 30
    assert len(_LINK.findall((ROOT / "README.md").read_text())) > 10
    assert not exists(ROOT / "vllamad" / "core" / "no_such_module")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    assert [str(path) for path in named_paths(page) if not exists(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken: list[str] = []
    for target, anchor in _LINK.findall(page.read_text()):
        path = page.parent / target if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


def test_every_folder_of_the_code_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = [init.parent.relative_to(ROOT) for init in ROOT.glob("vllam*/**/__init__.py")]
    unlisted = [str(path) for path in packages if f"| `{path}` |" not in text]
    assert [path for path in unlisted if path != "vllamad"] == []
