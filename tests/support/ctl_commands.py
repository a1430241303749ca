"""The commands of vllamactl with their options, read from its parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from vllamactl.commandline import _parser

COMMON = {"--help", "--json", "--quiet", "--socket"}


def commands(parser: argparse.ArgumentParser, above: str = "") -> Iterator[tuple[str, set[str]]]:
    """Every command in full, `runtime list`, with its own options."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from commands(below, f"{above} {name}".strip())
            return
    options = {word for action in parser._actions for word in action.option_strings}
    yield above, {option for option in options if option.startswith("--")} - COMMON


COMMANDS = dict(commands(_parser()))
