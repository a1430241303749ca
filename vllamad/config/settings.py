"""Every setting and its default, as plain frozen data.

It must not know where a value comes from: `config/load.py` does.
Durations are seconds, sizes are bytes; `FOREVER` is a keep-alive that never ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from pathlib import Path

FOREVER = inf

Flag = str | bool | int | float  # the value of one engine flag; true is the bare flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where things live. From the systemd directories, else one tree, else the XDG directories."""

    state: Path  # runtimes, and models
    cache: Path  # compile caches, probed facts
    logs: Path  # worker output, one file a model
    run: Path  # sockets and scratch files of the living
    control: Path  # the control socket
    models: Path = Path()  # models; by default in `state`
    config_files: tuple[Path, ...] = ()  # what was read, lowest precedence first
    registry_files: tuple[
        Path, ...
    ] = ()  # of known models, on top of ours, lowest precedence first
    hub_caches: tuple[Path, ...] = ()  # what huggingface_hub uses here

    def __post_init__(self) -> None:
        if self.models == Path():
            object.__setattr__(self, "models", self.state / "models")

    @property
    def broker(self) -> Path:
        """The socket gateways take leases on."""
        return self.run / "broker.sock"

    @property
    def runtimes(self) -> Path:
        return self.state / "runtimes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """[server]: the public API."""

    listen: tuple[str, ...] = ("127.0.0.1:11434",)
    gateways: int = 1
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    api_keys_file: str = ""  # in place of systemd's credential `api_keys`
    allow_unauthenticated: bool = False  # needed to listen beyond loopback without API keys
    ollama_version: str = "0.33.0"  # what /api/version says: clients compare it
    max_body: int = 32 << 20
    max_repetitions: int = 64  # of one pattern in an answer without limit; 0: without end
    token_inputs: bool = False  # /v1/embeddings takes token ids
    drain_timeout: float = 30.0  # how long open streams may go on once asked to stop


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """[control]: who may give orders over the control socket, besides root and ourselves."""

    group: str = "vllamad-ctl"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerSettings:
    """[scheduler]: when models are loaded, kept and evicted."""

    keep_alive: float = 300.0
    max_loaded_models: int = 0  # 0: as many as memory allows
    max_queue: int = 512
    max_running: int = 256  # leases one worker may serve at once
    queue_timeout: float = 300.0
    load_timeout: float = 1800.0
    memory: int = 0  # bytes of host memory workers may use on a CPU; 0: ask the machine
    gpu_overhead: int = 0  # bytes of each GPU that are left to others
    preload: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """[worker]: how a worker is watched, restarted and ended."""

    drain_timeout: float = 30.0
    stop_timeout: float = 10.0  # between TERM and KILL
    kill_timeout: float = 10.0  # after KILL, until the group must be empty
    probe_interval: float = 5.0
    probe_timeout: float = 3.0
    probe_misses: int = 3
    stuck_timeout: float = 60.0  # without a token while requests run
    backoff_base: float = 1.0
    backoff_limit: float = 60.0
    max_failures: int = 5  # starts in a row that never got ready
    failed_cooldown: float = 600.0
    memory_max: int = 0  # bytes of main memory a worker may take; 0: no limit
    keep_workers: bool = False  # over a restart or crash of the daemon; needs systemd


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """[engine]: which vLLM runs, and the flags every worker gets."""

    runtime: str = ""  # a name from `vllamactl runtime list`; empty: the one in use
    python: str = ""  # path of a Python that has vLLM; wins over `runtime`
    args: dict[str, Flag] = field(default_factory=dict[str, Flag])
    env: dict[str, str] = field(default_factory=dict[str, str])
    fork: bool = True  # the fork launcher, where the platform allows it
    cpu_kv_cache: int = 1 << 30  # bytes of KV cache a worker on a CPU gets
    context_length: int = 0  # of models without one of their own; 0: the model's


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """[model."name"]: what differs from [engine] and [scheduler] for one model."""

    path: str = ""  # a local checkpoint folder, in place of an installed one
    context_length: int = 0  # 0: the model's own
    keep_alive: float | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.0  # 0: planned
    memory_max: int = 0  # bytes of main memory; 0: that of [worker]
    args: dict[str, Flag] = field(default_factory=dict[str, Flag])
    env: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """[hub]: where models are pulled from."""

    endpoint: str = ""  # empty: HF_ENDPOINT, else Hugging Face's
    token_file: str = ""  # in place of systemd's credential `hf_token`
    caches: tuple[str, ...] = ()  # of other tools; empty: the one of huggingface_hub


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """[logging]: our own log, and the files of the workers."""

    level: str = "info"  # debug, info, warning, error
    format: str = "text"  # text or json
    max_bytes: int = 10 << 20  # a worker's file is rotated at this size
    keep: int = 3  # rotated files kept per worker


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key a client may send; only its SHA-256 is known. `scope` is `infer` or `manage`."""

    digest: str
    scope: str


@dataclass(frozen=True, slots=True)
class Remark:
    """A variable or setting that was said and has no effect; `expected` where none was wanted."""

    name: str
    why: str
    expected: bool = False

    def __str__(self) -> str:
        return f"{self.name} has no effect: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the daemon was told."""

    paths: Paths
    server: ServerSettings = field(default_factory=ServerSettings)
    control: ControlSettings = field(default_factory=ControlSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    hub: HubSettings = field(default_factory=HubSettings)
    logging: LogSettings = field(default_factory=LogSettings)
    models: dict[str, ModelSettings] = field(default_factory=dict[str, ModelSettings])
    # What the files and credentials held; never shown.
    api_keys: tuple[ApiKey, ...] = field(default=(), repr=False)
    hub_token: str = field(default="", repr=False)
    remarks: tuple[Remark, ...] = field(default=(), compare=False)

    @property
    def caches(self) -> tuple[str, ...]:
        """The Hugging Face caches of other tools."""
        return self.hub.caches or tuple(map(str, self.paths.hub_caches))
