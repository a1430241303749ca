"""Placements of workers; sizes in GiB for the reader, bytes for the code."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.kv_caches import flat
from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.core.kv_cache import Layers
from vllamad.core.memory import (
    CPU_OVERHEAD,
    GIB,
    GPU_OVERHEAD,
    GPU_SHARE,
    Device,
    Machine,
    Need,
    Placement,
    find_placement,
    largest_room,
    least_memory,
    longest_context,
)

SMALL = Need(weights=GIB, cache=flat(1024), context_length=4096)
CPU = Machine(host=16 * GIB)
CARD = Device(index=0, total=80 * GIB)


def test_a_worker_on_a_cpu_takes_weights_cache_and_overhead() -> None:
    placement = find_placement(SMALL, CPU, [])
    assert placement == Placement(
        devices=(), per_device=2 * GIB + CPU_OVERHEAD, kv_cache=GIB, threads=1
    )
    assert least_memory(SMALL, CPU) == 2 * GIB + CPU_OVERHEAD


def test_a_worker_that_computes_in_32_bits_gets_cache_for_as_many_tokens() -> None:
    wide = replace(SMALL, weights=2 * GIB, kv_element=4)
    placement = find_placement(wide, CPU, [])
    assert placement is not None
    assert (placement.per_device, placement.kv_cache) == (4 * GIB + CPU_OVERHEAD, 2 * GIB)
    assert least_memory(wide, CPU) == placement.per_device
    assert longest_context(wide, CPU) == longest_context(SMALL, CPU)


def test_the_cores_of_a_cpu_are_shared_among_the_workers_that_may_be_busy() -> None:
    placement = find_placement(SMALL, replace(CPU, cores=9, busy_workers=2), [])
    assert placement is not None
    assert placement.threads == 4


def test_main_memory_limits_the_workers_on_a_cpu() -> None:
    taken: list[Placement] = []
    while (placement := find_placement(SMALL, CPU, taken)) is not None:
        taken.append(placement)
    assert len(taken) == 4


def test_a_worker_on_a_gpu_gets_cache_for_several_contexts_but_not_the_whole_card() -> None:
    placement = find_placement(SMALL, Machine(host=0, devices=(CARD,)), [])
    assert placement is not None
    assert placement.kv_cache == 4 * GIB
    assert placement.per_device == GIB + GPU_OVERHEAD + 4 * GIB


def test_a_large_model_gets_the_rest_of_the_card() -> None:
    need = Need(weights=60 * GIB, cache=flat(GIB // 1024), context_length=8192)
    machine = Machine(host=0, devices=(CARD,))
    placement = find_placement(need, machine, [])
    assert placement is not None
    assert placement.per_device == int(80 * GIB * GPU_SHARE) == largest_room(machine)


def test_a_model_without_room_for_one_context_does_not_fit() -> None:
    need = Need(weights=60 * GIB, cache=flat(GIB // 1024), context_length=131072)
    assert find_placement(need, Machine(host=0, devices=(CARD,)), []) is None


def test_a_share_never_exceeds_the_plan_on_any_card() -> None:
    cards = (Device(index=0, total=24 * GIB), Device(index=1, total=80 * GIB))
    need = Need(weights=30 * GIB, cache=flat(1024), context_length=4096, gpus=2)
    placement = find_placement(need, Machine(host=0, devices=cards), [])
    assert placement is not None
    assert placement.share > 0
    assert all(placement.share * card.total <= placement.per_device for card in cards)


def test_memory_of_other_programs_is_not_used() -> None:
    busy = Device(index=0, total=80 * GIB, foreign=73 * GIB)
    assert find_placement(SMALL, Machine(host=0, devices=(busy,)), []) is None


def test_the_roomiest_card_is_chosen() -> None:
    cards = (Device(index=0, total=24 * GIB), Device(index=1, total=24 * GIB))
    first = find_placement(SMALL, Machine(host=0, devices=cards), [])
    assert first is not None
    second = find_placement(SMALL, Machine(host=0, devices=cards), [first])
    assert second is not None
    assert {first.devices, second.devices} == {(0,), (1,)}


def test_tensor_parallel_takes_a_part_of_several_cards() -> None:
    cards = (Device(index=0, total=24 * GIB), Device(index=1, total=24 * GIB))
    need = Need(weights=30 * GIB, cache=flat(1024), context_length=4096, gpus=2)
    placement = find_placement(need, Machine(host=0, devices=cards), [])
    assert placement is not None
    assert placement.devices == (0, 1)
    assert placement.per_device > 15 * GIB + GPU_OVERHEAD
    assert least_memory(need, Machine(host=0, devices=cards)) < 24 * GIB


def test_a_model_for_more_cards_than_present_does_not_fit() -> None:
    need = Need(weights=GIB, cache=flat(2), context_length=1, gpus=2)
    assert find_placement(need, Machine(host=0, devices=(CARD,)), []) is None


@pytest.mark.parametrize(("share", "fits"), [(0.5, True), (0.95, False)])
def test_an_operators_share_replaces_the_plan(share: float, fits: bool) -> None:
    need = Need(weights=GIB, cache=flat(2), context_length=1, utilization=share)
    placement = find_placement(need, Machine(host=0, devices=(CARD,)), [])
    assert (placement is not None) == fits
    if placement is not None:
        assert placement.per_device == int(80 * GIB * share)


@accepts_some
@example(weights=[GIB], totals=[80 * GIB], host=0)
@given(
    weights=st.lists(st.integers(0, 40 * GIB), max_size=12),
    totals=st.lists(st.integers(0, 80 * GIB), max_size=4),
    host=st.integers(0, 64 * GIB),
)
def test_a_plan_never_exceeds_the_room(weights: list[int], totals: list[int], host: int) -> None:
    devices = tuple(Device(index=i, total=total) for i, total in enumerate(totals))
    machine = Machine(host=host, devices=devices)
    taken: list[Placement] = []
    for weight in weights:
        need = Need(weights=weight, cache=flat(4096), context_length=2048)
        placement = find_placement(need, machine, taken)
        if placement is not None:
            with accepted_or_refused():
                assert placement.total >= least_memory(need, machine)
            taken.append(placement)
    assert len(taken) <= len(weights)
    for device in devices:
        used = sum(other.per_device for other in taken if device.index in other.devices)
        assert used <= device.total * GPU_SHARE
    if not devices:
        assert sum(other.total for other in taken) <= host


LONG = 1 << 20


@pytest.mark.parametrize(
    ("need", "machine", "tokens"),
    [
        # Of 2**20 tokens of 1 KiB each, three blocks of 128 are not to be had.
        (Need(weights=GIB, cache=flat(1024), context_length=LONG), Machine(host=0), LONG - 1024),
        (Need(weights=GIB, cache=flat(1024), context_length=4096), Machine(host=0), 4096),
        (Need(weights=GIB, cache=flat(1024), context_length=LONG, kv_element=4),
         Machine(host=0), LONG - 1024),
        (Need(weights=GIB, context_length=LONG), Machine(host=0), LONG),
        (Need(weights=GIB, cache=flat(GIB), context_length=LONG), Machine(host=0), 128),
        (Need(weights=90 * GIB, cache=flat(2), context_length=LONG),
         Machine(host=0, devices=(CARD,)), 0),
        (Need(weights=GIB, cache=flat(2), context_length=LONG, gpus=2),
         Machine(host=0, devices=(CARD,)), 0),
        (Need(weights=GIB, cache=flat(GIB // 1024), context_length=LONG, utilization=0.5),
         Machine(host=0, devices=(CARD,)), 35 * 1024),
    ],
)  # fmt: skip
def test_the_longest_context_is_what_the_engine_admits(
    need: Need, machine: Machine, tokens: int
) -> None:
    assert longest_context(need, machine) == tokens


def test_the_cache_of_a_cpu_grows_to_hold_one_block() -> None:
    need = Need(weights=GIB, cache=flat(32 << 20), context_length=4096)
    machine = Machine(host=64 * GIB, cpu_kv_cache=GIB)
    assert longest_context(need, machine) == 128
    placement = find_placement(replace(need, context_length=128), machine, [])
    assert placement is not None
    assert placement.kv_cache == 4 * 128 * (32 << 20)
    assert placement.per_device == least_memory(need, machine)


layers = st.builds(
    Layers,
    count=st.integers(1, 80),
    heads=st.integers(1, 32),
    width=st.sampled_from([128, 256, 512]),
    window=st.sampled_from([0, 0, 1024]),
)


@accepts_some
@example(weights=GIB, cache=flat(4096), totals=[80 * GIB], gpus=1)
@given(
    weights=st.integers(0, 100 * GIB),
    cache=st.lists(layers, min_size=1, max_size=2).map(tuple),
    totals=st.lists(st.integers(GIB, 80 * GIB), min_size=1, max_size=4),
    gpus=st.sampled_from([1, 2, 4]),
)
def test_the_longest_context_is_placed_and_a_longer_one_is_not(
    weights: int, cache: tuple[Layers, ...], totals: list[int], gpus: int
) -> None:
    devices = tuple(Device(index=i, total=total) for i, total in enumerate(totals))
    machine = Machine(host=0, devices=devices)
    need = Need(weights=weights, cache=cache, context_length=LONG, gpus=gpus)
    longest = longest_context(need, machine)
    assert 0 <= longest <= LONG
    if longest:
        with accepted_or_refused():
            assert find_placement(replace(need, context_length=longest), machine, []) is not None
    if longest < LONG:
        longer = replace(need, context_length=longest + 1024 + 128)
        assert find_placement(longer, machine, []) is None


def test_some_longest_context_is_placed() -> None:
    """The property above also holds if no length ever fits."""
    need = Need(weights=8 * GIB, cache=flat(1 << 17), context_length=LONG)
    longest = longest_context(need, Machine(host=0, devices=(CARD,)))
    assert 65536 < longest < LONG


def test_the_bytes_of_a_token_follow_the_number_type() -> None:
    assert (SMALL.kv_per_token, replace(SMALL, kv_element=4).kv_per_token) == (1024, 2048)
