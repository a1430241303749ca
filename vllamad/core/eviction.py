"""The choice of the workers that are evicted to make room for a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from vllamad.core.memory import Machine, Need, Placement, find_placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A worker that holds memory; a `leaving` one is already stopping."""

    model: str
    placement: Placement
    leases: int
    keep_alive: float
    used_at: float
    leaving: bool = False


def evict_for(
    need: Need, machine: Machine, residents: Sequence[Resident], max_loaded: int
) -> tuple[str, ...] | None:
    """Name the residents to evict, cheapest first; None if no eviction makes enough room.

    Idle before busy, a finite keep-alive before an endless one, then least recently used. The
    result is empty where the residents that are already leaving make enough room.
    """
    staying = [resident for resident in residents if not resident.leaving]
    victims: list[Resident] = []
    candidates = sorted(staying, key=_cost)
    while not _has_room(need, machine, staying, max_loaded):
        if not candidates:
            return None
        victims.append(candidates.pop(0))
        staying.remove(victims[-1])
    return tuple(victim.model for victim in _needed(victims, need, machine, staying, max_loaded))


def _cost(resident: Resident) -> tuple[bool, bool, float]:
    return (resident.leases > 0, resident.keep_alive == inf, resident.used_at)


def _has_room(need: Need, machine: Machine, staying: Sequence[Resident], max_loaded: int) -> bool:
    if max_loaded and len(staying) >= max_loaded:
        return False
    return find_placement(need, machine, [resident.placement for resident in staying]) is not None


def _needed(
    victims: list[Resident],
    need: Need,
    machine: Machine,
    staying: list[Resident],
    max_loaded: int,
) -> list[Resident]:
    """Leave out the victims that a later, larger victim made needless."""
    needed: list[Resident] = []
    for victim in reversed(victims):
        if _has_room(need, machine, [*staying, victim], max_loaded):
            staying.append(victim)
        else:
            needed.append(victim)
    return needed[::-1]
