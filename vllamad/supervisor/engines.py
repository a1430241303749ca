"""Which engine workers started from now on will run, and on what kind of machine.

Looked up anew for every start, so that `vllamactl runtime use` needs no restart of the daemon.
"""

from __future__ import annotations

import trio

from vllamad.config.settings import Settings
from vllamad.core.memory import Machine
from vllamad.engine.command import Engine
from vllamad.errors import RuntimeProblem
from vllamad.host import devices
from vllamad.runtimes.catalog import RuntimeFacts, resolve
from vllamad.wire.control import RuntimeInfo
from vllamad.wire.gateway import EngineParsers


class Engines:
    """The runtime in use and the machine as it sees it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._facts: RuntimeFacts | None = None
        self._problem: RuntimeProblem | None = None
        self._machine = Machine(host=0)
        self._measured: str = ""  # the device `_machine` is the measure of

    @property
    def machine(self) -> Machine:
        """The machine as last looked at; sized for the device the runtime is built for."""
        return self._machine

    async def look(self) -> None:
        """Find the runtime, and measure the machine where the device is another than before.

        A missing runtime is told by `engine`.
        """
        self._facts, self._problem = await trio.to_thread.run_sync(self._resolve)
        device = self._facts.device if self._facts else "cpu"
        if device != self._measured:
            self._machine = await trio.to_thread.run_sync(self._measure, device)
            self._measured = device

    async def engine(self) -> Engine:
        """What to start workers with. Raises RuntimeProblem where there is nothing to start."""
        facts = await self._look_for_facts()
        if facts.device == "cuda" and not self._machine.devices:
            raise RuntimeProblem(
                "cannot start an engine: the runtime is built for CUDA, no NVIDIA GPU answers",
                hint="check `nvidia-smi`, or `vllamactl runtime install --cpu`",
            )
        return Engine(
            python=facts.python,
            version=facts.version,
            device=facts.device,
            fork=facts.fork,
            flags=frozenset(flag.removeprefix("--") for flag in facts.flags),
            tool_parsers=frozenset(facts.tool_parsers),
            reasoning_parsers=frozenset(facts.reasoning_parsers),
        )

    @property
    def parsers(self) -> EngineParsers | None:
        """What the engine could parse when it was last looked at; None if there was none."""
        facts = self._facts
        if facts is None:
            return None
        return EngineParsers(
            tools=frozenset(facts.tool_parsers), reasoning=frozenset(facts.reasoning_parsers)
        )

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

    def _measure(self, device: str) -> Machine:
        return devices.machine(
            device=device,
            memory=self._settings.scheduler.memory,
            cpu_kv_cache=self._settings.engine.cpu_kv_cache,
        )

    def _resolve(self) -> tuple[RuntimeFacts | None, RuntimeProblem | None]:
        paths, engine = self._settings.paths, self._settings.engine
        try:
            facts = resolve(paths.runtimes, engine.runtime, engine.python, cache=paths.cache)
        except RuntimeProblem as problem:
            return None, problem
        return facts, None
