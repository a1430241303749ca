"""Put packages into a Python environment: with uv where it is installed, with pip where not.

Standard library only, so that the project's own environment can be made with it too. It must not
know what the packages are for.
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
    from vllamad.host.process_endings import Watch

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

        With `anew`, packages that are there are replaced.
        """
        more = [*options, *([] if deps else ["--no-deps"])]
        more += ["--force-reinstall"] if anew else []
        # uv links files out of its cache: one that was changed in place is changed there too.
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
        raise RuntimeProblem(f"cannot tell which version of {spec} would be installed")

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
    """Wheels that pip has fetched, kept in a folder: its own cache holds nothing of many mirrors.

    pip fetches all before it installs any, into a folder for temporary files that it empties.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.environment: dict[str, str] = {}
        if folder is not None:
            self.look()  # what a pip that was killed has left
            shutil.rmtree(folder / "tmp", ignore_errors=True)
            (folder / "tmp").mkdir(parents=True)
            self.environment = {"TMPDIR": str(folder / "tmp")}

    def look(self) -> None:
        """Keep each wheel that is whole by now; its list of contents is at its end."""
        if self._folder is None:
            return
        try:
            for wheel in self._folder.glob("tmp/*/*.whl"):
                if not (self._folder / wheel.name).exists() and zipfile.is_zipfile(wheel):
                    (self._folder / wheel.name).hardlink_to(wheel)
        except OSError:
            return  # pip removes its folders meanwhile; the next line is another chance

    def forget(self) -> None:
        """Remove what was kept."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def _kept_wheels(folder: Path | None) -> Generator[_Keeping]:
    keeping = _Keeping(folder)
    try:
        yield keeping
    except RuntimeProblem as problem:
        if "HASHES" in problem.message:  # one of them is not what the index has
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
    """An Installer for the environment of `python`; `uv` is where to find it, if not on PATH.

    `downloads` is a folder that keeps what pip has fetched, and what uv has where its own cache
    cannot be used.
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
    """Whether uv's cache is on, and in a folder of ours that we may write."""
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
    """The caller's environment without what would drag its packages into another Python."""
    foreign = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    return {name: value for name, value in os.environ.items() if name not in foreign}


def run_command(
    command: Sequence[str], environment: Mapping[str, str], log: Path
) -> Generator[str]:
    """Run `command` and yield what it prints, line by line, keeping all of it in `log`.

    Raises RuntimeProblem with the last meaningful line when it fails. Leaving early, by Ctrl-C
    too, ends the program.
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
        raise RuntimeProblem(why, hint=f"all that was said is in {log}")


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
    """Be killed when the parent is: the next install must not find this one still at work."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


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


def progress_text(line: str) -> str:
    """A line of pip or uv as news for a person, or nothing."""
    for pattern, words in _NEWS:
        if match := pattern.search(line):
            return words.format(*match.groups())
    return ""


_MEANINGFUL = re.compile(r"^(?:ERROR: |error: |[\w.]*(?:Error|Exception|Exit)\b)")
_UV_BECAUSE = re.compile(r"(?:╰─▶|^ +cause:)(.*?)(?:\n\s*\n|\Z)", re.DOTALL | re.MULTILINE)
# What goes on, what may matter later, and what Python prints of both.
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
# uv says so when it gives up; pip warns of each try, and then knows of no version.
_NOT_FETCHED = re.compile(
    r"cause: Failed to fetch|Max retries exceeded"
    r"|after connection broken by(?=.*No matching distribution found)",
    re.DOTALL,
)


def failure_reason(watch: Watch | None, code: int, output: str) -> str:
    """Why a program failed: the signal that killed it, or what it said."""
    if code >= 0 or watch is None:
        return output_reason(output)
    return watch.describe(code, _error_line(output))


def output_reason(output: str) -> str:
    """Why, as it was said: no network, uv's conclusion, the last error line, else the last one.

    Never a line of progress or a warning.
    """
    if _NOT_FETCHED.search(output) and (trouble := _NO_NETWORK.search(output)):
        return f"the package index cannot be reached: {trouble[1]}"
    if why := _error_line(output):
        return why
    lines = (line.strip() for line in reversed(output.splitlines()))
    return next((line for line in lines if line and not _NO_REASON.match(line)), "it said nothing")


def _error_line(output: str) -> str:
    if conclusion := _UV_BECAUSE.search(output):
        return " ".join(conclusion[1].split())[:400]
    for line in reversed(output.splitlines()):
        if _MEANINGFUL.match(line.strip()):
            return line.strip().removeprefix("ERROR: ").removeprefix("error: ")
    return ""


def _watch() -> Watch | None:
    """None only while the project's own environment is being made: what it needs is not there."""
    try:
        from vllamad.host.process_endings import Watch
    except ImportError:
        return None
    return Watch()
