"""Prepare VLLAMAD_HOME for the demo and the tests on the real engine.

It installs an engine runtime, the embedded model, and an embedding model; each only if missing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import test_embedding_model

from vllamactl.progress import Progression
from vllamactl.render import DONE, Screen
from vllamad.config.paths import default_paths
from vllamad.config.settings import Paths
from vllamad.core import model_name
from vllamad.core.audio_support import AudioSupport, missing_packages
from vllamad.errors import ModelNotFound, RuntimeProblem, VllamadError
from vllamad.models.store import manifests, model_store
from vllamad.protocol.control import Progress
from vllamad.runtimes import smollm2
from vllamad.runtimes.install import install_runtime
from vllamad.runtimes.installed_runtimes import resolve_runtime
from vllamad.runtimes.runtime_facts import RuntimeFacts

THERE = "already there"


class Stage:
    """One step of a preparation: shows its progress, then its result."""

    def __init__(self, shown: Progression) -> None:
        self._shown = shown
        self.result = ""

    def progress(self, action: str) -> None:
        """Show the current action."""
        self._shown.report(Progress(status=action))


def screen() -> Screen:
    return Screen(json=False, quiet=False, out=sys.stdout, err=sys.stdout, environ=os.environ)


@contextmanager
def stage(title: str) -> Generator[Stage]:
    """Show one stage and how long it took; a refusal ends the program with status 1."""
    out = screen()
    began = time.monotonic()
    try:
        with Progression(out, title) as shown:
            step = Stage(shown)
            yield step
    except VllamadError as problem:
        problem.message = f"{title}: {problem.message}"
        out.error(problem)
        raise SystemExit(1) from problem
    took = time.monotonic() - began
    print(f"{out.mark(DONE)} {title}: {step.result}  {took:.1f} s", flush=True)


def have_runtime(paths: Paths) -> RuntimeFacts:
    """Return the runtime in use; one is installed if there is none."""
    with stage("runtime") as step:
        try:
            facts = resolve_runtime(paths.runtimes, cache=paths.cache)
            step.result = f"{facts.name} ({THERE})"
            if missing_packages(AudioSupport.TRANSCRIBE_ONLY, facts.audio_packages):
                facts = install_runtime(
                    paths.runtimes,
                    device="cuda" if facts.device == "cuda" else "cpu",
                    version=facts.version,
                    progress=step.progress,
                )
                step.result = f"{facts.name}, with what reads sound"
        except RuntimeProblem:
            facts = install_runtime(paths.runtimes, progress=step.progress)
            step.result = f"{facts.name}, one token made"
    return facts


def have_smollm2(paths: Paths, runtime: RuntimeFacts) -> str:
    """Return the name of the embedded model; added to the store if missing."""
    return _have("model", smollm2, paths, runtime)


def have_embedding_model(paths: Paths, runtime: RuntimeFacts) -> str:
    """Return the name of the embedding model of the tests; added to the store if missing."""
    return _have("embedding model", test_embedding_model, paths, runtime)


def _have(title: str, package: ModuleType, paths: Paths, runtime: RuntimeFacts) -> str:
    """Return the model's name; the model is made and added to the store if missing."""
    name = model_name.parse_model_name(package.NAME)
    with stage(title) as step:
        try:
            manifests.read_manifest(paths.models, name)
            step.result = f"{package.NAME} ({THERE})"
        except ModelNotFound:
            folder = paths.state / name.model
            package.make_checkpoint(folder, runtime, progress=step.progress)
            step.progress("adding it to the store")
            model_store.add_model(
                paths.models, name, folder, source=package.SOURCE, license=package.LICENSE
            )
            step.result = f"{package.NAME}, from {package.SOURCE}"
    return package.NAME


def home_paths() -> Paths:
    """The directories below VLLAMAD_HOME, as the daemon will see them."""
    return default_paths(os.environ, os.geteuid(), Path.home())


if __name__ == "__main__":
    runtime = have_runtime(home_paths())
    have_smollm2(home_paths(), runtime)
    have_embedding_model(home_paths(), runtime)
