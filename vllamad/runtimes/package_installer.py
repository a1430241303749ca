"""Installs packages into a Python environment, with uv if it is installed, else with pip.

Standard library only, so that it can make the project's own environment too. Does not know the
purpose of the packages.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllamad.errors import RuntimeProblem
from vllamad.runtimes.pip_settings import read_pip_settings, uv_options

if TYPE_CHECKING:
    from vllamad.host.processes.process_endings import Watch

Report = Callable[[str], None]
"""Called with a few words about the current step; the caller displays the elapsed time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """Installs packages into the environment of one Python; all output goes to `log`."""

    python: str
    uv: str | None  # path of uv; None: pip
    options: tuple[str, ...]  # given to every install
    environment: Mapping[str, str]
    log: Path
    progress: Report
    downloads: Path | None = None  # see installer_for

    def install(
        self,
        *specs: str,
        target: Path | None = None,
        deps: bool = True,
        anew: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        """Install `specs`, into the folder `target` where one is given. Raises RuntimeProblem.

        With `anew`, installed packages are replaced.
        """
        more = [*options, *([] if deps else ["--no-deps"])]
        more += ["--force-reinstall"] if anew else []
        # uv hard-links files of its cache: a damaged file is damaged in the cache too.
        more += ["--no-cache"] if anew and self.uv else []
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
        raise RuntimeProblem(
            f"cannot find the newest version of {spec}", hint="choose one with --version"
        )

    def _run(self, verb: str, *words: str) -> list[str]:
        if self.uv:
            command = [self.uv, "pip", verb, "--python", self.python, *words]
        else:
            command = [self.python, "-m", "pip", verb, *words]
        lines: list[str] = []
        with _kept_wheels(None if self.uv else self.downloads) as keep:
            for line in run_command(command, {**self.environment, **keep.environment}, self.log):
                keep.look()
                lines.append(line)
                if news := progress_text(line):
                    self.progress(news)
        return lines


class _Keeping:
    """Keeps the wheels that pip downloads: its own cache ignores those of many mirrors.

    pip downloads all wheels before it installs any, into a temporary folder that it empties.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.environment: dict[str, str] = {}
        if folder is not None:
            self.look()  # the wheels of a pip that was killed
            shutil.rmtree(folder / "tmp", ignore_errors=True)
            (folder / "tmp").mkdir(parents=True)
            self.environment = {"TMPDIR": str(folder / "tmp")}

    def look(self) -> None:
        """Keep each wheel that is complete; its list of contents is at its end."""
        if self._folder is None:
            return
        try:
            for wheel in self._folder.glob("tmp/*/*.whl"):
                if not (self._folder / wheel.name).exists() and zipfile.is_zipfile(wheel):
                    (self._folder / wheel.name).hardlink_to(wheel)
        except OSError:
            return  # pip removed a folder meanwhile; the next line of output tries again

    def forget(self) -> None:
        """Remove the kept wheels."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def _kept_wheels(folder: Path | None) -> Generator[_Keeping]:
    keeping = _Keeping(folder)
    try:
        yield keeping
    except RuntimeProblem as problem:
        if "HASHES" in problem.message:  # a kept wheel differs from that of the index
            keeping.forget()
        raise


def installer_for(
    python: str,
    *,
    log: Path,
    progress: Report,
    downloads: Path | None = None,
    uv: str | None = None,
) -> Installer:
    """An Installer for the environment of `python`; `uv` is its path, if it is not on PATH.

    `downloads` is a folder that keeps the downloads of pip, and of uv where its cache cannot be
    used.
    """
    uv = uv or shutil.which("uv")
    environment = clean_environment() | {
        "PYTHONUNBUFFERED": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    options = ["--progress-bar=off", "--no-compile"]  # the first import compiles what it needs
    if uv:
        settings = read_pip_settings((python, sys.executable, "python3"), environment)
        options, more = uv_options(settings)
        environment |= more
        if downloads and not _keeps_downloads(environment):
            options = [*options, "--cache-dir", str(downloads / "uv")]
            environment.pop("UV_NO_CACHE", None)
    return Installer(
        python=python,
        uv=uv,
        options=tuple(options),
        environment=environment,
        log=log,
        progress=progress,
        downloads=downloads,
    )


def _keeps_downloads(environment: Mapping[str, str]) -> bool:
    """Whether uv's cache is enabled, and in a folder of our own that is writable."""
    home = environment.get("HOME", "")
    usual = environment.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else "")
    cache = environment.get("UV_CACHE_DIR") or usual
    if environment.get("UV_NO_CACHE") or not cache:
        return False
    nearest = next(folder for folder in (Path(cache), *Path(cache).parents) if folder.exists())
    return nearest.stat().st_uid == os.geteuid() and os.access(nearest, os.W_OK)


def make_environment(folder: Path, log: Path) -> str:
    """Make a virtual environment and return its Python. Raises RuntimeProblem."""
    python = str(folder / "bin" / "python")
    environment = clean_environment()
    try:
        _finish(run_command([sys.executable, "-m", "venv", str(folder)], environment, log))
    except RuntimeProblem as problem:
        uv = shutil.which("uv")
        if uv is None:
            raise RuntimeProblem(
                f"cannot make a virtual environment in {folder}: {problem.message}",
                hint="install Python's venv module (Debian, Ubuntu: python3-venv) or uv",
            ) from problem
        command = [uv, "venv", "--clear", "--python", sys.executable, str(folder)]
        _finish(run_command(command, environment, log))
    return python


def _finish(lines: Iterable[str]) -> None:
    for _ in lines:
        pass


def clean_environment() -> dict[str, str]:
    """Our environment without the variables that would add our packages to another Python."""
    foreign = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in os.environ.items() if name not in foreign}


def run_command(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Generator[str]:
    """Run `command`, yield its output line by line, and write it to `log`.

    Raises RuntimeProblem with the last meaningful line if it fails. Closing the generator early,
    also by Ctrl-C, terminates the command.
    """
    last: list[str] = []
    watch = _watch()
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
        why = failure_reason(watch, process.returncode, "".join(last))
        raise RuntimeProblem(why, hint=f"the whole output is in {log}")


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
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        raise RuntimeProblem(f"cannot run {command[0]}: {error.strerror}") from error


def die_with_parent() -> None:
    """Let the kernel kill this process with its parent, so that two installs never overlap."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


# Only packages of 10 MB and more: of an engine's 170, ten take nearly all the time.
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


def progress_text(line: str) -> str:
    """A line of pip or uv as progress to display, or ""."""
    for pattern, words in _NEWS:
        if match := pattern.search(line):
            return words.format(*match.groups())
    return ""


_MEANINGFUL = re.compile(r"^(?:ERROR: |error: |[\w.]*(?:Error|Exception|Exit)\b)")
_UV_BECAUSE = re.compile(r"(?:╰─▶|^ +cause:)(.*?)(?:\n\s*\n|\Z)", re.DOTALL | re.MULTILINE)
# Lines of progress, warnings, and Python's own lines of both.
_NO_REASON = re.compile(
    r"(?:\(\S+ pid=\d+\) )?(?:DEBUG|INFO|WARNING) \d\d-\d\d "
    r"|WARNING: |warning: |DEPRECATION: |\[notice\]"
    r"|\[(?:rank\d+\]:)?\[?[WI]\d* "
    r"|.*\b\w*Warning: "
    r"|warnings\.warn"
    r"|Traceback |File "
)
_NO_NETWORK = re.compile(
    r"(Temporary failure in name resolution|Name or service not known|Network is unreachable"
    r"|No route to host|Connection refused|Connection timed out|timed out|Connection reset by peer"
    r"|certificate verify failed|Tunnel connection failed|Cannot connect to proxy)"
)
# uv prints its cause at the end; pip warns of each try, and then finds no version.
_NOT_FETCHED = re.compile(
    r"cause: Failed to fetch|Max retries exceeded"
    r"|after connection broken by(?=.*No matching distribution found)",
    re.DOTALL,
)


def failure_reason(watch: Watch | None, code: int, output: str) -> str:
    """Why a program failed: the signal that killed it, or the reason in its output."""
    if code >= 0 or watch is None:
        return output_reason(output)
    return watch.describe(code, _error_line(output))


def output_reason(output: str) -> str:
    """The reason in the output: no network, uv's conclusion, the last error, else the last line.

    Never a line of progress or a warning.
    """
    if _NOT_FETCHED.search(output) and (trouble := _NO_NETWORK.search(output)):
        return f"the package index cannot be reached: {trouble[1]}"
    if why := _error_line(output):
        return why
    lines = (line.strip() for line in reversed(output.splitlines()))
    return next(
        (line for line in lines if line and not _NO_REASON.match(line)), "it printed nothing"
    )


def _error_line(output: str) -> str:
    if conclusion := _UV_BECAUSE.search(output):
        return " ".join(conclusion[1].split())[:400]
    for line in reversed(output.splitlines()):
        if _MEANINGFUL.match(line.strip()):
            return line.strip().removeprefix("ERROR: ").removeprefix("error: ")
    return ""


def _watch() -> Watch | None:
    """None only while the project's own environment is made: its dependencies are missing."""
    try:
        from vllamad.host.processes.process_endings import Watch
    except ImportError:
        return None
    return Watch()
