"""The daemon's directories and its control socket, from the given environment and the passwd entry.

Touches no file of ours.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from vllamad.config.settings import Paths

SYSTEM_CONTROL = Path("/run/vllamad-control.sock")
"""Beside the runtime directory, not in it: systemd removes that when the service stops, and a
socket unit's socket outlives the service."""

SOCKET_LIMIT = 107  # bytes of sun_path, less the closing zero: unix(7)
WORKER_ID_LIMIT = 12
# ZeroMQ puts "/" and a UUID behind the base path RUN/w/ID/rpc.
RUN_LIMIT = SOCKET_LIMIT - 37 - len("/w/") - WORKER_ID_LIMIT - len("/rpc")


VARIABLES = ("VLLAMAD_HOME", "VLLAMAD_CONTROL", "VLLAMAD_FORK", "VLLAMAD_GATEWAY_PIPE")
"""Our variables that are not settings: directories, and those set for child processes."""


def home_of(environ: Mapping[str, str], uid: int) -> Path:
    """The user's home directory: $HOME, else that of passwd, else "/" as container runtimes have.

    A container may run as a uid that has neither, where `Path.home()` raises.
    """
    if environ.get("HOME", "").startswith("/"):
        return Path(environ["HOME"])
    try:
        return Path(pwd.getpwuid(uid).pw_dir or "/")
    except KeyError:
        return Path("/")


def default_paths(environ: Mapping[str, str], euid: int, home: Path) -> Paths:
    """The directories systemd gave, else one tree in VLLAMAD_HOME, else root's, else XDG's."""
    base = _without_systemd(environ, euid, home)
    given = {
        name: Path(environ[variable].split(":")[0])
        for name, variable in (
            ("state", "STATE_DIRECTORY"),
            ("cache", "CACHE_DIRECTORY"),
            ("logs", "LOGS_DIRECTORY"),
            ("run", "RUNTIME_DIRECTORY"),
        )
        if environ.get(variable)
    }
    run = given.get("run", base.run)
    control = base.control
    if "run" in given:
        # A user's own service manager gives a directory in the user's own.
        own = run.is_relative_to(xdg(environ, "XDG_RUNTIME_DIR") or "/run/user")
        control = run / "control.sock" if own else SYSTEM_CONTROL
    return Paths(
        state=given.get("state", base.state),
        cache=given.get("cache", base.cache),
        logs=given.get("logs", base.logs),
        run=run,
        control=control,
    )


def control_candidates(environ: Mapping[str, str], euid: int, home: Path) -> tuple[Path, ...]:
    """The control sockets that a client without a configuration tries, the likeliest first."""
    own = default_paths(environ, euid, home).control
    return tuple(dict.fromkeys((own, SYSTEM_CONTROL, Path("/run/vllamad/control.sock"))))


def hub_cache(environ: Mapping[str, str], home: Path) -> Path:
    """The cache folder of huggingface_hub and the tools built on it."""
    if environ.get("HF_HUB_CACHE"):
        return Path(environ["HF_HUB_CACHE"])
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]) / "hub"
    return (xdg(environ, "XDG_CACHE_HOME") or home / ".cache") / "huggingface" / "hub"


def path_problem(name: str, path: Path) -> str | None:
    """The reason why a socket cannot be made at a path, or None. The kernel's limit is in bytes."""
    length = len(os.fsencode(path))
    if name == "run" and length > RUN_LIMIT:
        return (
            f"{path} is {length} bytes long, at most {RUN_LIMIT} leave room for a worker's "
            f"sockets (a Unix socket's path has {SOCKET_LIMIT}); set paths.run to a shorter one"
        )
    if name == "control" and length > SOCKET_LIMIT:
        return f"{path} is {length} bytes long, a Unix socket's path has at most {SOCKET_LIMIT}"
    return None


def _without_systemd(environ: Mapping[str, str], euid: int, home: Path) -> Paths:
    if environ.get("VLLAMAD_HOME"):
        tree = Path(environ["VLLAMAD_HOME"]).absolute()
        run = tree / "run"
        return Paths(
            state=tree / "state",
            cache=tree / "cache",
            logs=tree / "logs",
            run=run,
            control=run / "control.sock",
        )
    if euid == 0:
        return Paths(
            state=Path("/var/lib/vllamad"),
            cache=Path("/var/cache/vllamad"),
            logs=Path("/var/log/vllamad"),
            run=Path("/run/vllamad"),
            control=SYSTEM_CONTROL,
        )
    state = (xdg(environ, "XDG_STATE_HOME") or home / ".local/state") / "vllamad"
    runtime = xdg(environ, "XDG_RUNTIME_DIR")
    run = runtime / "vllamad" if runtime else Path(f"/tmp/vllamad-{euid}")
    return Paths(
        state=state,
        cache=(xdg(environ, "XDG_CACHE_HOME") or home / ".cache") / "vllamad",
        logs=state / "logs",
        run=run,
        control=run / "control.sock",
    )


def xdg(environ: Mapping[str, str], variable: str) -> Path | None:
    """A directory of the XDG base directory specification, which says to ignore a relative one."""
    value = environ.get(variable, "")
    return Path(value) if value.startswith("/") else None
