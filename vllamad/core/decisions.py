"""The decisions of the scheduler. The caller carries them out in the order given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from vllamad.core.launch import Plan
from vllamad.errors import VllamadError

LeaseId = NewType("LeaseId", int)


@dataclass(frozen=True, slots=True)
class Grant:
    lease: LeaseId
    model: str


@dataclass(frozen=True, slots=True)
class Refuse:
    lease: LeaseId
    error: VllamadError


@dataclass(frozen=True, slots=True)
class Revoke:
    lease: LeaseId
    reason: str


@dataclass(frozen=True, slots=True)
class Start:
    plan: Plan


@dataclass(frozen=True, slots=True)
class Stop:
    model: str
    why: str


Decision = Grant | Refuse | Revoke | Start | Stop
