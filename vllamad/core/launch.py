"""The spec of a model, and the plan by which a worker of it is launched.

Knows models as numbers and names only; `engine/command.py` writes a plan as vLLM's flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vllamad.config.settings import EngineSettings, Flag
from vllamad.core.audio_support import AudioSupport
from vllamad.core.cpu import NumberType
from vllamad.core.memory import Machine, Need, Placement, largest_room, least_memory
from vllamad.errors import DoesNotFit

THREADS = "OMP_NUM_THREADS"  # the variable that sets the number of threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """An adapter that a worker loads at its start; requests to the engine name it by `name`."""

    name: str
    folder: str
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One model for the scheduler: its name, files, memory needs and configuration."""

    model: str  # canonical name, the key of workers and leases
    folder: str
    need: Need
    digest: str = ""
    context_length: int = 0  # 0: the engine chooses
    keep_alive: float | None = None
    pooling: bool = False
    numbers: NumberType = field(default_factory=NumberType)  # on a CPU
    audio: AudioSupport = AudioSupport.NONE  # as far as the engine has the packages
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    args: dict[str, Flag] = field(default_factory=dict[str, Flag])
    env: dict[str, str] = field(default_factory=dict[str, str])
    memory_max: int = 0  # bytes of main memory; 0: the limit of the daemon
    template: str = ""  # Jinja; replaces the checkpoint's template
    loras: tuple[Lora, ...] = ()  # all adapters that the worker loads
    lora: str = ""  # the adapter of these that the request uses
    # Without args and env, which are above.
    engine: EngineSettings = field(default_factory=EngineSettings)

    def serves(self, other: Spec) -> bool:
        """True if a worker that was started for this spec can answer requests for `other`."""
        return self._launch == other._launch and (
            not other.lora or other.lora in {lora.name for lora in self.loras}
        )

    def starts_like(self, other: Spec) -> bool:
        """True if both specs start a worker with the same files and settings."""
        return self.serves(other) and self.loras == other.loras

    @property
    def _launch(self) -> tuple[object, ...]:
        """The files and settings that are fixed when a worker starts."""
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
    """A spec with its placement on this machine."""

    spec: Spec
    placement: Placement
    admitted: int = 0  # tokens that the engine admits, after it refused the length of the spec

    @property
    def model(self) -> str:
        return self.spec.model

    @property
    def context_length(self) -> int:
        """The context length given to the engine, in tokens; 0: the engine chooses."""
        lengths = (self.admitted, self.spec.context_length)
        return min((length for length in lengths if length), default=0)

    @property
    def may_be_shortened(self) -> bool:
        """True if the length was not yet shortened and the operator sets no `max-model-len`."""
        operator_flags = {name.replace("_", "-") for name in self.spec.args}
        return not self.admitted and "max-model-len" not in operator_flags

    def shortened(self, admitted: int) -> Plan:
        return replace(self, admitted=admitted)

    @property
    def threads(self) -> int:
        """Computing threads on a CPU: the operator's number, else the planned one; 0 with GPUs."""
        operator_threads = self.spec.env.get(THREADS, "")
        return int(operator_threads) if operator_threads.isdecimal() else self.placement.threads

    @property
    def has_parsers(self) -> bool:
        """True if vllamad chose a parser. Parsers that the operator names are never dropped."""
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
    """The refusal of a model that does not fit on an empty machine."""
    needs, room = least_memory(spec.need, machine) >> 20, largest_room(machine) >> 20
    return DoesNotFit(
        f"cannot load {spec.model}: it needs {needs} MiB, at most {room} MiB can be freed",
        hint="lower its context_length, spread it over more GPUs with tensor_parallel_size, "
        "or choose a smaller or quantised variant",
    )
