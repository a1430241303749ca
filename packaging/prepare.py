"""Have ready under VLLAMAD_HOME what the demo and the tests on the real engine need.

An engine runtime, the embedded model, and one for embeddings. A second run finds all of it there.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import minilm

from vllamactl.progress import Progression
from vllamactl.render import DONE, Screen
from vllamad.config.paths import default_paths
from vllamad.config.settings import Paths
from vllamad.core import model_name
from vllamad.core.audio import AudioSupport, missing_packages
from vllamad.errors import ModelNotFound, RuntimeProblem, VllamadError
from vllamad.models.store import manifests, model_store
from vllamad.protocol.control import Progress
from vllamad.runtimes import smollm2
from vllamad.runtimes.install import install
from vllamad.runtimes.installed_runtimes import resolve
from vllamad.runtimes.runtime_facts import RuntimeFacts

THERE = "already there"


class Stage:
    """One step of a preparation: shows that it goes on, and what came of it."""

    def __init__(self, shown: Progression) -> None:
        self._shown = shown
        self.result = ""

    def progress(self, what: str) -> None:
        """Say what is being done now."""
        self._shown.report(Progress(status=what))


def screen() -> Screen:
    return Screen(json=False, quiet=False, out=sys.stdout, err=sys.stdout, environ=os.environ)


@contextmanager
def stage(title: str) -> Generator[Stage]:
    """Show one stage and how long it took; a refusal ends the program with status 1."""
    out = screen()
    began = time.monotonic()
    try:
        with Progression(out, title) as shown:
            told = Stage(shown)
            yield told
    except VllamadError as problem:
        problem.message = f"{title}: {problem.message}"
        out.error(problem)
        raise SystemExit(1) from problem
    took = time.monotonic() - began
    print(f"{out.mark(DONE)} {title}: {told.result}  {took:.1f} s", flush=True)


def have_runtime(paths: Paths) -> RuntimeFacts:
    """The runtime in use; installed first where there is none."""
    with stage("runtime") as told:
        try:
            facts = resolve(paths.runtimes, cache=paths.cache)
            told.result = f"{facts.name} ({THERE})"
            if missing_packages(AudioSupport.TRANSCRIBE_ONLY, facts.audio_packages):
                facts = install(
                    paths.runtimes,
                    device="cuda" if facts.device == "cuda" else "cpu",
                    version=facts.version,
                    progress=told.progress,
                )
                told.result = f"{facts.name}, with what reads sound"
        except RuntimeProblem:
            facts = install(paths.runtimes, progress=told.progress)
            told.result = f"{facts.name}, one token made"
    return facts


def have_smollm2(paths: Paths, runtime: RuntimeFacts) -> str:
    """The name of the embedded model."""
    return _have("model", smollm2, paths, runtime)


def have_minilm(paths: Paths, runtime: RuntimeFacts) -> str:
    """The name of the embedding model that the tests ask."""
    return _have("embedding model", minilm, paths, runtime)


def _have(title: str, package: ModuleType, paths: Paths, runtime: RuntimeFacts) -> str:
    """The model's name; it is made and put into the store first where it is not there."""
    name = model_name.parse_model_name(package.NAME)
    with stage(title) as told:
        try:
            manifests.read(paths.models, name)
            told.result = f"{package.NAME} ({THERE})"
        except ModelNotFound:
            folder = paths.state / name.model
            package.make_checkpoint(folder, runtime, progress=told.progress)
            told.progress("putting it into the store")
            model_store.add(
                paths.models, name, folder, source=package.SOURCE, license=package.LICENSE
            )
            told.result = f"{package.NAME}, from {package.SOURCE}"
    return package.NAME


def home_paths() -> Paths:
    """The directories below VLLAMAD_HOME, as the daemon will see them."""
    return default_paths(os.environ, os.geteuid(), Path.home())


if __name__ == "__main__":
    found = have_runtime(home_paths())
    have_smollm2(home_paths(), found)
    have_minilm(home_paths(), found)
