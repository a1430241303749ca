"""The command `logs`: the output of a worker from its file, or the entries of the journal.

The daemon sends the file; journalctl(1) reads the journal.
"""

from __future__ import annotations

import codecs
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from vllamactl import human
from vllamactl.command_context import CommandContext
from vllamad.core.model_name import parse_model_name
from vllamad.errors import HostProblem, NotAllowed
from vllamad.protocol.control import ENGINE_IDENTIFIER, IDENTIFIER, model_path


def logs(context: CommandContext, model: str, *, lines: int, follow: bool, journal: bool) -> None:
    """Print the last lines; with `follow`, then new lines as they arrive.

    Without a model it prints the daemon's own log, which only the journal has.
    """
    if journal or not model:
        return _from_journal(
            context, journal_command(model, lines, follow, json=context.screen.json)
        )
    return _from_file(context, model, lines, follow)


def journal_command(model: str, lines: int, follow: bool, *, json: bool) -> Sequence[str]:
    """Return the journalctl(1) command: all entries of a model, or those of the daemon."""
    if model:
        name = parse_model_name(model).display()
        filters = [
            f"--identifier={ENGINE_IDENTIFIER}",
            f"--identifier={IDENTIFIER}",
            f"MODEL={name}",
        ]
    else:
        filters = [f"--identifier={IDENTIFIER}"]
    output = ["--output=json"] if json else ["--output=short-iso", "--no-hostname"]
    return [
        "journalctl", "--no-pager", "--quiet", f"--lines={lines}", *output,
        *(["--follow"] if follow else []), *filters,
    ]  # fmt: skip


def _from_journal(context: CommandContext, command: Sequence[str]) -> None:
    if shutil.which(command[0], path=context.environ.get("PATH")) is None:
        raise HostProblem(
            "cannot read the journal: journalctl is not installed",
            hint="`vllamactl logs MODEL` reads the file of a worker",
        )
    # Piped, since control characters from clients must not reach the terminal.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        printed = False
        try:
            for line in reader.stdout:
                printed = True
                text = line.decode("utf-8", "replace").rstrip("\n")
                print(human.clean(text), file=context.screen.out, flush=True)
            problem = reader.stderr.read().decode("utf-8", "replace").strip()
        except BaseException:  # Ctrl-C, or the reader has left
            reader.terminate()
            raise
    if reader.returncode:
        raise NotAllowed(
            f"cannot read the journal: {human.clean(problem) or f'exit {reader.returncode}'}",
            hint="join the group systemd-journal or adm",
        )
    if not printed:
        context.screen.note(
            "the journal has no such entries; a daemon without systemd logs to stderr"
        )


def _from_file(context: CommandContext, model: str, lines: int, follow: bool) -> None:
    path = f"{model_path(model, 'logs')}?follow={int(follow)}&lines={lines}"
    received = _lines(context.client.text(path))
    if follow:
        for line in received:
            if context.screen.json:
                context.screen.event({"line": line})
            else:
                print(human.clean(line), file=context.screen.out, flush=True)
        return
    last = list(received)[-lines:] if lines else []
    text = "\n".join(human.clean(line) for line in last)
    if last or context.screen.json:
        context.screen.answer({"model": model, "lines": last}, text, text.splitlines())


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """Yield whole lines from pieces cut anywhere; invalid UTF-8 is replaced."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + decoder.decode(piece)).split("\n")
        yield from map(_last_drawn, whole)
    rest += decoder.decode(b"", final=True)
    if rest:
        yield _last_drawn(rest)


def _last_drawn(line: str) -> str:
    """Return the last state of a line that a progress bar redraws with carriage returns."""
    return line.rstrip("\r").rpartition("\r")[2]
