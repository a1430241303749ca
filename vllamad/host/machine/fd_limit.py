"""Raises and reads the limit on open files and sockets of this process."""

from __future__ import annotations

import resource
from typing import Final

ENOUGH: Final = 65_536  # what the unit file grants too; some systems allow absurdly many


def raise_limit() -> None:
    """Raise the soft limit as far as permitted: the usual 1024 is for programs with select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """How many descriptors may be open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return ENOUGH if soft == resource.RLIM_INFINITY else soft
