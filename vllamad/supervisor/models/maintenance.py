"""Verifies and prunes installed models, each in a thread that reports its progress."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from vllamad.core.model_name import parse_model_name
from vllamad.models.store import pruning, verification
from vllamad.protocol.control import Progress

Report = Callable[[Progress], Awaitable[None]]


async def verify(models: Path, model: str, report: Report) -> None:
    """Hash the files of `model`, or of all models; a damaged file is reported, not raised."""
    name = parse_model_name(model) if model else None
    await report(Progress(status="verifying"))
    await _in_thread(partial(verification.verify_store, models, name), report)
    await report(Progress(status="verified", done=True))


async def prune(models: Path, report: Report, *, dry_run: bool) -> None:
    """Remove what no model needs; see `models/store/pruning.py`."""
    await _in_thread(partial(pruning.prune_store, models, dry_run=dry_run), report)
    await report(Progress(status="unneeded" if dry_run else "removed", done=True))


async def _in_thread(work: Callable[[Callable[[Progress], None]], None], report: Report) -> None:
    """Run `work` in a thread; if the client leaves, the next report ends it."""

    def report_step(step: Progress) -> None:
        trio.from_thread.run(report, step)

    await trio.to_thread.run_sync(work, report_step)
