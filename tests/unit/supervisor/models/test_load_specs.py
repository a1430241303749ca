"""From an installed model and its settings to what the scheduler plans with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.checkpoints import BERT, QWEN25_TEMPLATE, SMOLLM2, write_checkpoint
from tests.support.kv_caches import flat
from vllamad.config.settings import EngineSettings, ModelSettings
from vllamad.core.cpu import NumberTimes
from vllamad.core.memory import GIB, Device, Machine
from vllamad.models.installed import InstalledModel, InstalledModels
from vllamad.supervisor.models.load_specs import spec_of

ROOMY = Machine(host=64 * GIB, cpu_kv_cache=GIB)
ROOMY_CACHE = replace(ROOMY, cpu_kv_cache=16 * GIB)
CARD = Machine(host=64 * GIB, devices=(Device(index=0, total=80 * GIB),), cpu_kv_cache=GIB)
KV = 2 * 30 * 3 * 64 * 2  # bytes a token of SmolLM2 takes in the cache


def installed(
    folder: Path, config: Mapping[str, object] = SMOLLM2, template: str = "", **settings: object
) -> InstalledModel:
    write_checkpoint(folder, config, tokenizer_config_json={"chat_template": template})
    named = ModelSettings(path=str(folder), **settings)  # type: ignore[arg-type]
    found = InstalledModels(folder.parent / "none", {"tiny": named}).find("tiny")
    assert found is not None
    return found


def test_a_spec_has_the_models_name_files_and_needs(tmp_path: Path) -> None:
    model = installed(tmp_path / "m")
    spec = spec_of(model, ROOMY)
    assert (spec.model, spec.folder, spec.digest) == (
        "tiny:latest",
        str(tmp_path / "m"),
        model.digest,
    )
    assert spec.need.weights == model.facts.weight_bytes > 0
    assert spec.need.kv_per_token == KV
    assert spec.need.context_length == 8192
    assert (spec.need.gpus, spec.need.utilization) == (1, 0.0)
    assert spec.context_length == 0, "the engine knows the model's own"
    assert not spec.pooling


def test_the_operators_wishes_are_in_it(tmp_path: Path) -> None:
    model = installed(
        tmp_path / "m",
        context_length=4096,
        keep_alive=60.0,
        tensor_parallel_size=2,
        gpu_memory_utilization=0.5,
        args={"seed": 1},
        env={"A": "b"},
        memory_max=1 << 30,
    )
    spec = spec_of(model, CARD)
    assert spec.memory_max == 1 << 30
    assert (spec.context_length, spec.need.context_length) == (4096, 4096)
    assert (spec.need.gpus, spec.need.utilization, spec.keep_alive) == (2, 0.5, 60.0)
    assert (spec.args, spec.env) == ({"seed": 1}, {"A": "b"})


@pytest.mark.parametrize(
    ("cache", "machine", "wanted", "told"),
    [
        ((8192 + 384) * KV, ROOMY, 0, 0),
        ((8192 + 383) * KV, ROOMY, 0, 8064),  # whole blocks of 128 tokens, three of them spare
        (4096 * KV, ROOMY, 2048, 2048),
        ((1024 + 384) * KV, ROOMY, 2048, 1024),
        (KV, ROOMY, 2048, 128),  # one block, for which the cache grows
        (1024 * KV, CARD, 0, 0),
        (1024 * KV, CARD, 2048, 2048),
    ],
)
def test_a_context_is_cut_to_what_the_cache_of_a_cpu_holds(
    tmp_path: Path, cache: int, machine: Machine, wanted: int, told: int
) -> None:
    model = installed(tmp_path / "m", context_length=wanted)
    spec = spec_of(model, replace(machine, cpu_kv_cache=cache))
    assert spec.context_length == told
    assert spec.need.context_length == (told or 8192)


@pytest.mark.case("F8")
@pytest.mark.parametrize(
    ("every", "own", "told"),
    [(4096, 0, 4096), (4096, 2048, 2048), (4096, 8000, 8000), (100_000, 0, 0), (8192, 0, 0)],
)
def test_the_context_of_every_model_is_never_more_than_its_own(
    tmp_path: Path, every: int, own: int, told: int
) -> None:
    model = installed(tmp_path / "m", context_length=own)
    spec = spec_of(model, ROOMY_CACHE, own=EngineSettings(context_length=every))
    assert spec.context_length == told
    assert spec.engine.context_length == 0, "a model it does not touch is not loaded anew"


@pytest.mark.parametrize(
    ("total", "wanted", "told"),
    [
        (4 * GIB, 0, 7040),  # 0.92 of it, less 3 GiB, in whole blocks, three of them spare
        (8 * GIB, 0, 0),
        (4 * GIB, 8192, 8192),  # as it was asked for: refused when it does not fit
        (2 * GIB, 0, 0),  # nothing fits: the refusal names the model's own
    ],
)
def test_a_context_is_cut_to_what_a_gpu_could_hold(
    tmp_path: Path, total: int, wanted: int, told: int
) -> None:
    machine = Machine(host=64 * GIB, devices=(Device(index=0, total=total),))
    model = installed(tmp_path / "m", context_length=wanted)
    facts = replace(model.facts, cache=flat(96 << 10))
    spec = spec_of(replace(model, facts=facts), machine)
    assert spec.context_length == told
    assert spec.need.context_length == (told or 8192)


def test_what_is_not_known_of_a_model_cuts_nothing(tmp_path: Path) -> None:
    model = installed(tmp_path / "m")
    facts = replace(model.facts, cache=(), context_length=0)
    spec = spec_of(replace(model, facts=facts), ROOMY)
    assert (spec.context_length, spec.need.context_length) == (0, 0)


def test_an_embedding_model_is_one(tmp_path: Path) -> None:
    spec = spec_of(installed(tmp_path / "m", BERT), ROOMY)
    assert spec.pooling
    assert spec.tool_parser is None
    assert spec.numbers.name == "float32"
    assert spec_of(installed(tmp_path / "n", BERT), CARD).numbers.name == "auto"


def test_float32_is_counted_and_the_context_stays(tmp_path: Path) -> None:
    model = installed(tmp_path / "m")
    slow = replace(ROOMY, numbers=NumberTimes(bfloat16=3.0, float16=3.0, float32=1.0))
    own, wide = spec_of(model, ROOMY), spec_of(model, slow)
    assert (own.numbers.name, wide.numbers.name) == ("bfloat16", "float32")
    assert wide.need.weights == 2 * own.need.weights
    assert wide.need.kv_per_token == 2 * own.need.kv_per_token
    assert wide.need.context_length == own.need.context_length
    assert not own.serves(wide), "a worker in another type is another"


def test_the_smaller_type_stays_where_float32_would_not_fit(tmp_path: Path) -> None:
    model = installed(tmp_path / "m")
    times = NumberTimes(bfloat16=3.0, float16=3.0, float32=1.0)
    narrow = Machine(
        host=3 * GIB, cpu_kv_cache=GIB, numbers=times
    )  # 2 GiB of cache would not go in
    spec = spec_of(model, narrow)
    assert spec.numbers.name == "bfloat16"
    assert "would not fit" in spec.numbers.why
    assert spec.need == spec_of(model, ROOMY).need


@pytest.mark.parametrize("machine", [ROOMY, CARD])
def test_a_type_that_is_asked_for_is_used(tmp_path: Path, machine: Machine) -> None:
    spec = spec_of(installed(tmp_path / "m", args={"dtype": "float16"}), machine)
    assert (spec.numbers.name, spec.numbers.why) == ("float16", "set in args")
    assert spec.need == spec_of(installed(tmp_path / "n"), machine).need


def test_float32_that_is_asked_for_is_counted_on_a_cpu(tmp_path: Path) -> None:
    spec = spec_of(installed(tmp_path / "m", args={"dtype": "float32"}), ROOMY)
    assert spec.need.kv_element == 4


def test_the_parsers_its_template_calls_for_are_in_it(tmp_path: Path) -> None:
    spec = spec_of(installed(tmp_path / "m", template=QWEN25_TEMPLATE), ROOMY)
    assert (spec.tool_parser, spec.reasoning_parser) == ("hermes", None)


def test_the_wishes_for_every_engine_are_in_it_below_the_models_own(tmp_path: Path) -> None:
    model = installed(tmp_path / "m", args={"seed": 1}, env={"A": "own"})
    every = EngineSettings(
        args={"seed": 2, "max-num-seqs": 4}, env={"A": "all", "B": "all"}, fork=False
    )
    spec = spec_of(model, ROOMY, own=every)
    assert spec.args == {"seed": 1, "max-num-seqs": 4}
    assert spec.env == {"A": "own", "B": "all"}
    assert spec.engine == EngineSettings(fork=False), "what is merged is not in it twice"


@pytest.mark.parametrize(
    ("every", "serves"),
    [
        (EngineSettings(args={"seed": 2}), True),
        (EngineSettings(args={"max-num-seqs": 4}), False),
        (EngineSettings(env={"B": "c"}), False),
        (EngineSettings(python="/other/python"), False),
    ],
)
def test_a_change_for_every_engine_is_one_for_the_model_only_where_it_has_no_own(
    tmp_path: Path, every: EngineSettings, serves: bool
) -> None:
    model = installed(tmp_path / "m", args={"seed": 1})
    assert spec_of(model, ROOMY).serves(spec_of(model, ROOMY, own=every)) is serves
