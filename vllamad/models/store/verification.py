"""Verifies the files of the installed models: compares their SHA-256 with the manifests.

Reads every byte, and blocks for that long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from vllamad.core.model_name import ModelName, parse_model_name
from vllamad.errors import HostProblem, ModelNotFound, VllamadError
from vllamad.models.store import model_store
from vllamad.models.store.lora import CONFIG, WEIGHTS, adapters_folder
from vllamad.models.store.manifests import Manifest, load_manifest, manifest_path, manifest_paths
from vllamad.protocol.control import Progress

REPORT_INTERVAL = 0.2  # seconds between two steps about one file

Report = Callable[[Progress], None]


def verify_store(models: Path, name: ModelName | None, report: Report) -> None:
    """Hash the files of one model, or of all; a step with a `problem` for each that is bad.

    Files that several models share are read once. Raises ModelNotFound.
    """
    found = list(_manifests(models, name, report))
    files = [(model, file) for model, manifest in found for file in _files(models, manifest)]
    meter = _Meter(report, sum(file.size or 0 for file in {file for _, file in files}))
    problems: dict[_File, str] = {}
    named = ""
    for model, file in files:
        if model != named:  # one step of progress for each model
            named = model
            report(meter.step(model, file, ""))
        if file not in problems:
            problems[file] = _problem(file, meter.about(model, file))
            meter.passed(file)
        if problems[file]:
            report(meter.step(model, file, problems[file]))


class _File(NamedTuple):
    folder: Path
    path: str
    size: int | None  # None: not written down
    sha256: str


def _manifests(
    models: Path, name: ModelName | None, report: Report
) -> Iterator[tuple[str, Manifest]]:
    for path in [manifest_path(models, name)] if name else sorted(manifest_paths(models)):
        if not path.is_file():
            assert name is not None  # a name is all that leads to a file that is not there
            raise ModelNotFound(f"model '{name.display()}' not found")
        try:
            manifest = load_manifest(models, path)
        except VllamadError as error:
            where = str(path.relative_to(models))
            report(Progress(status="verifying", file=where, problem=error.message))
        else:
            yield parse_model_name(manifest.name).display(), manifest


def _files(models: Path, manifest: Manifest) -> Iterator[_File]:
    """Those of the folder, and of the adapter. A folder of the configuration's has no digests."""
    folder = models / manifest.folder
    for file in manifest.files:
        yield _File(folder, file.path, file.size, file.sha256)
    adapter = manifest.overlay.adapter
    if adapter is not None and manifest.folder:
        place = adapters_folder(models, folder) / adapter.id
        yield _File(place, CONFIG, None, adapter.config)
        yield _File(place, WEIGHTS, None, adapter.weights)


def _problem(file: _File, progress: model_store.HashProgress) -> str:
    path = file.folder / file.path
    try:
        size = path.stat().st_size
        if file.size not in (None, size):
            return f"has {size} bytes, not {file.size}"
        same = model_store.hash_file(file.folder, file.path, progress).sha256 == file.sha256
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    except HostProblem as error:
        return error.message
    return "" if same else "has other content than it should"


class _Meter:
    """Turns bytes read into a step now and then."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self._before = 0
        self._told = 0.0

    def about(self, model: str, file: _File) -> model_store.HashProgress:
        def progress(name: str, done: int, size: int) -> None:
            if time.monotonic() - self._told >= REPORT_INTERVAL:
                self._told = time.monotonic()
                self._report(self.step(model, file, "", done))

        return progress

    def passed(self, file: _File) -> None:
        self._before += file.size or 0

    def step(self, model: str, file: _File, problem: str, done: int = 0) -> Progress:
        return Progress(
            status="verifying",
            model=model,
            file=file.path,
            problem=problem,
            completed=min(self._before + done, self._total),
            total=self._total,
        )
