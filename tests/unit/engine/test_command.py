"""A plan as vLLM's flags and environment: every flag is one that vLLM has, nothing leaks in."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from tests.support.engine_plans import (
    CPU_PLAN,
    CPU_RUNTIME,
    FLAGS_OF_VLLM,
    GPU_PLAN,
    GPU_RUNTIME,
    SPEC,
    WORKPLACE,
    dashed,
    with_features,
)
from vllamad.config.settings import EngineSettings, Flag
from vllamad.core.cpu import NumberType
from vllamad.core.launch import Lora, Plan
from vllamad.core.memory import GIB
from vllamad.engine.command import OURS, Engine, command, environment
from vllamad.errors import RuntimeProblem
from vllamad.host.systemd.notify import PRIVATE_VARIABLES

PRIVACY = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_PLUGINS": "",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "VLLM_MAX_N_SEQUENCES": "16",
    "VLLM_MAX_STOP_STRINGS": "64",
}


def changed(plan: Plan, **changes: object) -> Plan:
    return replace(plan, spec=replace(plan.spec, **changes))  # type: ignore[arg-type]


def flags_of(
    engine: Engine, plan: Plan, args: dict[str, Flag] | None = None
) -> dict[str, str | None]:
    """The flags with their values, None for a bare one."""
    words = command(engine, plan, WORKPLACE, EngineSettings(args=args or {}))[3:]
    found: dict[str, str | None] = {}
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            name, is_one_word, value = word.removeprefix("--").partition("=")
            found[name] = value if is_one_word else following
            if found[name] == following and following.startswith("--"):
                found[name] = None
    return found


def env_of(
    engine: Engine,
    plan: Plan,
    inherited: dict[str, str] | None = None,
    settings: EngineSettings | None = None,
) -> dict[str, str]:
    return environment(
        engine, plan, WORKPLACE, settings or EngineSettings(), inherited or {}, load_timeout=1800.0
    )


def test_a_cpu_worker_is_started_by_the_recipe() -> None:
    assert command(CPU_RUNTIME, CPU_PLAN, WORKPLACE, EngineSettings())[:3] == [
        "/runtimes/cpu/bin/python",
        "-P",
        CPU_RUNTIME.launcher,
    ]
    assert flags_of(CPU_RUNTIME, CPU_PLAN) == {
        "load-format": "safetensors",
        "shutdown-timeout": "0",
        "enable-per-request-metrics": None,
        "enable-prompt-tokens-details": None,
        "disable-fastapi-docs": None,
        "disable-access-log-for-endpoints": "/health,/metrics,/v1/models",
        "allowed-media-domains": "media.invalid",
        "limit-mm-per-prompt": '{"image":8,"video":0,"audio":0}',
        "enforce-eager": None,
        "max-num-seqs": "32",
        "kv-cache-memory-bytes": str(GIB),
        "model": "/models/smollm2",
        "served-model-name": "smollm2:135m",
        "uds": "/run/vllamad/w/0123/s",
    }


def test_a_gpu_worker_gets_the_throughput_defaults_and_no_more_of_the_card_than_planned() -> None:
    flags = flags_of(GPU_RUNTIME, GPU_PLAN)
    assert (
        flags
        | {
            "max-num-batched-tokens": "16384",
            "enable-chunked-prefill": None,
            "enable-prefix-caching": None,
            "kv-cache-memory-bytes": str(4 * GIB),
            "gpu-memory-utilization": "0.1",
        }
        == flags
    )
    assert not {"enforce-eager", "max-num-seqs", "tensor-parallel-size", "max-model-len"} & {*flags}


def test_several_gpus_share_the_cache() -> None:
    two = changed(GPU_PLAN, need=replace(SPEC.need, gpus=2))
    flags = flags_of(GPU_RUNTIME, replace(two, placement=replace(two.placement, devices=(0, 1))))
    assert flags["tensor-parallel-size"] == "2"
    assert flags["kv-cache-memory-bytes"] == str(2 * GIB)


def test_an_operators_share_of_the_card_replaces_the_planned_cache() -> None:
    flags = flags_of(GPU_RUNTIME, changed(GPU_PLAN, need=replace(SPEC.need, utilization=0.5)))
    assert flags["gpu-memory-utilization"] == "0.5"
    assert "kv-cache-memory-bytes" not in flags


@pytest.mark.parametrize(("engine", "plan"), [(CPU_RUNTIME, CPU_PLAN), (GPU_RUNTIME, GPU_PLAN)])
def test_a_share_among_the_flags_is_not_overruled_by_a_size_of_ours(
    engine: Engine, plan: Plan
) -> None:
    flags = flags_of(engine, plan, {"gpu-memory-utilization": 0.5})
    assert flags["gpu-memory-utilization"] == "0.5"
    assert "kv-cache-memory-bytes" not in flags


@pytest.mark.parametrize(("engine", "plan"), [(CPU_RUNTIME, CPU_PLAN), (GPU_RUNTIME, GPU_PLAN)])
def test_an_embedding_model_takes_no_more_memory_than_planned_either(
    engine: Engine, plan: Plan
) -> None:
    flags = flags_of(engine, changed(plan, pooling=True))
    assert flags["runner"] == "pooling"
    assert flags["kv-cache-memory-bytes"] == str(plan.placement.kv_cache)
    assert "max-num-batched-tokens" not in flags


def test_a_context_length_is_passed_only_where_one_was_chosen() -> None:
    assert "max-model-len" not in flags_of(CPU_RUNTIME, CPU_PLAN)
    assert flags_of(CPU_RUNTIME, changed(CPU_PLAN, context_length=2048))["max-model-len"] == "2048"


def test_parsers_are_named_only_to_an_engine_that_has_them() -> None:
    flags = flags_of(CPU_RUNTIME, changed(CPU_PLAN, tool_parser="hermes", reasoning_parser="qwen3"))
    assert flags["tool-call-parser"] == "hermes"
    assert "enable-auto-tool-choice" in flags
    assert flags["reasoning-parser"] == "qwen3"
    other = flags_of(CPU_RUNTIME, changed(CPU_PLAN, tool_parser="qwen3", reasoning_parser="hermes"))
    assert not {"tool-call-parser", "enable-auto-tool-choice", "reasoning-parser"} & {*other}


def test_a_parser_that_the_operator_names_gets_the_flag_it_needs() -> None:
    args: dict[str, Flag] = {"tool_call_parser": "mine"}
    flags = flags_of(CPU_RUNTIME, changed(CPU_PLAN, tool_parser="mine", args=args))
    assert flags["tool-call-parser"] == "mine"
    assert "enable-auto-tool-choice" in flags


@pytest.mark.parametrize(
    "plan",
    [
        changed(CPU_PLAN, context_length=1, tool_parser="hermes", reasoning_parser="qwen3"),
        changed(CPU_PLAN, pooling=True),
        changed(GPU_PLAN, context_length=1, tool_parser="hermes", reasoning_parser="qwen3"),
        changed(GPU_PLAN, pooling=True, need=replace(SPEC.need, gpus=2)),
        changed(GPU_PLAN, need=replace(SPEC.need, utilization=0.5)),
    ],
)
def test_every_flag_we_pass_of_our_own_accord_is_one_that_vllm_has(plan: Plan) -> None:
    # An engine whose flags are unknown is passed everything.
    engine = with_features(GPU_RUNTIME if plan.placement.devices else CPU_RUNTIME, flags=())
    assert {*flags_of(engine, plan)} <= FLAGS_OF_VLLM


def test_what_an_older_version_does_not_know_of_ours_is_left_out() -> None:
    older = with_features(
        CPU_RUNTIME,
        flags=dashed(FLAGS_OF_VLLM - {"enable-per-request-metrics", "limit-mm-per-prompt"}),
    )
    assert {*flags_of(CPU_RUNTIME, CPU_PLAN)} - {*flags_of(older, CPU_PLAN)} == {
        "enable-per-request-metrics",
        "limit-mm-per-prompt",
    }


def test_what_an_operator_wants_and_this_version_does_not_know_is_refused() -> None:
    with pytest.raises(RuntimeProblem) as caught:
        flags_of(CPU_RUNTIME, CPU_PLAN, {"max-num-seq": 4})
    assert caught.value.message == (
        "cannot start smollm2:135m: vLLM 0.32.0 does not know --max-num-seq"
    )
    assert caught.value.hint == "did you mean max-num-seqs?"


def test_a_flag_like_no_other_is_refused_with_a_place_to_look() -> None:
    with pytest.raises(RuntimeProblem, match="does not know --qqq") as caught:
        flags_of(CPU_RUNTIME, CPU_PLAN, {"qqq": True})
    assert "--help" in caught.value.hint


@pytest.mark.parametrize("name", [*sorted(OURS), "served_model_name"])
@pytest.mark.parametrize("engine", [CPU_RUNTIME, with_features(CPU_RUNTIME, flags=())])
def test_the_daemons_own_wiring_cannot_be_overridden(engine: Engine, name: str) -> None:
    with pytest.raises(RuntimeProblem, match="is set by vllamad itself") as caught:
        flags_of(engine, CPU_PLAN, {name: "x"})
    assert "remove" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value", "spelled"),
    [
        ("max-num-seqs", 4, "4"),
        ("seed", -1, "-1"),
        ("gpu-memory-utilization", 0.25, "0.25"),
        ("load-format", "dummy", "dummy"),
        ("trust-remote-code", True, None),
        ("max_num_seqs", 4, "4"),
        ("compilation-config.cudagraph_mode", "NONE", "NONE"),
    ],
)
def test_an_operators_value_is_spelled_and_wins(name: str, value: Flag, spelled: str) -> None:
    name_there = name.replace("max_num_seqs", "max-num-seqs")
    assert flags_of(CPU_RUNTIME, CPU_PLAN, {name: value})[name_there] == spelled


def test_a_flag_is_passed_once_however_often_and_wherever_it_was_set() -> None:
    plan = changed(CPU_PLAN, args={"max-num-seqs": 8})
    words = command(CPU_RUNTIME, plan, WORKPLACE, EngineSettings(args={"max_num_seqs": 4}))
    assert words.count("--max-num-seqs") == 1
    assert words[words.index("--max-num-seqs") + 1] == "8"


def test_false_negates_a_flag_that_has_a_negative_and_removes_one_that_has_none() -> None:
    flags = flags_of(CPU_RUNTIME, CPU_PLAN, {"enforce-eager": False, "load-format": False})
    assert "no-enforce-eager" in flags
    assert not {"enforce-eager", "load-format", "no-load-format"} & {*flags}


def test_a_value_that_begins_with_a_dash_is_not_taken_for_a_flag() -> None:
    assert "--load-format=-x" in command(
        CPU_RUNTIME, CPU_PLAN, WORKPLACE, EngineSettings(args={"load-format": "-x"})
    )


@pytest.mark.parametrize(("engine", "plan"), [(CPU_RUNTIME, CPU_PLAN), (GPU_RUNTIME, GPU_PLAN)])
def test_nothing_of_the_parents_environment_gets_through_but_what_is_allowed(
    engine: Engine, plan: Plan
) -> None:
    secret = dict.fromkeys(
        [
            *PRIVATE_VARIABLES,
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "HTTPS_PROXY",
            "LD_PRELOAD",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "SSH_AUTH_SOCK",
            "VLLAMAD_HOME",
            "VLLM_API_KEY",
            "VLLM_ALLOW_INSECURE_SERIALIZATION",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
            "VLLM_SERVER_DEV_MODE",
        ],
        "secret",
    )
    assert env_of(engine, plan, secret) == env_of(engine, plan)
    allowed = {
        "LANG": "C.UTF-8",
        "NCCL_DEBUG": "INFO",
        "CUDA_HOME": "/cuda",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
    }
    assert env_of(engine, plan, allowed) == env_of(engine, plan) | allowed


@pytest.mark.parametrize(("engine", "plan"), [(CPU_RUNTIME, CPU_PLAN), (GPU_RUNTIME, GPU_PLAN)])
def test_a_worker_is_offline_and_tells_nobody_anything(engine: Engine, plan: Plan) -> None:
    env = env_of(engine, plan, dict.fromkeys(PRIVACY, "of the parent"))
    assert env | PRIVACY == env


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("TMPDIR", WORKPLACE.run),
        ("VLLM_RPC_BASE_PATH", WORKPLACE.run),
        ("HOME", WORKPLACE.cache),
        ("VLLM_CACHE_ROOT", WORKPLACE.cache),
        ("XDG_CACHE_HOME", WORKPLACE.cache),
        ("HF_HOME", WORKPLACE.cache),
        ("TRITON_CACHE_DIR", WORKPLACE.cache),
        ("TORCHINDUCTOR_CACHE_DIR", WORKPLACE.cache),
        ("NUMBA_CACHE_DIR", WORKPLACE.cache),
    ],
)
def test_scratch_goes_with_the_worker_and_caches_stay(name: str, folder: Path) -> None:
    assert Path(env_of(CPU_RUNTIME, CPU_PLAN, {"HOME": "/root"})[name]).is_relative_to(folder)


def test_a_cpu_worker_binds_no_threads_and_takes_those_it_was_given() -> None:
    plan = replace(CPU_PLAN, placement=replace(CPU_PLAN.placement, threads=6))
    env = env_of(CPU_RUNTIME, plan)
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert env["OMP_NUM_THREADS"] == "6"
    assert env["KMP_BLOCKTIME"] == "5"
    of_before = env_of(CPU_RUNTIME, CPU_PLAN)  # planned by a daemon that knew nothing of threads
    assert of_before["OMP_NUM_THREADS"] == "1"


def test_the_openmp_of_the_runtimes_own_wheel_is_preloaded_on_a_cpu() -> None:
    there = replace(CPU_RUNTIME, openmp="/runtimes/cpu/lib/libiomp5.so")
    assert env_of(there, CPU_PLAN)["LD_PRELOAD"] == "/runtimes/cpu/lib/libiomp5.so"
    assert "LD_PRELOAD" not in env_of(CPU_RUNTIME, CPU_PLAN, {"LD_PRELOAD": "/of/the/daemon.so"})
    assert "LD_PRELOAD" not in env_of(replace(GPU_RUNTIME, openmp="/x/libiomp5.so"), GPU_PLAN)
    wished = changed(CPU_PLAN, env={"LD_PRELOAD": "/own.so"})
    assert env_of(there, wished)["LD_PRELOAD"] == "/own.so"


def test_a_model_is_computed_in_the_type_that_was_chosen() -> None:
    wide = changed(CPU_PLAN, numbers=NumberType(name="float32", why="2.3 x as fast"))
    words = command(CPU_RUNTIME, wide, WORKPLACE, EngineSettings())
    assert words[words.index("--dtype") + 1] == "float32"
    own = changed(CPU_PLAN, numbers=NumberType(name="bfloat16", why="its own"))
    assert "--dtype" not in command(CPU_RUNTIME, own, WORKPLACE, EngineSettings())
    asked = changed(wide, args={"dtype": "float16"})
    words = command(CPU_RUNTIME, asked, WORKPLACE, EngineSettings())
    assert words[words.index("--dtype") + 1] == "float16"


@pytest.mark.parametrize(("args", "disabled"), [({}, "1"), ({"enforce_eager": False}, None)])
def test_an_eager_worker_compiles_nothing_while_streams_wait(
    args: dict[str, Flag], disabled: str | None
) -> None:
    env = env_of(CPU_RUNTIME, changed(CPU_PLAN, args=args))
    assert env.get("TORCHDYNAMO_DISABLE") == disabled


def test_what_a_compiled_worker_on_a_cpu_compiled_is_there_for_the_next_one() -> None:
    env = env_of(CPU_RUNTIME, changed(CPU_PLAN, args={"enforce_eager": False}))
    assert env["VLLM_USE_AOT_COMPILE"] == "0"
    assert Path(env["TORCHINDUCTOR_CACHE_DIR"]).is_relative_to(WORKPLACE.cache)
    assert "VLLM_USE_AOT_COMPILE" not in env_of(CPU_RUNTIME, CPU_PLAN)
    assert "VLLM_USE_AOT_COMPILE" not in env_of(
        GPU_RUNTIME, changed(GPU_PLAN, args={"enforce-eager": False})
    )


@pytest.mark.parametrize(
    ("wanted", "possible", "forks"),
    [(True, True, "1"), (True, False, "0"), (False, True, "0")],
)
def test_children_are_forked_where_it_is_wanted_and_possible(
    wanted: bool, possible: bool, forks: str
) -> None:
    env = env_of(
        with_features(CPU_RUNTIME, fork=possible), CPU_PLAN, settings=EngineSettings(fork=wanted)
    )
    assert env["VLLAMAD_FORK"] == forks


def test_a_gpu_worker_sees_its_own_cards_only_and_never_forks() -> None:
    plan = replace(GPU_PLAN, placement=replace(GPU_PLAN.placement, devices=(0, 3)))
    env = env_of(
        GPU_RUNTIME, plan, {"CUDA_VISIBLE_DEVICES": "7", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    )
    assert env["CUDA_VISIBLE_DEVICES"] == "0,3"
    assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "VLLAMAD_FORK" not in env
    assert "OMP_NUM_THREADS" not in env


def test_an_operators_environment_wins_and_the_models_over_the_engines() -> None:
    settings = EngineSettings(env={"HF_HUB_OFFLINE": "0", "A": "engine", "B": "engine"})
    env = env_of(CPU_RUNTIME, changed(CPU_PLAN, env={"B": "model"}), settings=settings)
    assert (env["HF_HUB_OFFLINE"], env["A"], env["B"]) == ("0", "engine", "model")


LORAS = tuple(Lora(name=f"l{n}", folder=f"/l/{n}", rank=rank) for n, rank in enumerate((4, 48)))


def test_adapters_are_loaded_with_room_for_the_largest_rank() -> None:
    words = command(CPU_RUNTIME, changed(CPU_PLAN, loras=LORAS), WORKPLACE, EngineSettings())
    assert words[words.index("--lora-modules") :] == ["--lora-modules", "l0=/l/0", "l1=/l/1"]
    assert words[words.index("--max-lora-rank") + 1] == "64"
    assert words[words.index("--max-loras") + 1] == "2"
    assert "--enable-lora" in words
    assert "--enable-lora" not in command(CPU_RUNTIME, CPU_PLAN, WORKPLACE, EngineSettings())


def test_many_adapters_take_turns() -> None:
    many = tuple(Lora(name=f"l{n}", folder=f"/l/{n}", rank=8) for n in range(20))
    words = command(CPU_RUNTIME, changed(CPU_PLAN, loras=many), WORKPLACE, EngineSettings())
    assert words[words.index("--max-loras") + 1] == "8"
    assert words[words.index("--max-cpu-loras") + 1] == "20"


def test_a_template_of_the_plans_own_is_read_from_the_workers_folder() -> None:
    words = command(
        CPU_RUNTIME, changed(CPU_PLAN, template="{{ messages }}"), WORKPLACE, EngineSettings()
    )
    assert words[words.index("--chat-template") + 1] == str(WORKPLACE.template)


def test_the_runtimes_own_programs_come_first() -> None:
    assert env_of(CPU_RUNTIME, CPU_PLAN, {"PATH": "/bin"})["PATH"] == "/runtimes/cpu/bin:/bin"


def test_flashinfer_samples_only_where_its_kernels_came_compiled() -> None:
    assert env_of(GPU_RUNTIME, GPU_PLAN)["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in env_of(
        with_features(GPU_RUNTIME, flashinfer=True), GPU_PLAN
    )
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in env_of(CPU_RUNTIME, CPU_PLAN)


@pytest.mark.parametrize(("limit", "told"), [(1800.0, "1800"), (0.2, "1"), (inf, "1000000")])
def test_the_engine_waits_for_its_processes_as_long_as_we_wait_for_it(
    limit: float, told: str
) -> None:
    env = environment(GPU_RUNTIME, GPU_PLAN, WORKPLACE, EngineSettings(), {}, load_timeout=limit)
    assert env["VLLM_ENGINE_READY_TIMEOUT_S"] == told


@pytest.mark.case("F7")
def test_a_worker_s_user_has_a_name_where_passwd_has_none() -> None:
    assert env_of(CPU_RUNTIME, CPU_PLAN, {"USER": "root"})["USER"] == "vllamad"
    assert env_of(CPU_RUNTIME, CPU_PLAN, {})["LOGNAME"] == "vllamad"
