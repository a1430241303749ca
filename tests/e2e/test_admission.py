"""The contract with the engine: every context length we give is one that vLLM admits.

What we would give for each model of the catalogue on many machines is put to vLLM's own
`get_kv_cache_configs`, in the runtime's Python: nothing is loaded, so GPUs are among the machines.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.shapes import shapes
from tests.support.checkpoints import write_checkpoint
from vllamad.config.settings import ModelSettings
from vllamad.core.cpu import NumberTimes
from vllamad.core.memory import GIB, Device, Machine, Placement, find_placement
from vllamad.core.variants import KnownModel
from vllamad.models.installed import InstalledModel, InstalledModels
from vllamad.supervisor.models.load_specs import spec_of

pytestmark = pytest.mark.e2e

SCRIPT = Path(__file__).with_name("admission.py")
FAST_BF16 = NumberTimes(bfloat16=1.0, float16=1.0, float32=3.0)
NO_BF16 = NumberTimes(bfloat16=3.0, float16=3.0, float32=1.0)
Case = dict[str, Any]


def machines() -> Iterator[Machine]:
    for gib in (8, 16, 32, 64, 128, 256, 512):
        for numbers in (FAST_BF16, NO_BF16):
            yield Machine(host=gib * GIB, numbers=numbers)
    for count, gib in ((1, 8), (1, 12), (1, 16), (1, 24), (2, 24), (4, 48), (8, 80)):
        cards = tuple(Device(index=index, total=gib * GIB) for index in range(count))
        yield Machine(host=512 * GIB, devices=cards)


def installed(folder: Path, model: KnownModel, config: dict[str, Any], gpus: int) -> InstalledModel:
    """The model as pulled: its largest variant's weights, its config.json."""
    name = model.name.replace(":", "-")
    settings = ModelSettings(path=str(folder), tensor_parallel_size=gpus)
    found = InstalledModels(folder.parent / "none", {name: settings}).find(name)
    assert found is not None
    variant = model.variants[-1]  # the smallest: it runs where the others do not
    facts = replace(found.facts, weight_bytes=model.weights(variant), quantization="BF16")
    assert facts.context_length == config["max_position_embeddings"]
    return replace(found, facts=facts)


def cases(tmp_path: Path) -> Iterator[tuple[str, Case, Case]]:
    """What is given for each model and machine it fits, and what used to be."""
    for number, (model, config) in enumerate(shapes()):
        folder = write_checkpoint(tmp_path / str(number), config)
        by_gpus = {gpus: installed(folder, model, config, gpus) for gpus in (1, 2, 4, 8)}
        for machine in machines():
            for gpus in {1, len(machine.devices) or 1}:
                spec = spec_of(by_gpus[gpus], machine)
                placed = find_placement(spec.need, machine, ())
                if placed is not None:
                    length = spec.context_length or by_gpus[gpus].facts.context_length
                    yield from _put(model, config, machine, placed, spec.need.kv_element, length)


def _put(
    model: KnownModel, config: Case, machine: Machine, placed: Placement, element: int, length: int
) -> Iterator[tuple[str, Case, Case]]:
    gpus = max(1, len(placed.devices))
    size = placed.kv_cache // gpus
    latent = "kv_lora_rank" in config
    for block in (16, 64, 128) if placed.devices else ((16, 128) if latent else (128,)):
        device = "cuda" if placed.devices else "cpu"
        case = {"config": config, "device": device, "gpus": gpus, "element": element,
                "block": block, "bytes": size, "length": length}  # fmt: skip
        # To the last block, every layer alike, shared out among the GPUs: as it once was.
        alike = model.kv_per_token * element // 2
        held = size * gpus // alike // 128 * 128 if alike else 0
        yield (
            f"{model.name} on {machine.host >> 30} GiB, {len(machine.devices)} GPUs",
            case,
            case | {"length": min(model.context, held) or 128},
        )


def ask(prepared: Path, put: list[Case]) -> list[str]:
    """vLLM's answer to each: "", or its refusal."""
    python = prepared / "state" / "runtimes" / "current" / "bin" / "python"
    told = subprocess.run(
        [python, "-P", SCRIPT], input=json.dumps(put), capture_output=True, text=True,
        timeout=300, check=False, cwd="/", env={"VLLM_PLUGINS": "", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-3000:]
    # vLLM logs to stdout: the answer is its last line.
    return json.loads(told.stdout.splitlines()[-1])


def test_every_length_we_give_is_admitted_by_the_engine(prepared: Path, tmp_path: Path) -> None:
    names, now, before = zip(*cases(tmp_path), strict=True)
    # The same question is put once.
    keys = [json.dumps(case, sort_keys=True) for case in (*now, *before)]
    distinct = list(dict.fromkeys(keys))
    answers = dict(zip(distinct, ask(prepared, [json.loads(key) for key in distinct]), strict=True))
    refused = [
        f"{name}: {answers[key]}"
        for name, key in zip(names, keys[: len(now)], strict=True)
        if answers[key]
    ]
    old = sum(bool(answers[key]) for key in keys[len(now) :])
    models = {name.partition(" on ")[0] for name in names}
    print(
        f"{len(now)} lengths of {len(models)} models: {len(now) - len(refused)} admitted;"
        f" cut to the last block {old} were refused; {len(distinct)} questions"
    )
    assert not refused, "\n".join(refused[:20])
    assert len(models) > 150
    assert old > 100, "the question can be answered with no"
