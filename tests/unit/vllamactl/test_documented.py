"""What docs/vllamactl.md says of commands and options is what the command line takes."""

from __future__ import annotations

import re

import pytest

from tests.support.ctl_commands import COMMANDS
from tests.support.paths import ROOT
from vllamactl.chat import help_text
from vllamactl.commandline import _parser

TEXT = (ROOT / "docs" / "vllamactl.md").read_text()


ROWS: list[str] = re.findall(r"^\| (`.+?`) \|", TEXT.split("\n## ")[0], re.M)
# `model ...` and a second spelling after a comma are no commands of their own.
TOLD = {word.strip("`") for row in ROWS for word in row.split(", ")}


def named(told: str) -> str:
    """The command of a row, without its options and what it is about."""
    words = told.split()
    both = " ".join(words[:2])
    return both if both in COMMANDS else words[0]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_documented(command: str) -> None:
    aliases = {"runtime ls"}
    assert command in {named(told) for told in TOLD} | aliases


@pytest.mark.parametrize("told", sorted(TOLD))
def test_every_documented_command_is_one(told: str) -> None:
    assert named(told) in COMMANDS


@pytest.mark.parametrize(
    ("command", "option"),
    sorted((command, one) for command, own in COMMANDS.items() for one in own),
)
def test_every_option_is_documented(command: str, option: str) -> None:
    short = {"--follow": "-f", "--lines": "-n", "--file": "-f"}
    rows = " ".join(told for told in TOLD if named(told) == command)
    assert option in TEXT or short.get(option, option) in rows


@pytest.mark.parametrize("word", sorted(set(re.findall(r"/set (\w+)", help_text.SET))))
def test_every_setting_of_a_chat_is_documented(word: str) -> None:
    assert f"/set {word}" in TEXT


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^  (/[a-z?]+)", help_text.HELP, re.M))))
def test_every_command_of_a_chat_is_documented(command: str) -> None:
    assert f"`{command}" in TEXT


def test_help_of_every_command_can_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        _parser().parse_args(["run", "--help"])
    assert left.value.code == 0
    assert "--think" in capsys.readouterr().out
