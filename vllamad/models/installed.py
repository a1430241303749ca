"""The installed models: of the store, of the configuration's folders, and of other tools' caches.

Looks at the disk on every call, but reads a file again only when it changed. Every method but
`cached` blocks: call it in a thread. Safe to call from several threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from vllamad.config.settings import ModelSettings
from vllamad.core.engine_features import EngineFeatures
from vllamad.core.model_name import ModelName, parse_model_name
from vllamad.core.overlay import EMPTY_OVERLAY, Overlay, derived_digest
from vllamad.errors import HostProblem, VllamadError
from vllamad.models.checkpoint.metadata import ModelFacts, read_facts
from vllamad.models.checkpoint.vllm_parsers import capabilities
from vllamad.models.hub.other_caches import find_cached, list_cached
from vllamad.models.store.lora import (
    WEIGHTS,
    StoredAdapter,
    adapter_folder,
    adapters_folder,
    list_adapters,
)
from vllamad.models.store.manifests import (
    Manifest,
    check_whole,
    load_manifest,
    manifest_path,
    manifest_paths,
)
from vllamad.models.store.safe_files import list_files

RECENT = 0.5  # seconds for which a check of all files of a model stays valid

# Every file with its size and the time of its last change, in nanoseconds.
Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledModel:
    """One model that can be served. `size` is bytes, `modified_at` seconds since the epoch."""

    name: str  # as displayed, with its tag
    canonical: str
    digest: str
    size: int
    modified_at: float
    folder: Path
    facts: ModelFacts
    capabilities: tuple[str, ...]
    license: str  # the text where there is one, else an identifier
    settings: ModelSettings
    stored: bool = True  # False: a folder of the configuration, or in another tool's cache
    base: str = ""  # the display name of the model it was made from
    overlay: Overlay = EMPTY_OVERLAY
    shared_worker: str = ""  # the name of the worker, where it shares that of its base

    @property
    def worker_name(self) -> str:
        """The name of the worker that serves it."""
        return self.shared_worker or self.name


class InstalledModels:
    """The installed models, by name and in all."""

    def __init__(
        self,
        models: Path,
        settings: Mapping[str, ModelSettings],
        clock: Callable[[], float] = time.monotonic,
        engine: EngineFeatures | None = None,
        caches: Iterable[str | Path] = (),
    ) -> None:
        """`models` is the store's root, `engine` what the engine in use can do, if known.

        `caches` are Hugging Face caches whose models are installed too. Raises BadInput where a
        key of `settings` is not a model name.
        """
        self._models = models
        self._caches: tuple[Path, ...]
        self._unusable: dict[_Location, Stamp] = {}  # folders of a cache that hold no usable model
        # By folder: several names may share one.
        self._facts: dict[Path, tuple[Stamp, ModelFacts]] = {}
        self._clock = clock
        self._engine: EngineFeatures | None
        self._settings: dict[str, ModelSettings]
        self._local: dict[str, ModelName]
        self._read: dict[_Location, _ReadModel]
        self._recent: dict[str, tuple[float, _Location]]  # by name: when and where it was found
        self._adapters: dict[Path, tuple[int, tuple[StoredAdapter, ...]]] = {}
        self._lock = Lock()
        self.configure(settings, engine, caches)

    def configure(
        self,
        settings: Mapping[str, ModelSettings],
        engine: EngineFeatures | None,
        caches: Iterable[str | Path] = (),
    ) -> None:
        """Replace the settings, the engine's parsers and the caches.

        Raises BadInput where a key of `settings` is not a model name.
        """
        named = {parse_model_name(text): configured for text, configured in settings.items()}
        with self._lock:
            self._engine = engine
            self._caches = tuple(map(Path, caches))
            self._settings = {name.key(): configured for name, configured in named.items()}
            self._local = {
                name.key(): name for name, configured in named.items() if configured.path
            }
            self._read, self._recent = {}, {}

    def find(self, text: str) -> InstalledModel | None:
        """Find a model by name, in any case; None where no model has it.

        Raises BadInput for an invalid name, HostProblem for a model that cannot be used.
        """
        name, now = parse_model_name(text), self._clock()
        key = name.key()
        with self._lock:
            if key in self._local:
                location = _Location(Path(self._settings[key].path), key)
                model = self._local_model(self._local[key])
            else:
                location = _Location(manifest_path(self._models, name))
                model = self._stored_model(location.path) if location.path.is_file() else None
                if model is None and (entry := find_cached(self._caches, name)):
                    location = _Location(entry[1], key)
                    model = self._cached_model(*entry)
        if isinstance(model, HostProblem):
            raise model
        if model is not None:
            self._recent[key] = now, location
        return model

    def cached(self, text: str) -> InstalledModel | None:
        """Return a recent result of `find` if the manifest is unchanged; None: call `find`.

        Costs one stat, so it may be called on the event loop.
        """
        when, location = self._recent.get(parse_model_name(text).key(), (-inf, _Location(Path())))
        read = self._read.get(location)
        if read is None or self._clock() - when > RECENT:
            return None
        try:
            return read.installed if _stamp_of(location.path) == read.stamp[0] else None
        except HostProblem:
            return None

    def is_configured(self, name: ModelName) -> bool:
        """Whether the configuration gives this name a local folder."""
        return name.key() in self._local

    def adapters(self, installed: InstalledModel) -> tuple[StoredAdapter, ...]:
        """Every stored adapter for the weights of `installed`."""
        folder = adapters_folder(self._models, installed.folder)
        try:
            changed = os.stat(folder).st_mtime_ns
        except OSError:
            return ()
        known = self._adapters.get(folder)
        if known is None or known[0] != changed:
            known = self._adapters[folder] = changed, list_adapters(self._models, installed.folder)
        return known[1]

    def all(self) -> list[InstalledModel]:
        """Every model that can be served, the newest first."""
        usable = [model for model in self._scan() if isinstance(model, InstalledModel)]
        return sorted(usable, key=lambda installed: int(installed.modified_at), reverse=True)

    def problems(self) -> list[str]:
        """One line for each installed model that cannot be used."""
        return [model.message for model in self._scan() if isinstance(model, HostProblem)]

    def _scan(self) -> list[InstalledModel | HostProblem]:
        with self._lock:
            models = [self._local_model(name) for name in self._local.values()]
            stored = [self._stored_model(path) for path in manifest_paths(self._models)]
            caches = [self._cached_model(*entry) for entry in list_cached(self._caches)]
            self._forget_except(
                {
                    model.folder
                    for model in models + stored + caches
                    if isinstance(model, InstalledModel)
                }
            )
        models += [model for model in stored if not self._is_hidden(model)]
        names = {model.canonical.lower() for model in models if isinstance(model, InstalledModel)}
        return models + [
            model for model in caches if model and model.canonical.lower() not in names
        ]

    def _forget_except(self, present: set[Path]) -> None:
        """Drop what was read from folders that are gone."""
        self._read = {
            location: read
            for location, read in self._read.items()
            if read.installed.folder in present
        }
        self._facts = {folder: facts for folder, facts in self._facts.items() if folder in present}

    def _is_hidden(self, model: InstalledModel | HostProblem) -> bool:
        """A folder in the configuration replaces an installed model of the same name."""
        return isinstance(model, InstalledModel) and model.canonical.lower() in self._local

    def _cached_model(self, name: ModelName, folder: Path) -> InstalledModel | None:
        """A model in another tool's cache; None where the folder holds no complete model."""
        location = _Location(folder, name.key())
        unusable = self._unusable.get(location)
        try:
            if unusable and unusable == _stamp(folder, folder):
                return None
            model = self._read_if_changed(location, lambda: _found_outside(name, folder))
            if isinstance(model, HostProblem):
                self._unusable[location] = _stamp(folder, folder)
        except HostProblem:  # removed since the cache was listed
            return None
        return model if isinstance(model, InstalledModel) else None

    def _stored_model(self, path: Path) -> InstalledModel | HostProblem:
        def find_files() -> _FoundModel:
            manifest = load_manifest(self._models, path)
            check_whole(self._models, manifest)
            found = (
                self._found_in_store(manifest) if manifest.folder else self._found_base(manifest)
            )
            return self._with_overlay(manifest, found)

        return self._read_if_changed(_Location(path), find_files)

    def _found_in_store(self, manifest: Manifest) -> _FoundModel:
        return _FoundModel(
            name=parse_model_name(manifest.name),
            folder=self._models / manifest.folder,
            digest=manifest.digest,
            size=manifest.size,
            modified_at=manifest.created,
            license=manifest.license,
        )

    def _found_base(self, manifest: Manifest) -> _FoundModel:
        """A model derived from one outside the store: its files are those of its base."""
        base = parse_model_name(manifest.base)
        if base.key() in self._local:
            folder = Path(self._settings[base.key()].path)
        elif entry := find_cached(self._caches, base):
            base, folder = entry
        else:
            raise HostProblem(
                f"cannot use {parse_model_name(manifest.name).display()}: its base"
                f" {base.display()} is neither in the configuration nor in a cache"
            )
        found = _found_outside(base, folder)._replace(stored=True)
        return found._replace(name=parse_model_name(manifest.name), modified_at=manifest.created)

    def _with_overlay(self, manifest: Manifest, found: _FoundModel) -> _FoundModel:
        """Apply the manifest's overlay to the model that was found."""
        size = found.size
        if manifest.overlay.adapter is not None:
            folder = adapter_folder(self._models, found.folder, manifest.overlay.adapter)
            try:
                size += os.stat(folder / WEIGHTS).st_size
            except OSError as error:
                raise HostProblem(
                    f"cannot use {found.name.display()}: its adapter is missing"
                ) from error
        return found._replace(
            digest=derived_digest(found.digest, manifest.overlay),
            size=size,
            base=parse_model_name(manifest.base) if manifest.base else None,
            overlay=manifest.overlay,
        )

    def _local_model(self, name: ModelName) -> InstalledModel | HostProblem:
        folder = Path(self._settings[name.key()].path)
        return self._read_if_changed(
            _Location(folder, name.key()), lambda: _found_outside(name, folder)
        )

    def _read_if_changed(
        self, location: _Location, find_files: Callable[[], _FoundModel]
    ) -> InstalledModel | HostProblem:
        """Return the model as it was read before if no file changed; failures are tried again."""
        read = self._read.get(location)
        if read and _unchanged(location.path, read):
            return read.installed
        try:
            found = find_files()
            # Taken before reading, so that a change during the read is noticed the next time.
            stamp = _stamp(location.path, found.folder)
            installed = self._installed(found, self._facts_of(found.folder, stamp[1:]))
        except VllamadError as error:
            return HostProblem(error.message, hint=error.hint)
        self._read[location] = _ReadModel(stamp, installed)
        return installed

    def _facts_of(self, folder: Path, files: Stamp) -> ModelFacts:
        known = self._facts.get(folder)
        if known is None or known[0] != files:
            known = self._facts[folder] = files, read_facts(folder)
        return known[1]

    def _installed(self, found: _FoundModel, facts: ModelFacts) -> InstalledModel:
        overlay, base = found.overlay, found.base
        if overlay.template:
            facts = replace(facts, chat_template=overlay.template)
        configured = self._settings.get(found.name.key())
        # A model with settings or a template of its own needs flags, and so a worker, of its own.
        shares_worker = base is not None and configured is None and not overlay.template
        inherited = self._settings.get(base.key()) if base else None
        settings = configured or inherited or ModelSettings()
        return InstalledModel(
            name=found.name.display(),
            canonical=found.name.canonical(),
            digest=found.digest,
            size=found.size,
            modified_at=found.modified_at,
            folder=found.folder,
            facts=facts,
            capabilities=overlay.capabilities or capabilities(facts, settings.args, self._engine),
            license="\n".join(filter(None, (facts.license or found.license, *overlay.licenses))),
            settings=settings,
            stored=found.stored,
            base=base.display() if base else "",
            overlay=overlay,
            shared_worker=base.display() if base and shares_worker else "",
        )


class _Location(NamedTuple):
    """Where a model is: the path of a manifest, or a folder with the name that means it."""

    path: Path
    key: str = ""  # one folder may have several names


class _FoundModel(NamedTuple):
    """A model whose files were located and not read yet."""

    name: ModelName
    folder: Path
    digest: str
    size: int
    modified_at: float
    license: str = ""
    base: ModelName | None = None
    overlay: Overlay = EMPTY_OVERLAY
    stored: bool = True


class _ReadModel(NamedTuple):
    """A model as it was read, and the stamp of its files then."""

    stamp: Stamp
    installed: InstalledModel


def _found_outside(name: ModelName, folder: Path) -> _FoundModel:
    """A model outside the store; its digest is made from its files' sizes and times."""
    stamp = _stamp(folder, folder)
    # Hashing the content could take minutes.
    content = json.dumps([str(folder), stamp])
    return _FoundModel(
        name=name,
        folder=folder,
        digest=hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest(),
        size=sum(size for _, size, _ in stamp[1:]),
        modified_at=max(changed for _, _, changed in stamp) / 1e9,
        stored=False,
    )


def _unchanged(path: Path, read: _ReadModel) -> bool:
    try:
        return read.stamp == _stamp(path, read.installed.folder)
    except HostProblem:  # the folder is gone
        return False


def _stamp(path: Path, folder: Path) -> Stamp:
    """A value that changes when `path` or any file in `folder` does. Raises HostProblem."""
    return (
        _stamp_of(path),
        *((name, status.st_size, status.st_mtime_ns) for name, status in list_files(folder)),
    )


def _stamp_of(path: Path) -> tuple[str, int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise HostProblem(f"cannot read {path}: {error.strerror}") from error
    # A manifest is replaced, never rewritten: the inode tells apart two of equal size and time.
    return str(status.st_ino), status.st_size, status.st_mtime_ns
