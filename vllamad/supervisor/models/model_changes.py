"""Changes of the installed models: copy, create, delete. One at a time, each to its end.

The loop's side of `models/store/derived.py` and `models/store/from_upload.py`: disk work happens in
threads, and a worker whose files go is stopped before they do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import trio

from vllamad.core.model_name import ModelName, parse_model_name
from vllamad.core.overlay import Overlay, layer_digests, merge
from vllamad.errors import BadInput, ModelNotFound
from vllamad.models.installed import InstalledModel, InstalledModels
from vllamad.models.store import from_upload, lora, model_store, upload_blobs
from vllamad.models.store.derived import derive_model, remove_unused_adapters
from vllamad.models.store.manifests import Manifest
from vllamad.protocol.control import Progress
from vllamad.supervisor.models.library import Library
from vllamad.supervisor.workers.manager import WorkerManager

Report = Callable[[Progress], Awaitable[None]]


class ModelChanges:
    """Changes the model store; in this process only pulls change it too."""

    def __init__(
        self,
        models: Path,
        installed_models: InstalledModels,
        library: Library,
        fleet: WorkerManager,
    ) -> None:
        self._models = models
        self._installed_models = installed_models
        self._library = library
        self._fleet = fleet
        self._one_at_a_time = trio.Lock()

    async def copy(self, source: str, destination: str) -> None:
        """Let `destination` mean what `source` means. Raises ModelNotFound, BadInput."""
        name = self._own(destination)
        async with self._one_at_a_time:
            found = await self._library.find(source)
            if parse_model_name(found.canonical).key() != name.key():
                await self._put(found, name, found.overlay)

    async def create(self, model: str, base: str, overlay: Overlay, report: Report) -> None:
        """Let `model` mean `base` under `overlay`; a base that is not installed is pulled first.

        Raises ModelNotFound for a base the hub lacks, BadInput for an adapter that does not fit.
        """
        name = self._own(model)
        if await trio.to_thread.run_sync(self._installed_models.find, base) is None:

            async def step(progress: Progress) -> None:
                if not progress.done:
                    await report(progress)

            await self._library.pulls.attend(parse_model_name(base), step)
        async with self._one_at_a_time:
            found = await self._library.find(base)
            laid = merge(found.overlay, overlay)
            if overlay.adapter is not None:
                await trio.to_thread.run_sync(
                    lora.assemble_adapter, self._models, found.folder, overlay.adapter
                )
                await report(Progress(status="converting adapter"))
            await report(Progress(status=f"using existing layer sha256:{found.digest}"))
            for layer in layer_digests(overlay):
                await report(Progress(status=f"creating new layer {layer}"))
            await self._put(found, name, laid)
        await report(Progress(status="writing manifest"))
        await report(Progress(status="success", done=True))

    async def assemble(
        self, model: str, files: Mapping[str, str], overlay: Overlay, report: Report
    ) -> None:
        """Let `model` mean uploaded files, name to SHA-256, under `overlay`.

        Nothing is reported before the files are known to be a model. Raises BadInput if they are
        not; Unavailable while the model's repository is being pulled.
        """
        name = self._own(model)
        async with self._one_at_a_time:
            made = await trio.to_thread.run_sync(
                from_upload.plan_manifest, self._models, name, files, overlay
            )
            before = await trio.to_thread.run_sync(model_store.current_manifest, self._models, name)
            async with self._freeing(before, made):
                await trio.to_thread.run_sync(from_upload.lay_out_files, self._models, made)
                await report(Progress(status="converting model"))
                if left := sorted(files.keys() - {file.path for file in made.files}):
                    await report(Progress(status=f"leaving out {', '.join(left)}"))
                for file in made.files:
                    await report(Progress(status=f"using existing layer sha256:{file.sha256}"))
                for layer in layer_digests(overlay):
                    await report(Progress(status=f"creating new layer {layer}"))
                change = await trio.to_thread.run_sync(
                    model_store.replace_manifest, self._models, name, lambda: made
                )
                if before is not None and _needs_another_worker(before, change.now):
                    await self._fleet.stop(_shown(before), "it is another model now")
        await report(Progress(status="writing manifest"))
        await report(Progress(status="success", done=True))

    async def delete(self, model: str) -> None:
        """Delete `model`: new requests are refused, running ones finish, then its files go.

        Raises ModelNotFound; Unavailable while its repository is being pulled.
        """
        name = self._own(model)
        async with self._one_at_a_time:
            before = await trio.to_thread.run_sync(model_store.current_manifest, self._models, name)
            if before is None:
                await self._refuse_others(name)
            async with self._freeing(before):
                await trio.to_thread.run_sync(model_store.remove_name, self._models, name)
                shown = name.display() if before is None else _shown(before)
                if before and await trio.to_thread.run_sync(
                    model_store.is_used, self._models, before.folder
                ):  # requests may wait for it under another name
                    await self._fleet.stop(shown, "its name is gone")
                else:
                    gone = ModelNotFound(f"model '{model}' not found")
                    await self._fleet.forget(shown, gone)

    async def _put(self, base: InstalledModel, name: ModelName, overlay: Overlay) -> None:
        before = await trio.to_thread.run_sync(model_store.current_manifest, self._models, name)
        async with self._freeing(before):
            change = await trio.to_thread.run_sync(derive_model, self._models, base, name, overlay)
            if before is not None and _needs_another_worker(before, change.now):
                await self._fleet.stop(_shown(before), "it is another model now")

    async def _refuse_others(self, name: ModelName) -> None:
        """Raise BadInput for a model that is in the cache of another tool."""
        found = await trio.to_thread.run_sync(self._installed_models.find, name.canonical())
        if found is not None:
            raise BadInput(
                f"cannot delete {name.display()}: it is in a cache that other tools use too",
                hint=f"remove {found.folder.parents[1]} with the tool that brought it",
            )

    def _own(self, text: str) -> ModelName:
        """The parsed name. Raises BadInput if the configuration defines that model."""
        name = parse_model_name(text)
        if self._installed_models.is_configured(name):
            raise BadInput(
                f"cannot change {name.display()}: the configuration defines it",
                hint="remove its section from the configuration first",
            )
        return name

    @asynccontextmanager
    async def _freeing(
        self, before: Manifest | None, made: Manifest | None = None
    ) -> AsyncGenerator[None]:
        """At the end of the block remove the files that only `before` used.

        And those of `made`, if it did not become a model.
        """
        with _changing(self._models, before, made):
            try:
                yield
            finally:
                # A thread cannot be interrupted, and half a removal would never be finished.
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._tidy, before, made)

    def _tidy(self, before: Manifest | None, made: Manifest | None) -> None:
        for manifest in filter(None, (before, made)):
            model_store.discard_snapshot(self._models, manifest.folder)
            with_adapter = manifest.overlay.adapter is not None
            if with_adapter and self._fleet.worker(_runs_as(manifest)) is None:
                remove_unused_adapters(self._models)
        if before is not None:
            upload_blobs.release_blobs(self._models, (file.sha256 for file in before.files))


@contextmanager
def _changing(models: Path, *manifests: Manifest | None) -> Generator[None]:
    folders = {manifest.folder for manifest in manifests if manifest is not None} - {""}
    with ExitStack() as held:
        for name in sorted({model_store.repository_of(models, folder).name for folder in folders}):
            held.enter_context(model_store.repository_lock(models, name))
        yield


def _shown(manifest: Manifest) -> str:
    return parse_model_name(manifest.name).display()


def _runs_as(manifest: Manifest) -> str:
    return parse_model_name(manifest.base or manifest.name).display()


def _needs_another_worker(before: Manifest, now: Manifest) -> bool:
    return (before.folder, before.base, before.overlay.template) != (
        now.folder,
        now.base,
        now.overlay.template,
    )
