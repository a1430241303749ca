"""What is installed: the store's models, local folders of the configuration, caches of others.

Looks at the disk on every call, but reads a file again only when it changed. Blocks, so call it
in a thread, all but `glance`; any number of threads may.
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
from vllamad.models.hub.other_caches import cached, find_cached
from vllamad.models.store.lora import WEIGHTS, StoredAdapter, adapter_folder, on_shelf, shelf
from vllamad.models.store.manifests import Manifest, check_whole, load, manifest_paths, path_of
from vllamad.models.store.safe_files import list_files

RECENT = 0.5  # seconds for which a look at all files of a model is good enough

# Every file with its size and the time of its last change, in nanoseconds.
Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledModel:
    """One model that can be served. `size` is bytes, `modified_at` seconds since the epoch."""

    name: str  # as shown to people, with its tag
    canonical: str
    digest: str
    size: int
    modified_at: float
    folder: Path
    facts: ModelFacts
    capabilities: tuple[str, ...]
    license: str  # the text where there is one, else an identifier
    settings: ModelSettings
    stored: bool = True  # False for a folder of the configuration, or in a cache of others
    base: str = ""  # the name, as shown, of the model it was made from
    overlay: Overlay = EMPTY_OVERLAY
    worker: str = ""  # the name its worker goes by, where it shares another's

    @property
    def runs_as(self) -> str:
        """The name its worker is known by."""
        return self.worker or self.name


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

        `caches` are Hugging Face caches whose models are to be had as well. Raises BadInput where
        a key of `settings` is no name.
        """
        self._models = models
        self._caches: tuple[Path, ...]
        self._useless: dict[_Place, Stamp] = {}  # what is in a cache and is no model for us
        self._facts: dict[
            Path, tuple[Stamp, ModelFacts]
        ] = {}  # by folder: several names may share one
        self._clock = clock
        self._engine: EngineFeatures | None
        self._settings: dict[str, ModelSettings]
        self._local: dict[str, ModelName]
        self._seen: dict[_Place, _Seen]
        self._found: dict[str, tuple[float, _Place]]  # by key: when, and where
        self._shelves: dict[Path, tuple[int, tuple[StoredAdapter, ...]]] = {}
        self._lock = Lock()
        self.configure(settings, engine, caches)

    def configure(
        self,
        settings: Mapping[str, ModelSettings],
        engine: EngineFeatures | None,
        caches: Iterable[str | Path] = (),
    ) -> None:
        """Go by other settings, engine and caches from now on.

        Raises BadInput where a key is no name.
        """
        named = {parse_model_name(text): one for text, one in settings.items()}
        with self._lock:
            self._engine = engine
            self._caches = tuple(map(Path, caches))
            self._settings = {name.key(): one for name, one in named.items()}
            self._local = {name.key(): name for name, one in named.items() if one.path}
            self._seen, self._found = {}, {}

    def find(self, text: str) -> InstalledModel | None:
        """Find a model by name, in any case; None where there is none.

        Raises BadInput for what is no name, HostProblem for a model that cannot be used.
        """
        name, now = parse_model_name(text), self._clock()
        key = name.key()
        with self._lock:
            if key in self._local:
                place = _Place(Path(self._settings[key].path), key)
                found = self._local_model(self._local[key])
            else:
                place = _Place(path_of(self._models, name))
                found = self._stored_model(place.path) if os.path.isfile(place.path) else None
                if found is None and (there := find_cached(self._caches, name)):
                    place = _Place(there[1], key)
                    found = self._cached_model(*there)
        if isinstance(found, HostProblem):
            raise found
        if found is not None:
            self._found[key] = now, place
        return found

    def glance(self, text: str) -> InstalledModel | None:
        """What `find` has just found, if its manifest is still the same; None: ask `find`.

        Costs one stat, so that it may be called where nothing may block.
        """
        when, place = self._found.get(parse_model_name(text).key(), (-inf, _Place(Path())))
        seen = self._seen.get(place)
        if seen is None or self._clock() - when > RECENT:
            return None
        try:
            return seen.installed if _stamp_of(place.path) == seen.stamp[0] else None
        except HostProblem:
            return None

    def is_configured(self, name: ModelName) -> bool:
        """Is that a folder the configuration names?"""
        return name.key() in self._local

    def adapters(self, installed: InstalledModel) -> tuple[StoredAdapter, ...]:
        """Every adapter there is for the weights of `installed`."""
        place = shelf(self._models, installed.folder)
        try:
            changed = os.stat(place).st_mtime_ns
        except OSError:
            return ()
        known = self._shelves.get(place)
        if known is None or known[0] != changed:
            known = self._shelves[place] = changed, on_shelf(self._models, installed.folder)
        return known[1]

    def all(self) -> list[InstalledModel]:
        """Every model that can be served, the newest first."""
        usable = [found for found in self._look() if isinstance(found, InstalledModel)]
        return sorted(usable, key=lambda installed: int(installed.modified_at), reverse=True)

    def problems(self) -> list[str]:
        """One line for each model that is there and cannot be used."""
        return [found.message for found in self._look() if isinstance(found, HostProblem)]

    def _look(self) -> list[InstalledModel | HostProblem]:
        with self._lock:
            found = [self._local_model(name) for name in self._local.values()]
            stored = [self._stored_model(path) for path in manifest_paths(self._models)]
            caches = [self._cached_model(*one) for one in cached(self._caches)]
            present = {
                one.folder for one in found + stored + caches if isinstance(one, InstalledModel)
            }
            self._seen = {
                place: seen
                for place, seen in self._seen.items()
                if seen.installed.folder in present
            }
            self._facts = {
                folder: read for folder, read in self._facts.items() if folder in present
            }
        found += [one for one in stored if not self._is_hidden(one)]
        taken = {one.canonical.lower() for one in found if isinstance(one, InstalledModel)}
        return found + [one for one in caches if one and one.canonical.lower() not in taken]

    def _is_hidden(self, found: InstalledModel | HostProblem) -> bool:
        """A folder in the configuration stands in place of an installed model of that name."""
        return isinstance(found, InstalledModel) and found.canonical.lower() in self._local

    def _cached_model(self, name: ModelName, folder: Path) -> InstalledModel | None:
        """A model in a cache of others; None for what is no model, or not all of one."""
        place = _Place(folder, name.key())
        useless = self._useless.get(place)
        try:
            if useless and useless == _stamp(folder, folder):
                return None
            found = self._fresh(place, lambda: _held_local(name, folder))
            if isinstance(found, HostProblem):
                self._useless[place] = _stamp(folder, folder)
        except HostProblem:  # it has just gone
            return None
        return found if isinstance(found, InstalledModel) else None

    def _stored_model(self, path: Path) -> InstalledModel | HostProblem:
        def look() -> _Held:
            manifest = load(self._models, path)
            check_whole(self._models, manifest)
            held = self._held(manifest) if manifest.folder else self._held_outside(manifest)
            return self._under(manifest, held)

        return self._fresh(_Place(path), look)

    def _held(self, manifest: Manifest) -> _Held:
        return _Held(
            name=parse_model_name(manifest.name),
            folder=self._models / manifest.folder,
            digest=manifest.digest,
            size=manifest.size,
            modified_at=manifest.created,
            license=manifest.license,
        )

    def _held_outside(self, manifest: Manifest) -> _Held:
        """A model derived from a folder that is not ours: its files are looked for there."""
        base = parse_model_name(manifest.base)
        if base.key() in self._local:
            folder = Path(self._settings[base.key()].path)
        elif found := find_cached(self._caches, base):
            base, folder = found
        else:
            raise HostProblem(
                f"cannot use {parse_model_name(manifest.name).display()}: {base.display()} is no"
                " longer in the configuration, nor in a cache"
            )
        held = _held_local(base, folder)._replace(stored=True)
        return held._replace(name=parse_model_name(manifest.name), modified_at=manifest.created)

    def _under(self, manifest: Manifest, held: _Held) -> _Held:
        """The same under what the manifest lays over it."""
        size = held.size
        if manifest.overlay.adapter is not None:
            folder = adapter_folder(self._models, held.folder, manifest.overlay.adapter)
            try:
                size += os.stat(folder / WEIGHTS).st_size
            except OSError as error:
                raise HostProblem(
                    f"cannot use {held.name.display()}: its adapter is missing"
                ) from error
        return held._replace(
            digest=derived_digest(held.digest, manifest.overlay),
            size=size,
            base=parse_model_name(manifest.base) if manifest.base else None,
            overlay=manifest.overlay,
        )

    def _local_model(self, name: ModelName) -> InstalledModel | HostProblem:
        folder = Path(self._settings[name.key()].path)
        return self._fresh(_Place(folder, name.key()), lambda: _held_local(name, folder))

    def _fresh(self, place: _Place, look: Callable[[], _Held]) -> InstalledModel | HostProblem:
        """What was read before, as long as nothing changed since; failures are tried again."""
        seen = self._seen.get(place)
        if seen and _unchanged(place.path, seen):
            return seen.installed
        try:
            held = look()
            # Taken before reading: what changes meanwhile is read again the next time.
            stamp = _stamp(place.path, held.folder)
            installed = self._installed(held, self._facts_of(held.folder, stamp[1:]))
        except VllamadError as error:
            return HostProblem(error.message, hint=error.hint)
        self._seen[place] = _Seen(stamp, installed)
        return installed

    def _facts_of(self, folder: Path, files: Stamp) -> ModelFacts:
        known = self._facts.get(folder)
        if known is None or known[0] != files:
            known = self._facts[folder] = files, read_facts(folder)
        return known[1]

    def _installed(self, held: _Held, facts: ModelFacts) -> InstalledModel:
        overlay, base = held.overlay, held.base
        if overlay.template:
            facts = replace(facts, chat_template=overlay.template)
        own = self._settings.get(held.name.key())
        # What takes flags of its own takes a worker of its own.
        shares = base is not None and own is None and not overlay.template
        inherited = self._settings.get(base.key()) if base else None
        settings = own or inherited or ModelSettings()
        return InstalledModel(
            name=held.name.display(),
            canonical=held.name.canonical(),
            digest=held.digest,
            size=held.size,
            modified_at=held.modified_at,
            folder=held.folder,
            facts=facts,
            capabilities=overlay.capabilities or capabilities(facts, settings.args, self._engine),
            license="\n".join(filter(None, (facts.license or held.license, *overlay.licenses))),
            settings=settings,
            stored=held.stored,
            base=base.display() if base else "",
            overlay=overlay,
            worker=base.display() if base and shares else "",
        )


class _Place(NamedTuple):
    """Where a model is: a manifest, or a folder and the name the configuration gives it."""

    path: Path
    key: str = ""  # one folder may have several names


class _Held(NamedTuple):
    """A model before its files are read."""

    name: ModelName
    folder: Path
    digest: str
    size: int
    modified_at: float
    license: str = ""
    base: ModelName | None = None
    overlay: Overlay = EMPTY_OVERLAY
    stored: bool = True


class _Seen(NamedTuple):
    stamp: Stamp
    installed: InstalledModel


def _held_local(name: ModelName, folder: Path) -> _Held:
    stamp = _stamp(folder, folder)
    # Hashing the files of a folder that is not ours could take minutes: their times do.
    content = json.dumps([str(folder), stamp])
    return _Held(
        name=name,
        folder=folder,
        digest=hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest(),
        size=sum(size for _, size, _ in stamp[1:]),
        modified_at=max(changed for _, _, changed in stamp) / 1e9,
        stored=False,
    )


def _unchanged(path: Path, seen: _Seen) -> bool:
    try:
        return seen.stamp == _stamp(path, seen.installed.folder)
    except HostProblem:  # the folder it was read from is gone
        return False


def _stamp(path: Path, folder: Path) -> Stamp:
    """What must change when `path`, or any file in `folder`, does. Raises HostProblem."""
    return (
        _stamp_of(path),
        *((name, one.st_size, one.st_mtime_ns) for name, one in list_files(folder)),
    )


def _stamp_of(path: Path) -> tuple[str, int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise HostProblem(f"cannot read {path}: {error.strerror}") from error
    # A manifest is replaced, never changed: the file's number tells two of one size and moment.
    return str(status.st_ino), status.st_size, status.st_mtime_ns
