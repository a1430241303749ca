"""The installed models for the control plane: specs to load, lists to show, pulls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import trio

from vllamad.config.settings import Settings
from vllamad.core.launch import Plan, Spec
from vllamad.core.memory import Machine, find_placement
from vllamad.core.model_name import ModelName
from vllamad.errors import ModelNotFound, VllamadError
from vllamad.host.systemd.notify import PRIVATE_VARIABLES
from vllamad.models import model_info
from vllamad.models.hub import pull_runner
from vllamad.models.installed import RECENT, InstalledModel, InstalledModels
from vllamad.protocol.control import ModelDetail, ModelInfo, ModelMemory, Progress, TensorInfo
from vllamad.supervisor.engine_runtimes import EngineRuntimes
from vllamad.supervisor.models.load_specs import spec_of
from vllamad.supervisor.models.pull_jobs import PullJobs, Report
from vllamad.supervisor.models.pull_source import origin_for
from vllamad.supervisor.workers.worker_paths import log_file


class Library:
    """Installed models, for the event loop: files are read in threads."""

    def __init__(
        self,
        settings: Settings,
        installed_models: InstalledModels,
        engines: EngineRuntimes,
        measured: Callable[[Machine], None],
        environ: Mapping[str, str],
    ) -> None:
        """`measured` receives the machine before each spec that is made for it."""
        self._settings = settings
        self._installed_models = installed_models
        self._engines = engines
        self._measured = measured
        self._environ = environ
        self.pulls = PullJobs(self.fetch)
        self._made: dict[str, tuple[float, InstalledModel, Spec]] = {}  # by name: when, of what

    def configure(self, settings: Settings) -> None:
        """Use other settings from now on."""
        self._settings = settings
        self._installed_models.configure(settings.models, self._engines.features, settings.caches)
        self._made.clear()

    async def find(self, name: str) -> InstalledModel:
        """The installed model of that name. Raises ModelNotFound, BadInput, HostProblem."""
        found = await trio.to_thread.run_sync(self._installed_models.find, name)
        if found is None:
            raise ModelNotFound(
                f"model '{name}' not found",
                hint="`vllamactl list` shows what is installed, `vllamactl pull` installs more",
            )
        return found

    async def spec(self, name: str, *, to_load: bool = True) -> Spec:
        """The spec for loading that model on this machine, at most a moment old.

        It is needed for every request, and almost always the model is loaded already. Without
        `to_load` it does not wait for measurements. Raises the errors of `find`, and RuntimeProblem
        if no model can be loaded at all.
        """
        now = trio.current_time()
        at, seen, spec = self._made.get(name, (0.0, None, None))
        if spec is not None and now - at < RECENT and self._installed_models.cached(name) is seen:
            return spec
        found = await self.find(name)
        await self._engines.ready(measured=to_load)
        machine = self._engines.machine
        self._measured(machine)
        adapters = await trio.to_thread.run_sync(self._installed_models.adapters, found)
        spec = spec_of(found, machine, adapters, self._engines.features, self._settings.engine)
        if to_load:
            self._made[name] = now, found, spec
        return spec

    async def models(self) -> list[ModelInfo]:
        installed = await trio.to_thread.run_sync(self._installed_models.all)
        return [_info(model) for model in installed]

    async def detail(self, name: str, *, tensors: bool = False) -> ModelDetail:
        found = await self.find(name)
        listed = await trio.to_thread.run_sync(model_info.tensor_entries, found) if tensors else ()
        return ModelDetail(
            info=_info(found),
            path=str(found.folder),
            parameters=model_info.parameters(found),
            template=found.facts.chat_template,
            license=found.license,
            model_info=dict(model_info.checkpoint_numbers(found, found.name)),
            system=found.overlay.system,
            modelfile=model_info.modelfile_of(found),
            memory=await self._memory(found),
            tensors=msgspec.convert(listed, list[TensorInfo]),
        )

    async def _memory(self, found: InstalledModel) -> ModelMemory:
        """The memory it needs; without a runtime, only the numbers in its files."""
        facts = found.facts
        known = ModelMemory(weights=facts.weight_bytes, kv_per_token=facts.kv_bytes_per_token)
        try:
            spec = await self.spec(found.name, to_load=False)
        except VllamadError:
            return known
        need, placed = spec.need, find_placement(spec.need, self._engines.machine, ())
        threads = Plan(spec=spec, placement=placed).threads if placed else 0
        return ModelMemory(
            weights=need.weights,
            kv_per_token=need.kv_per_token,
            context_length=need.context_length,
            planned=placed.total if placed else 0,
            dtype=spec.numbers.name if threads else "",
            dtype_why=spec.numbers.why if threads else "",
            threads=threads,
        )

    async def log_file(self, name: str) -> Path:
        """The path of the output of that model's workers; the file may not exist yet."""
        return log_file(self._settings.paths.logs, (await self.find(name)).worker_name)

    async def fetch(self, name: ModelName, report: Report) -> None:
        """Pull a model from the hub into the store."""
        try:
            if self._installed_models.is_configured(
                name
            ):  # a configured folder: there is nothing to pull
                await self.find(name.display())
                origin = None
            else:
                origin = await origin_for(name, self._settings, self._engines)
        except VllamadError:
            await report(Progress(status="pulling manifest"))  # as Ollama says before it fails
            raise
        if origin is None:
            await report(Progress(status="success", done=True))
            return
        environ = hub_environment(self._settings, self._environ)
        await pull_runner.run_pull(
            self._settings.paths.models, name, report, origin, environ=environ
        )


def hub_environment(settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a pull: ours without systemd's variables, with the hub's token."""
    hub = {"HF_ENDPOINT": settings.hub.endpoint, "HF_TOKEN": settings.hub_token}
    kept = {name: value for name, value in environ.items() if name not in PRIVATE_VARIABLES}
    return kept | {name: value for name, value in hub.items() if value}


def _info(model: InstalledModel) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        digest=model.digest,
        size=model.size,
        modified_at=model_info.modified_at(model),
        path=str(model.folder),
        family=model.facts.model_type,
        parameter_size=model_info.parameter_size(model.facts.parameter_count),
        quantization=model.facts.quantization,
        context_length=model_info.context_length(model),
        capabilities=list(model.capabilities),
    )
