"""The choice of the workers to evict."""

from __future__ import annotations

from math import inf

from vllamad.core.eviction import Resident, evict_for
from vllamad.core.memory import CPU_OVERHEAD, GIB, Machine, Need, Placement

MACHINE = Machine(host=10 * GIB + 4 * CPU_OVERHEAD, cpu_kv_cache=0)


def need(gib: int) -> Need:
    return Need(weights=gib * GIB, context_length=0)


def resident(
    model: str, gib: int, *, used: float = 0.0, leases: int = 0, keep: float = 300.0
) -> Resident:
    placement = Placement(devices=(), per_device=gib * GIB + CPU_OVERHEAD, kv_cache=0)
    return Resident(model=model, placement=placement, leases=leases, keep_alive=keep, used_at=used)


def leaving(model: str, gib: int) -> Resident:
    placement = Placement(devices=(), per_device=gib * GIB + CPU_OVERHEAD, kv_cache=0)
    return Resident(
        model=model, placement=placement, leases=0, keep_alive=0, used_at=0, leaving=True
    )


def test_the_least_recently_used_is_evicted_first() -> None:
    residents = [resident("new", 5, used=9), resident("old", 5, used=1)]
    assert evict_for(need(5), MACHINE, residents, 0) == ("old",)


def test_an_idle_worker_is_evicted_before_a_busy_one() -> None:
    residents = [resident("busy", 5, used=1, leases=1), resident("idle", 5, used=9)]
    assert evict_for(need(5), MACHINE, residents, 0) == ("idle",)


def test_an_endless_keep_alive_is_evicted_last_of_the_idle() -> None:
    """Ollama's vector 77: the shorter keep-alive is evicted, regardless of the last use."""
    residents = [resident("a", 5, used=1, keep=inf), resident("b", 5, used=9)]
    assert evict_for(need(5), MACHINE, residents, 2) == ("b",)


def test_no_more_are_evicted_than_needed() -> None:
    residents = [resident("small", 1, used=1), resident("large", 9, used=2)]
    assert evict_for(need(9), MACHINE, residents, 0) == ("large",)


def test_several_are_evicted_when_one_is_not_enough() -> None:
    residents = [resident("a", 3, used=1), resident("b", 3, used=2), resident("c", 3, used=3)]
    assert evict_for(need(7), MACHINE, residents, 0) == ("a", "b")


def test_leaving_workers_count_as_gone() -> None:
    assert evict_for(need(9), MACHINE, [leaving("a", 9)], 0) == ()


def test_the_cap_on_loaded_models_counts_as_room() -> None:
    residents = [resident("a", 1, used=1), resident("b", 1, used=2)]
    assert evict_for(need(1), MACHINE, residents, 2) == ("a",)


def test_a_model_too_large_for_the_machine_evicts_nothing() -> None:
    assert evict_for(need(99), MACHINE, [resident("a", 1)], 0) is None
