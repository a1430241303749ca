"""The settings a plan gives to the engine, and those it drops after a refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vllamad.config.settings import Flag
from vllamad.core.launch import THREADS, Lora, Plan, Spec
from vllamad.core.memory import Need, Placement

SPEC = Spec(
    model="tiny:latest",
    folder="/models/tiny",
    need=Need(weights=1, context_length=32768),
    context_length=32768,
)
PLAN = Plan(spec=SPEC, placement=Placement(devices=(), per_device=1, kv_cache=1, threads=2))


@pytest.mark.parametrize(
    ("planned", "admitted", "told"),
    [(32768, 0, 32768), (32768, 31744, 31744), (2048, 31744, 2048), (0, 31744, 31744), (0, 0, 0)],
)
def test_the_shorter_of_planned_and_admitted_length_is_used(
    planned: int, admitted: int, told: int
) -> None:
    plan = replace(PLAN, spec=replace(SPEC, context_length=planned)).shortened(admitted)
    assert plan.context_length == told


@pytest.mark.parametrize(
    ("args", "may"), [({}, True), ({"max_model_len": 8}, False), ({"max-model-len": 8}, False)]
)
def test_a_plan_is_shortened_once_and_never_below_a_flag_of_the_operator(
    args: dict[str, Flag], may: bool
) -> None:
    plan = replace(PLAN, spec=replace(SPEC, args=args))
    assert plan.may_be_shortened is may
    assert not plan.shortened(1024).may_be_shortened


def test_a_plan_gives_up_its_parsers_and_adapters() -> None:
    lora = Lora(name="one", folder="/adapters/one", rank=8)
    plan = replace(PLAN, spec=replace(SPEC, tool_parser="hermes", loras=(lora,)))
    assert (plan.model, plan.has_parsers, plan.has_lora("one")) == ("tiny:latest", True, True)
    assert not plan.without_parsers().has_parsers
    assert not plan.without_loras().has_lora("one")


def test_the_operators_threads_replace_the_planned_ones() -> None:
    assert PLAN.threads == 2
    assert replace(PLAN, spec=replace(SPEC, env={THREADS: "3"})).threads == 3
