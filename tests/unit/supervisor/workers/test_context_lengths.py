"""A context length that an engine named is used by later loads, of later daemons too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.kv_caches import flat
from vllamad.core.launch import Plan, Spec
from vllamad.core.memory import Need, Placement
from vllamad.supervisor.workers.context_lengths import FILE, MAX_ENTRIES, remembered

PLAN = Plan(
    spec=Spec(
        model="tiny:latest",
        folder="/models/tiny",
        digest="abc",
        need=Need(weights=1, cache=flat(2), context_length=32768),
        context_length=32768,
    ),
    placement=Placement(devices=(), per_device=2, kv_cache=1),
)
ENGINE = "cpu 0.32.0"
WIDE = replace(PLAN.spec.need, kv_element=4)


def test_what_the_engine_named_is_what_the_next_load_begins_with(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert remembered(PLAN, ENGINE, cache) == PLAN
    assert remembered(PLAN.shortened(31744), ENGINE, cache).context_length == 31744
    assert remembered(PLAN, ENGINE, cache).context_length == 31744
    assert remembered(PLAN.shortened(30720), ENGINE, cache).context_length == 30720
    assert remembered(PLAN, ENGINE, cache).context_length == 30720


@pytest.mark.parametrize(
    ("plan", "engine"),
    [
        (PLAN, "cpu 0.33.0"),
        (replace(PLAN, spec=replace(PLAN.spec, digest="def")), ENGINE),
        (replace(PLAN, placement=replace(PLAN.placement, kv_cache=2)), ENGINE),
        (replace(PLAN, spec=replace(PLAN.spec, need=WIDE)), ENGINE),
        (replace(PLAN, spec=replace(PLAN.spec, args={"block-size": 16})), ENGINE),
        (replace(PLAN, spec=replace(PLAN.spec, env={"VLLM_CPU_KVCACHE_SPACE": "2"})), ENGINE),
    ],
)
def test_it_holds_for_nothing_else(tmp_path: Path, plan: Plan, engine: str) -> None:
    remembered(PLAN.shortened(31744), ENGINE, tmp_path)
    assert remembered(plan, engine, tmp_path) == plan


def test_a_shorter_plan_stays_as_short_as_it_is(tmp_path: Path) -> None:
    remembered(PLAN.shortened(31744), ENGINE, tmp_path)
    short = replace(PLAN, spec=replace(PLAN.spec, context_length=2048))
    assert remembered(short, ENGINE, tmp_path).context_length == 2048


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": "b"}', "[" * 100_000])
def test_a_damaged_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert remembered(PLAN, ENGINE, tmp_path) == PLAN
    remembered(PLAN.shortened(31744), ENGINE, tmp_path)
    assert remembered(PLAN, ENGINE, tmp_path).context_length == 31744


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    for number in range(MAX_ENTRIES + 2):
        remembered(PLAN.shortened(1024), f"cpu {number}", tmp_path)
    assert remembered(PLAN, "cpu 0", tmp_path) == PLAN
    assert remembered(PLAN, f"cpu {MAX_ENTRIES + 1}", tmp_path).context_length == 1024


def test_a_folder_that_cannot_be_written_stops_no_load(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert remembered(PLAN.shortened(1024), ENGINE, tmp_path / "file").context_length == 1024
