"""The command `logs`: what a worker wrote, from its file, or what the journal has of it and of us.

The file comes from the daemon; the journal is systemd's own program's to read.
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


def logs(call: CommandContext, model: str, *, lines: int, follow: bool, journal: bool) -> None:
    """Print the last lines, and with `follow` what is written from now on.

    Without a model they are the daemon's own, which only the journal has.
    """
    if journal or not model:
        return _from_journal(call, journal_command(model, lines, follow, json=call.screen.json))
    return _from_file(call, model, lines, follow)


def journal_command(model: str, lines: int, follow: bool, *, json: bool) -> Sequence[str]:
    """How to ask journalctl(1): for all about one model, or for what the daemon says."""
    if model:
        name = parse_model_name(model).display()
        asked = [f"--identifier={ENGINE_IDENTIFIER}", f"--identifier={IDENTIFIER}", f"MODEL={name}"]
    else:
        asked = [f"--identifier={IDENTIFIER}"]
    shown = ["--output=json"] if json else ["--output=short-iso", "--no-hostname"]
    return [
        "journalctl", "--no-pager", "--quiet", f"--lines={lines}", *shown,
        *(["--follow"] if follow else []), *asked,
    ]  # fmt: skip


def _from_journal(call: CommandContext, command: Sequence[str]) -> None:
    if shutil.which(command[0], path=call.environ.get("PATH")) is None:
        raise HostProblem(
            "cannot read the journal: there is no journalctl here",
            hint="`vllamactl logs MODEL` reads what a worker wrote from its file",
        )
    # By way of us, so that what strangers had written stays text on a terminal.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stderr is not None
        heard = False
        try:
            for line in reader.stdout:
                heard = True
                text = line.decode("utf-8", "replace").rstrip("\n")
                print(human.clean(text), file=call.screen.out, flush=True)
            problem = reader.stderr.read().decode("utf-8", "replace").strip()
        except BaseException:  # Ctrl-C, or nobody reads on
            reader.terminate()
            raise
    if reader.returncode:
        raise NotAllowed(
            f"cannot read the journal: {human.clean(problem) or f'exit {reader.returncode}'}",
            hint="members of the groups systemd-journal and adm may",
        )
    if not heard:
        call.screen.note("the journal has nothing of it; a daemon without systemd logs to stderr")


def _from_file(call: CommandContext, model: str, lines: int, follow: bool) -> None:
    path = f"{model_path(model, 'logs')}?follow={int(follow)}&lines={lines}"
    found = _lines(call.client.text(path))
    if follow:
        for line in found:
            if call.screen.json:
                call.screen.event({"line": line})
            else:
                print(human.clean(line), file=call.screen.out, flush=True)
        return
    last = list(found)[-lines:] if lines else []
    text = "\n".join(human.clean(line) for line in last)
    if last or call.screen.json:
        call.screen.answer({"model": model, "lines": last}, text, text.splitlines())


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """Whole lines out of bytes cut anywhere; what is no UTF-8 is shown as such."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + decoder.decode(piece)).split("\n")
        yield from map(_last_drawn, whole)
    rest += decoder.decode(b"", final=True)
    if rest:
        yield _last_drawn(rest)


def _last_drawn(line: str) -> str:
    """A progress bar draws over its line again and again: only the last picture counts."""
    return line.rstrip("\r").rpartition("\r")[2]
