"""Put packages into a Python environment: with uv where it is installed, with pip where not.

Standard library only, so that the project's own environment can be made with it too. It must not
know what the packages are for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vllamad.errors import RuntimeProblem
from vllamad.runtimes.pip_settings import as_uv, pip_settings

Report = Callable[[str], None]
"""Told what is being done now, in a few words; whoever shows it adds the time gone by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """Puts packages into the environment of one Python; everything printed goes to `log`."""

    python: str
    uv: str | None  # path of uv; None: pip
    options: tuple[str, ...]  # given to every install
    environment: Mapping[str, str]
    log: Path
    progress: Report

    def install(
        self,
        *specs: str,
        target: Path | None = None,
        deps: bool = True,
        options: Sequence[str] = (),
    ) -> None:
        """Install `specs`, into the folder `target` where one is given. Raises RuntimeProblem."""
        more = [*options, *([] if deps else ["--no-deps"])]
        more += ["--target", str(target)] if target else []
        self._run("install", *self.options, *more, *specs)

    def uninstall(self, *names: str) -> None:
        """Remove installed packages. Raises RuntimeProblem."""
        self._run("uninstall", *([] if self.uv else ["--yes"]), *names)

    def newest(self, spec: str) -> str:
        """The version that `install` would choose for `spec`. Raises RuntimeProblem."""
        anew = "--reinstall" if self.uv else "--ignore-installed"
        lines = self._run("install", *self.options, "--dry-run", "--no-deps", anew, spec)
        name = re.escape(re.split(r"[=<>!~\[ ]", spec, maxsplit=1)[0])
        chosen = re.compile(rf"^(?: \+ {name}==|Would install {name}-)(\S+)", re.IGNORECASE)
        for line in lines:
            if match := chosen.search(line):
                return match[1]
        raise RuntimeProblem(f"cannot tell which version of {spec} would be installed")

    def _run(self, verb: str, *words: str) -> list[str]:
        if self.uv:
            command = [self.uv, "pip", verb, "--python", self.python, *words]
        else:
            command = [self.python, "-m", "pip", verb, *words]
        lines: list[str] = []
        for line in stream(command, self.environment, self.log):
            lines.append(line)
            if news := condensed(line):
                self.progress(news)
        return lines


def installer_for(python: str, *, log: Path, progress: Report, uv: str | None = None) -> Installer:
    """An Installer for the environment of `python`; `uv` is where to find it, if not on PATH."""
    uv = uv or shutil.which("uv")
    environment = clean_environment() | {
        "PYTHONUNBUFFERED": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    options = ["--progress-bar=off", "--no-compile"]  # the first import compiles what it needs
    if uv:
        settings = pip_settings((python, sys.executable, "python3"), environment)
        options, more = as_uv(settings)
        environment |= more
    return Installer(
        python=python,
        uv=uv,
        options=tuple(options),
        environment=environment,
        log=log,
        progress=progress,
    )


def make_environment(folder: Path, log: Path) -> str:
    """Make a virtual environment and return its Python. Raises RuntimeProblem."""
    python = str(folder / "bin" / "python")
    environment = clean_environment()
    try:
        _finish(stream([sys.executable, "-m", "venv", str(folder)], environment, log))
    except RuntimeProblem as problem:
        uv = shutil.which("uv")
        if uv is None:
            raise RuntimeProblem(
                f"cannot make a virtual environment in {folder}: {problem.message}",
                hint="install Python's venv module (Debian, Ubuntu: python3-venv) or uv",
            ) from problem
        command = [uv, "venv", "--clear", "--python", sys.executable, str(folder)]
        _finish(stream(command, environment, log))
    return python


def _finish(lines: Iterable[str]) -> None:
    for _ in lines:
        pass


def clean_environment() -> dict[str, str]:
    """The caller's environment without what would drag its packages into another Python."""
    foreign = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in os.environ.items() if name not in foreign}


def stream(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Generator[str]:
    """Run `command` and yield what it prints, line by line, keeping all of it in `log`.

    Raises RuntimeProblem with the last meaningful line when it fails. Leaving early, by Ctrl-C
    too, ends the program.
    """
    last: list[str] = []
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as kept, _started(command, environment) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                kept.write(line)
                last = [*last[-199:], line]
                yield line.rstrip()
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise RuntimeProblem(reason("".join(last)), hint=f"all that was said is in {log}")


def _started(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise RuntimeProblem(f"cannot run {command[0]}: {error.strerror}") from error


# Only packages of 10 MB and more: an engine has 170 of them, ten make the wait.
_BIG = r"\((\d{2,}(?:\.\d+)? ?Mi?B|[\d.]+ ?Gi?B)\)"
_NEWS = (
    (
        re.compile(rf"^ +Downloading (?:\S*/)?([\w.]+)-\S+\.whl {_BIG}"),
        "downloading {} ({})",
    ),  # pip
    (re.compile(rf"^Downloading ([\w.-]+) {_BIG}"), "downloading {} ({})"),  # uv
    (re.compile(r"^Installing (collected packages)"), "installing"),
    (re.compile(r"^Prepared (\d+ packages)"), "installing {}"),
    (re.compile(r"^ *Building wheel for ([\w.-]+)"), "building {}"),
)


def condensed(line: str) -> str:
    """A line of pip or uv as news for a person, or nothing."""
    for pattern, words in _NEWS:
        if match := pattern.search(line):
            return words.format(*match.groups())
    return ""


_MEANINGFUL = re.compile(r"^(?:ERROR: |error: |[\w.]*(?:Error|Exception|Exit)\b)")
_UV_BECAUSE = re.compile(r"(?:╰─▶|^ +cause:)(.*?)(?:\n\s*\n|\Z)", re.DOTALL | re.MULTILINE)


def reason(output: str) -> str:
    """The line that says why: uv's conclusion, the last error line, else simply the last."""
    if conclusion := _UV_BECAUSE.search(output):
        return " ".join(conclusion[1].split())[:400]
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for line in reversed(lines):
        if _MEANINGFUL.match(line):
            return line.removeprefix("ERROR: ").removeprefix("error: ")
    return lines[-1] if lines else "it said nothing"
