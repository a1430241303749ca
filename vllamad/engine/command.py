"""Turns a plan into vLLM's flags and environment.

The only place that knows vLLM's flags. It neither reads files nor starts processes: the flags of
the installed version and the features of the machine come in as data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import ceil
from pathlib import Path

from vllamad.config.settings import EngineSettings, Flag
from vllamad.core.audio_support import AudioSupport, missing_packages
from vllamad.core.cpu import FLOAT32
from vllamad.core.engine_environment import gpu_sampler, runtime_path
from vllamad.core.engine_features import EngineFeatures
from vllamad.core.launch import THREADS, Plan
from vllamad.core.memory import GPU_STEP_TOKENS
from vllamad.errors import RuntimeProblem

LAUNCHER = Path(__file__).with_name("launch_vllm.py")

# The only variables of ours a worker may see; everything else is set below, or by the operator.
ALLOWED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "ONEDNN_MAX_CPU_ISA")
ALLOWED_PREFIXES = ("CUDA_", "NVIDIA_", "NCCL_")

# What an operator may not set: the daemon's own wiring.
OURS = frozenset({"model", "uds", "host", "port", "served-model-name", "api-key"})

# Of two ways to size the cache vLLM takes the bytes: they make way for an operator's share.
SHARE, BYTES = "gpu-memory-utilization", "kv-cache-memory-bytes"

CPU_MAX_SEQS = 32
_LONGEST_WAIT = 1_000_000  # seconds; vLLM counts milliseconds in 32 bits
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the limits vLLM lets one choose from
MAX_LORAS = 8  # in use in one step; more of them take turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What workers are started with: the runtime's Python, and what its vLLM can do."""

    python: str
    features: EngineFeatures
    openmp: str = ""  # path of the libiomp5 of its own wheel; empty: it has none
    launcher: str = str(LAUNCHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """The private directories of one worker; `run` is 0700 and short, `cache` is shared."""

    run: Path
    cache: Path

    @property
    def endpoint(self) -> Path:
        return self.run / "s"

    @property
    def template(self) -> Path:
        """Where a chat template of the plan's own is written."""
        return self.run / "template.jinja"


def command(engine: Engine, plan: Plan, place: Workplace, settings: EngineSettings) -> list[str]:
    """The worker's argument list. Raises RuntimeProblem for a flag this vLLM does not know."""
    configured = _dashed(settings.args) | _dashed(plan.spec.args)
    _refuse_bad_args(engine, plan, configured)
    _refuse_missing_packages(engine, plan)
    ours = {
        name: value
        for name, value in _defaults(engine, plan).items()
        if _knows(engine.features, name)
    }
    if SHARE in configured:
        ours.pop(BYTES, None)
    flags = {**ours, **configured, **_wiring(plan, place)}
    words = [word for name, value in flags.items() for word in _spell(engine, name, value)]
    return [engine.python, "-P", engine.launcher, *words, *_lora_modules(plan)]


def environment(
    engine: Engine,
    plan: Plan,
    place: Workplace,
    settings: EngineSettings,
    inherited: Mapping[str, str],
    *,
    load_timeout: float,
) -> dict[str, str]:
    """The worker's whole environment: an allow-list, our settings, then the operator's.

    The engine waits as long for its own processes as we wait for it: `load_timeout` seconds.
    """
    allowed = {
        name: value
        for name, value in inherited.items()
        if name in ALLOWED or name.startswith(ALLOWED_PREFIXES)
    }
    return {
        **allowed,
        "PATH": runtime_path(engine.python, inherited.get("PATH", "")),
        **_private(place),
        **_HARDENED,
        "VLLM_ENGINE_READY_TIMEOUT_S": str(ceil(min(load_timeout, _LONGEST_WAIT))),
        **(
            _on_gpu(engine, plan)
            if engine.features.device == "cuda"
            else _on_cpu(engine, plan, place, settings)
        ),
        **settings.env,
        **plan.spec.env,
    }


def _wiring(plan: Plan, place: Workplace) -> dict[str, Flag]:
    flags: dict[str, Flag] = {
        "model": plan.spec.folder,
        "served-model-name": plan.model,
        "uds": str(place.endpoint),
    }
    if plan.spec.template:
        flags["chat-template"] = str(place.template)
    return flags


def _lora_flags(plan: Plan) -> dict[str, Flag]:
    loras = plan.spec.loras
    if not loras:
        return {}
    highest = max(lora.rank for lora in loras)
    return {
        "enable-lora": True,
        "max-lora-rank": next(rank for rank in LORA_RANKS if rank >= highest),
        "max-loras": min(len(loras), MAX_LORAS),
        "max-cpu-loras": len(loras),
    }


def _lora_modules(plan: Plan) -> list[str]:
    loras = plan.spec.loras
    return ["--lora-modules", *(f"{lora.name}={lora.folder}" for lora in loras)] if loras else []


def _defaults(engine: Engine, plan: Plan) -> dict[str, Flag]:
    spec, features = plan.spec, engine.features
    audios = 0 if spec.audio is AudioSupport.NONE else 1
    flags: dict[str, Flag] = {
        "load-format": "safetensors",
        "shutdown-timeout": 0,  # draining is the daemon's: a worker's own drain can hang
        "enable-per-request-metrics": True,
        "enable-prompt-tokens-details": True,
        "disable-fastapi-docs": True,
        "disable-access-log-for-endpoints": "/health,/metrics,/v1/models",
        "allowed-media-domains": "media.invalid",  # no URL is ever fetched for a client
        "limit-mm-per-prompt": f'{{"image":8,"video":0,"audio":{audios}}}',
    }
    if plan.context_length:
        flags["max-model-len"] = plan.context_length
    # A parser that the engine does not list comes from the operator, maybe with a plugin.
    configured = spec.args.values()
    if spec.tool_parser and (
        spec.tool_parser in engine.features.tool_parsers or spec.tool_parser in configured
    ):
        flags |= {"enable-auto-tool-choice": True, "tool-call-parser": spec.tool_parser}
    if spec.reasoning_parser and spec.reasoning_parser in features.reasoning_parsers:
        flags["reasoning-parser"] = spec.reasoning_parser
    if spec.pooling:
        flags["runner"] = "pooling"
    flags |= _lora_flags(plan)
    return flags | (_gpu_flags(plan) if engine.features.device == "cuda" else _cpu_flags(plan))


def _gpu_flags(plan: Plan) -> dict[str, Flag]:
    need, placement = plan.spec.need, plan.placement
    flags: dict[str, Flag] = {}
    if not plan.spec.pooling and plan.spec.audio is not AudioSupport.TRANSCRIBE_ONLY:
        flags |= {
            "max-num-batched-tokens": GPU_STEP_TOKENS,
            "enable-chunked-prefill": True,
            "enable-prefix-caching": True,
        }
    if need.gpus > 1:
        flags["tensor-parallel-size"] = need.gpus
    if need.utilization:
        return flags | {SHARE: need.utilization}
    # Whatever the cache's size, vLLM starts only where this share of the card is free, by default
    # nearly all of it: no second worker would ever start beside a first.
    return flags | {BYTES: placement.kv_cache // need.gpus, SHARE: placement.share}


def _cpu_flags(plan: Plan) -> dict[str, Flag]:
    # Unset, the cache takes nearly all main memory, even for an embedding model.
    flags: dict[str, Flag] = {
        "enforce-eager": True,
        "max-num-seqs": CPU_MAX_SEQS,
        BYTES: plan.placement.kv_cache,
    }
    # Any other is what the engine takes by itself.
    return flags | {"dtype": FLOAT32} if plan.spec.numbers.name == FLOAT32 else flags


def _dashed(args: Mapping[str, Flag]) -> dict[str, Flag]:
    """The same under vLLM's own names: it takes max_num_seqs for max-num-seqs."""
    named: dict[str, Flag] = {}
    for text, value in args.items():
        name, dot, key = text.partition(".")
        named[name.replace("_", "-") + dot + key] = value
    return named


def _knows(features: EngineFeatures, name: str) -> bool:
    """Of a JSON flag a single key may be set: `compilation-config.mode`."""
    return features.has_flag(name.partition(".")[0])


def _refuse_bad_args(engine: Engine, plan: Plan, configured: Mapping[str, Flag]) -> None:
    for name in configured:
        if name in OURS:
            raise RuntimeProblem(
                f"cannot start {plan.model}: --{name} is set by vllamad itself",
                hint=f"remove {name} from args in the configuration",
            )
        if not _knows(engine.features, name):
            flags = [flag.removeprefix("--") for flag in engine.features.flags]
            near = get_close_matches(name, flags, n=1)
            raise RuntimeProblem(
                f"cannot start {plan.model}: vLLM {engine.features.version} does not know --{name}",
                hint=f"did you mean {near[0]}?" if near else "see `vllm serve --help=all`",
            )


def _refuse_missing_packages(engine: Engine, plan: Plan) -> None:
    """Raise RuntimeProblem: without them the engine starts, and refuses all audio as invalid."""
    missing = missing_packages(plan.spec.audio, engine.features.audio_packages)
    if plan.spec.audio is AudioSupport.TRANSCRIBE_ONLY and missing:
        raise RuntimeProblem(
            f"cannot start {plan.model}: it reads sound with {' and '.join(missing)}, which the"
            " runtime does not have",
            hint="`vllamactl runtime install` adds it; to a Python of your own: pip install "
            + " ".join(missing),
        )


def _spell(engine: Engine, name: str, value: Flag) -> list[str]:
    """One flag as words. A false one is left out, or negated where vLLM has the negative."""
    if value is True:
        return [f"--{name}"]
    if value is False:
        return [f"--no-{name}"] if f"--no-{name}" in engine.features.flags else []
    if str(value).startswith("-"):
        return [f"--{name}={value}"]  # as two words the value would be read as a flag
    return [f"--{name}", str(value)]


def _private(place: Workplace) -> dict[str, str]:
    return {
        "HOME": str(place.cache),
        # A uid of a container may have no name, and torch asks for one: getpass.getuser().
        "USER": "vllamad",
        "LOGNAME": "vllamad",
        "TMPDIR": str(place.run / "tmp"),
        "VLLM_RPC_BASE_PATH": str(place.run / "rpc"),
        "VLLM_CACHE_ROOT": str(place.cache / "vllm"),
        "XDG_CACHE_HOME": str(place.cache / "xdg"),
        "HF_HOME": str(place.cache / "hf"),
        "TRITON_CACHE_DIR": str(place.cache / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(place.cache / "inductor"),
        "NUMBA_CACHE_DIR": str(place.cache / "numba"),
    }


_HARDENED = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_PLUGINS": "",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "VLLM_MAX_N_SEQUENCES": "16",
    "VLLM_MAX_STOP_STRINGS": "64",  # vLLM's own default of 4 is less than clients send
    # A worker serves one model to one gateway, which has checked the name: clients see theirs back.
    "VLLM_SKIP_MODEL_NAME_VALIDATION": "1",
    "VLLM_DISABLE_LOG_LOGO": "1",
    "NO_COLOR": "1",
    "PYTHONUNBUFFERED": "1",
}


def _on_cpu(
    engine: Engine, plan: Plan, place: Workplace, settings: EngineSettings
) -> dict[str, str]:
    configured = _dashed(settings.args) | _dashed(plan.spec.args)
    # Eager is the model only: vLLM compiles small functions of its sampler all the same, each at
    # the first request that needs it. Measured with logprobs: every stream stands still for 14 s.
    eager = configured.get("enforce-eager", True)
    openmp = {"LD_PRELOAD": engine.openmp} if engine.openmp else {}
    return {
        **({"TORCHDYNAMO_DISABLE": "1"} if eager else _compiled(place)),
        **openmp,
        # Binding pins all workers to the same core: measured four times slower with two of them.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Threads of libiomp5 spin for 200 ms after their work, on the cores that others need.
        "KMP_BLOCKTIME": "5",
        THREADS: str(max(1, plan.placement.threads)),
        "VLLAMAD_FORK": "1" if settings.fork and engine.features.fork else "0",
    }


def _compiled(place: Workplace) -> dict[str, str]:
    """What makes a second start of a compiled model find what the first one compiled."""
    return {
        # vLLM 0.32 cannot load on a CPU what it saves ahead of time, and compiles all anew.
        "VLLM_USE_AOT_COMPILE": "0",
        # By default below TMPDIR, which goes with the worker.
        "TORCHINDUCTOR_CACHE_DIR": str(place.cache / "inductor"),
    }


def _on_gpu(engine: Engine, plan: Plan) -> dict[str, str]:
    return gpu_sampler(compiled=engine.features.flashinfer) | {
        "CUDA_VISIBLE_DEVICES": ",".join(str(index) for index in plan.placement.devices),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
