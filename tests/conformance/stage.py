"""What the clients are driven against, and the driving: one real daemon, one driver after another.

It must not know what a feature is; a driver says of each whether there was a problem.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.roster import FEATURES, NODE, Client
from tests.support.daemon import ROOT, Daemon, daemon

CLIENTS = ROOT / ".venv-conformance"
DRIVERS = Path(__file__).parent / "clients"
PATIENCE = 900.0  # seconds for one driver; each of its features has a limit of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one feature of one client went; no problem is a success."""

    feature: str
    problem: str = ""


@contextmanager
def serving(prepared: Path, home: Path) -> Generator[Daemon]:
    """A daemon on the real engine, with a store of its own: clients create and delete models."""
    models = home / "state" / "models"
    shutil.copytree(prepared / "state" / "models", models, copy_function=_linked)
    (home / "state" / "runtimes").symlink_to(prepared / "state" / "runtimes")
    with daemon(home, config=f'[paths]\ncache = "{prepared}/cache"\n') as one:
        yield one


def _linked(source: str, target: str) -> None:
    """A second name for a large file, a copy where it lies on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def absent(client: Client) -> str:
    """Why `client` cannot be driven on this machine; empty where it can."""
    if client.home == NODE and shutil.which("node") is None:
        return "there is no node"
    if client.home == NODE and not (CLIENTS / "node_modules").exists():
        return "there was no npm to install it: `rm -r .venv-conformance` once there is"
    return "" if CLIENTS.exists() else "not installed: run `make conformance`"


def versions(client: Client) -> str:
    """What is driven, as `package version`."""
    return ", ".join(f"{name} {_version(client, name)}" for name in client.packages)


def _version(client: Client, package: str) -> str:
    if client.home == NODE:
        described = CLIENTS / "node_modules" / package / "package.json"
        return str(json.loads(described.read_text())["version"])
    site = [str(path) for path in (CLIENTS / client.home).glob("lib/python*/site-packages")]
    [found, *_] = importlib.metadata.Distribution.discover(name=package, path=site)
    return found.version


def run(client: Client, real: Daemon, home: Path) -> list[Outcome]:
    """Drive `client` through all it has; `home` is a folder for what it keeps."""
    command = [_program(client), str(DRIVERS / client.driver), real.url, *client.words]
    try:
        done = subprocess.run(
            command,
            env=_environment(real, home),
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return [Outcome(feature="chat", problem=f"its driver was not over after {PATIENCE:.0f} s")]
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"feature":')]
    outcomes = [Outcome(**json.loads(line)) for line in lines]
    assert {outcome.feature for outcome in outcomes} <= set(FEATURES)
    if done.returncode != 0 or not outcomes:
        outcomes.append(
            Outcome(feature="chat", problem=f"its driver failed: {done.stderr[-2000:]}")
        )
    return outcomes


def _program(client: Client) -> str:
    return "node" if client.home == NODE else str(CLIENTS / client.home / "bin" / "python")


def _environment(real: Daemon, home: Path) -> dict[str, str]:
    """Nothing of the user's: no keys, no proxies, no settings; and nothing is fetched or told."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return kept | {
        "HOME": str(home),
        "VLLAMAD_CONTROL": str(real.run / "control.sock"),
        "NODE_PATH": str(CLIENTS / "node_modules"),
        "LLM_USER_PATH": str(home / "llm"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LANGSMITH_TRACING": "false",
        "DO_NOT_TRACK": "1",
    }
