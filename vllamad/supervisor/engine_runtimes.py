"""Which engine workers started from now on will run, and on what kind of machine.

Looked up anew for every start, so that `vllamactl runtime use` needs no restart of the daemon. An
engine for GPUs never runs without: at boot their driver may be long in coming, and is waited for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from typing import Final

import trio

from vllamad.config.settings import Settings
from vllamad.core.cpu import NumberTimes, explain_threads
from vllamad.core.engine_features import EngineFeatures
from vllamad.core.launch import THREADS, Plan
from vllamad.core.memory import Device, Machine
from vllamad.engine.command import Engine
from vllamad.errors import RuntimeProblem
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.host.machine import devices, gpu_detection
from vllamad.host.machine.gpu_detection import Gpus
from vllamad.protocol.control import RuntimeInfo
from vllamad.runtimes.installed_runtimes import RuntimeFacts, resolve_runtime
from vllamad.runtimes.number_type import measure_and_remember, remembered_times

log = logging.getLogger(__name__)

_DRIVER_LIMIT: Final = 120.0  # seconds from our first look until a driver is not coming any more
_DRIVER_PAUSE: Final = 1.0
_NVML_LIMIT: Final = 30.0  # it takes a second or two for each GPU where nothing else has it open
_GPU_HINT: Final = (
    "see whether `nvidia-smi` answers; `modprobe nvidia-uvm` and `nvidia-modprobe -u -c0` load the "
    "driver, nvidia-persistenced.service does so at boot; `vllamactl runtime install --cpu` is an "
    "engine that needs none"
)


class EngineRuntimes:
    """The runtime in use and the machine as it sees it."""

    def __init__(
        self,
        settings: Settings,
        gpus: Callable[[], Gpus] = gpu_detection.look,
        cards: Callable[[], Sequence[str]] = gpu_detection.cards,
        measure: Callable[[RuntimeFacts, Path], NumberTimes] = measure_and_remember,
    ) -> None:
        """`gpus` looks for them, `cards` for what could be some; `measure` takes seconds."""
        self.settings = settings
        self._measure = measure
        self._measuring = trio.Lock()
        self._numbers: NumberTimes | None = None  # with the runtime in use, on this CPU
        self._unmeasured: set[str] = set()  # runtimes that could not be, or need not be
        self._look_for_gpus = gpus
        self._look_for_cards = cards
        self._warned_of = ""  # the runtime that leaves a card idle
        self._looking = trio.Lock()
        self._facts: RuntimeFacts | None = None
        self._problem: RuntimeProblem | None = None
        self._machine = Machine(host=0)
        self._gpus = Gpus()
        self._looked_for_gpus = -inf
        self._deadline = inf  # until when a driver may still come
        self._waiting = 0

    @property
    def machine(self) -> Machine:
        """The machine as last looked at; sized for the device the runtime is built for."""
        return replace(
            self._machine,
            devices=self._left(self._gpus) if self._needs_gpus else (),
            numbers=self._numbers or NumberTimes(),
        )

    def _left(self, gpus: Gpus) -> tuple[Device, ...]:
        """The GPUs, less what the operator leaves to others."""
        others = self.settings.scheduler.gpu_overhead
        return tuple(replace(gpu, foreign=gpu.foreign + others) for gpu in gpus.devices)

    async def hardware(self) -> Machine:
        """The machine that models are pulled for: without a runtime, with what GPUs there are."""
        await self.look()
        if self._facts is not None:
            return self.machine
        gpus = await self._in_time()
        return replace(self._machine, devices=self._left(gpus))

    async def look(self) -> None:
        """Find the runtime and measure the machine.

        What is missing is told by `ready` and `engine`.
        """
        async with self._looking:
            await trio.to_thread.run_sync(self._resolve)
            now = trio.current_time()
            # Once found, they are not measured again: what is held on them may be our workers'.
            if self._needs_gpus and not self._gpus.devices and now >= self._looked_for_gpus + 0.5:
                self._gpus = await self._in_time()
                self._looked_for_gpus = now
                self._deadline = min(self._deadline, now + _DRIVER_LIMIT)

    async def _in_time(self) -> Gpus:
        """What is seen of the GPUs; a driver that hangs must not hang us."""
        with trio.move_on_after(_NVML_LIMIT):
            return await trio.to_thread.run_sync(self._look_for_gpus, abandon_on_cancel=True)
        return Gpus(missing=f"NVML has not answered for {_NVML_LIMIT:.0f} s", may_come=True)

    async def ready(self, *, measured: bool = True) -> None:
        """Return once a model can be planned for; wait for a driver that may still be coming.

        With `measured` also until number types are: some seconds, once on each kind of CPU.
        Raises RuntimeProblem where the engine needs a GPU and there is none.
        """
        await self.look()
        if self._may_come:
            await self._wait_for_the_driver()
        if self._missing:
            raise _without_gpu(self._missing)
        if measured:
            await self._measure_numbers()

    async def _measure_numbers(self) -> None:
        """See which number type is fast, where that was never measured on this kind of CPU."""
        async with self._measuring:  # a call that comes meanwhile waits for the same result
            facts = self._facts
            if facts is None or facts.device != "cpu" or self._numbers is not None:
                return
            if facts.python in self._unmeasured:
                return
            event(log, logging.INFO, "measuring the speed of number types", runtime=facts.name)
            began = trio.current_time()
            try:
                # A waiting call may be cancelled: the result is in the cache for the next one.
                found = await trio.to_thread.run_sync(
                    self._measure, facts, self.settings.paths.cache, abandon_on_cancel=True
                )
            except RuntimeProblem as problem:
                self._unmeasured.add(facts.python)
                event(
                    log,
                    logging.WARNING,
                    "cannot measure number types, models keep their own",
                    error=problem.message,
                )
                return
            self._numbers = found
            after = f"{trio.current_time() - began:.1f}s"
            event(log, logging.INFO, "number types measured", after=after, **_milliseconds(found))

    @property
    def waiting_for(self) -> str:
        """What is missing that models wait for; empty if none does."""
        return self._missing if self._waiting else ""

    async def _wait_for_the_driver(self) -> None:
        began = trio.current_time()
        if not self._waiting:
            event(
                log,
                logging.WARNING,
                "waiting for the NVIDIA driver",
                LogEvent.DRIVER_WAITING,
                missing=self._missing,
            )
        self._waiting += 1
        try:
            while self._may_come:
                await trio.sleep(_DRIVER_PAUSE)
                await self.look()
        finally:
            self._waiting -= 1
        if not self._waiting:
            after = f"{trio.current_time() - began:.1f}s"
            event(
                log,
                logging.INFO,
                "no longer waiting for the NVIDIA driver",
                after=after,
                missing=self._missing,
            )

    @property
    def _may_come(self) -> bool:
        in_time = trio.current_time() < self._deadline
        return bool(self._missing) and self._gpus.may_come and in_time

    @property
    def _needs_gpus(self) -> bool:
        return self._facts is not None and self._facts.device == "cuda"

    @property
    def _missing(self) -> str:
        return self._gpus.missing if self._needs_gpus else ""

    async def engine(self) -> Engine:
        """What to start workers with. Raises RuntimeProblem where there is nothing to start."""
        facts = await self._look_for_facts()
        if self._missing:
            raise _without_gpu(self._missing)
        return Engine(python=facts.python, features=facts.features, openmp=openmp_of(facts)[0])

    def explained(self, plan: Plan) -> dict[str, object]:
        """How the engine last looked at will compute `plan` and why; empty with GPUs."""
        facts, spec = self._facts, plan.spec
        if facts is None or facts.device != "cpu":
            return {}
        machine = self._machine
        return {
            "dtype": spec.numbers.name,
            "dtype_why": spec.numbers.why,
            "threads": plan.threads,
            "threads_why": f"{THREADS} is set"
            if THREADS in spec.env
            else explain_threads(machine.cores, machine.busy_workers),
            "openmp": "LD_PRELOAD is set" if "LD_PRELOAD" in spec.env else openmp_of(facts)[1],
        }

    @property
    def features(self) -> EngineFeatures | None:
        """What the engine could do when it was last looked at; None if there was none."""
        return None if self._facts is None else self._facts.features

    async def info(self) -> RuntimeInfo:
        """The runtime as people are shown it. Raises RuntimeProblem."""
        facts = await self._look_for_facts()
        return RuntimeInfo(
            name=facts.name,
            python=facts.python,
            engine=facts.engine,
            version=facts.version,
            device=facts.device,
            in_use=True,
        )

    async def _look_for_facts(self) -> RuntimeFacts:
        await self.look()
        if self._problem is not None:
            raise self._problem
        assert self._facts is not None
        return self._facts

    def _resolve(self) -> None:
        settings, scheduler = self.settings, self.settings.scheduler
        paths, engine = settings.paths, settings.engine
        self._machine = devices.machine(
            memory=scheduler.memory,
            cpu_kv_cache=engine.cpu_kv_cache,
            # As many as memory allows may be loaded, but most often one of them is asked.
            busy_workers=scheduler.max_loaded_models or max(1, len(scheduler.preload)),
        )
        try:
            facts = resolve_runtime(
                paths.runtimes, engine.runtime, engine.python, cache=paths.cache
            )
        except RuntimeProblem as problem:
            self._facts, self._problem, self._numbers = None, problem, None
        else:
            self._facts, self._problem = facts, None
            self._numbers = remembered_times(facts, paths.cache) if facts.device == "cpu" else None
            self._warn_of_idle_cards(facts)

    def _warn_of_idle_cards(self, facts: RuntimeFacts) -> None:
        """Warn that the CPU does the work, so that its speed is no surprise."""
        if facts.device == "cuda" or facts.name == self._warned_of:
            return
        self._warned_of = facts.name
        if cards := self._look_for_cards():
            event(
                log,
                logging.WARNING,
                "the runtime is built for the CPU, GPUs stay idle",
                LogEvent.RUNTIME_CPU_ONLY,
                runtime=facts.name,
                idle_nvidia_gpus=len(cards),
                hint="vllamactl runtime install --cuda",
            )


def _milliseconds(times: NumberTimes) -> dict[str, str]:
    return {name: f"{milliseconds:.2f}ms" for name, milliseconds in asdict(times).items()}


def openmp_of(facts: RuntimeFacts) -> tuple[str, str]:
    """The OpenMP library to preload, that of the CPU build's own wheel, and what is used in words.

    The path is empty where there is none to preload.
    """
    library = Path(facts.python).parents[1] / "lib" / "libiomp5.so"
    if facts.device != "cpu" or not library.is_file():
        return "", "torch's own: the runtime has no libiomp5"
    if set(" :") & set(str(library)):  # the loader splits there, and knows no way to quote them
        return "", "torch's own: libiomp5 cannot be preloaded from a path with a space or colon"
    return str(library), "libiomp5"


def _without_gpu(missing: str) -> RuntimeProblem:
    return RuntimeProblem(
        f"cannot start an engine: the runtime is built for CUDA, but {missing}", hint=_GPU_HINT
    )
