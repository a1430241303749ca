"""The man pages say all there is of commands, options and settings, and groff takes them."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ctl_commands import COMMANDS
from tests.support.paths import ROOT
from vllamactl.commandline import _parser as client_parser
from vllamad.__main__ import _parser as daemon_parser
from vllamad.config.schema import SECTIONS

PAGES = ("vllamad.8", "vllamactl.1", "vllamad.toml.5")
ALIASES = {"ls", "runtime ls"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, "packaging/manpages.py", str(out)], cwd=ROOT, check=True)
    return {path.name: path for path in out.iterdir()}


def plain(page: Path) -> str:
    """A page as it is read, without what is for groff."""
    return page.read_text().replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")


def own_options(parser: argparse.ArgumentParser) -> list[str]:
    """What a command line takes; what is meant for the program itself is left out."""
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    return [word for action in shown for word in action.option_strings]


def part(text: str, heading: str) -> str:
    """What stands below a heading, up to the next of its kind."""
    kind = heading[:4]
    return text.split(f"{heading}", 1)[1].split(f"\n{kind}", 1)[0]


def test_every_page_is_made(pages: dict[str, Path]) -> None:
    assert set(pages) == set(PAGES)


@pytest.mark.parametrize("option", own_options(daemon_parser()))
def test_every_option_of_the_daemon_is_on_its_page(pages: dict[str, Path], option: str) -> None:
    assert option in part(plain(pages["vllamad.8"]), ".SH OPTIONS")


@pytest.mark.parametrize("option", own_options(client_parser()))
def test_every_common_option_is_on_the_page(pages: dict[str, Path], option: str) -> None:
    assert option in part(plain(pages["vllamactl.1"]), ".SH OPTIONS")


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - ALIASES))
def test_every_command_is_on_the_page_with_its_options(
    pages: dict[str, Path], command: str
) -> None:
    text = plain(pages["vllamactl.1"]) + "\n"
    told = [line for line in text.splitlines() if line.startswith(".SS ")]
    (heading,) = [one for one in told if f"{one} ".startswith(f".SS {command} ")]
    below = part(text, heading)
    assert [option for option in sorted(COMMANDS[command]) if option not in below] == []


@pytest.mark.parametrize(
    ("section", "key"), [(section, key) for section, keys in SECTIONS.items() for key in keys]
)
def test_every_setting_is_on_the_page(pages: dict[str, Path], section: str, key: str) -> None:
    heading = '[model."name"]' if section == "model" else f"[{section}]"
    below = part(plain(pages["vllamad.toml.5"]), f".SH {heading}\n")
    assert f".TP\n{key} = " in below


@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_say(pages: dict[str, Path], name: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("no groff here")
    command = ["groff", "-man", "-ww", "-Tutf8", str(pages[name])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
