"""From what is wanted (a spec) to exactly how it will be launched (a plan).

Knows models only as numbers and names; spelling a plan as vLLM's flags is `engine/command.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vllamad.config.settings import EngineSettings, Flag
from vllamad.core.audio import AudioSupport
from vllamad.core.cpu import NumberType
from vllamad.core.memory import Machine, Need, Placement, largest_room, least_memory
from vllamad.errors import DoesNotFit

THREADS = "OMP_NUM_THREADS"  # the variable that says how many


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """An adapter a worker loads when it starts; `name` is what the engine is asked for."""

    name: str
    folder: str
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One model as the scheduler sees it: its name, its files, its needs, its operator's wishes."""

    model: str  # canonical name: what workers and leases are counted by
    folder: str
    need: Need
    digest: str = ""
    context_length: int = 0  # 0: left to the engine
    keep_alive: float | None = None
    pooling: bool = False
    numbers: NumberType = field(default_factory=NumberType)  # what it is computed in on a CPU
    audio: AudioSupport = AudioSupport.NONE  # as far as the engine has the packages
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    args: dict[str, Flag] = field(default_factory=dict[str, Flag])
    env: dict[str, str] = field(default_factory=dict[str, str])
    memory_max: int = 0  # bytes of main memory it may take; 0: what all may
    template: str = ""  # in place of the checkpoint's own; Jinja
    loras: tuple[Lora, ...] = ()  # all that the worker is to have
    lora: str = ""  # of these, the one that whoever asks wants to use
    engine: EngineSettings = field(default_factory=EngineSettings)  # less args and env: see above

    def serves(self, other: Spec) -> bool:
        """Can a worker that was started for this one answer for `other`?"""
        return self._launch == other._launch and (
            not other.lora or other.lora in {lora.name for lora in self.loras}
        )

    def starts_like(self, other: Spec) -> bool:
        """Would the two start with the same files and settings?"""
        return self.serves(other) and self.loras == other.loras

    @property
    def _launch(self) -> tuple[object, ...]:
        """What a worker is started with and keeps: files, and the operator's wishes."""
        return (
            self.folder,
            self.template,
            self.args,
            self.env,
            self.context_length,
            self.memory_max,
            self.need.gpus,
            self.need.utilization,
            self.need.kv_element,
            self.engine,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A spec with its place on this machine."""

    spec: Spec
    placement: Placement
    admitted: int = 0  # tokens the engine said it admits, having refused what the spec has

    @property
    def model(self) -> str:
        return self.spec.model

    @property
    def context_length(self) -> int:
        """Tokens the engine is told to admit; 0: left to it."""
        lengths = (self.admitted, self.spec.context_length)
        return min((length for length in lengths if length), default=0)

    @property
    def may_be_shortened(self) -> bool:
        """Once, and not where the operator spells the engine's own flag."""
        own = {name.replace("_", "-") for name in self.spec.args}
        return not self.admitted and "max-model-len" not in own

    def shortened(self, admitted: int) -> Plan:
        return replace(self, admitted=admitted)

    @property
    def threads(self) -> int:
        """How many compute on a CPU: what the operator set, else as planned; 0 with GPUs."""
        asked = self.spec.env.get(THREADS, "")
        return int(asked) if asked.isdecimal() else self.placement.threads

    @property
    def has_parsers(self) -> bool:
        """Did we choose parsers for it? Those the operator names stay, whatever comes of them."""
        spec = self.spec
        chosen = {spec.tool_parser, spec.reasoning_parser} - {None}
        return bool(chosen - {*spec.args.values()})

    def without_parsers(self) -> Plan:
        return replace(self, spec=replace(self.spec, tool_parser=None, reasoning_parser=None))

    def without_loras(self) -> Plan:
        return replace(self, spec=replace(self.spec, loras=()))

    def has_lora(self, name: str) -> bool:
        return any(lora.name == name for lora in self.spec.loras)


def does_not_fit(spec: Spec, machine: Machine) -> DoesNotFit:
    """The refusal for a model that would not fit even on an empty machine."""
    needs, room = least_memory(spec.need, machine) >> 20, largest_room(machine) >> 20
    return DoesNotFit(
        f"cannot load {spec.model}: it needs {needs} MiB, at most {room} MiB can be freed",
        hint="lower its context_length, spread it over more GPUs with tensor_parallel_size, "
        "or choose a smaller or quantised variant",
    )
