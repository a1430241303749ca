"""Look after what is installed: verify that files are as they should be, prune the unneeded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from vllamactl import human
from vllamactl.command_context import CommandContext
from vllamactl.progress import Progression
from vllamactl.render import BULLET, DONE, FAILED
from vllamad.errors import HostProblem
from vllamad.protocol.control import Progress, PruneOrder, VerifyOrder


def verify(call: CommandContext, model: str) -> None:
    """Hash every file of a model, or of all, and name those that are bad."""
    bad: list[Progress] = []
    names: set[str] = set()
    title = f"verifying {model}" if model else "verifying"
    with Progression(call.screen, title) as progression:
        for step in _steps(call, "/v1/models/verify", VerifyOrder(model=model)):
            names |= {step.model} - {""}
            if step.problem:
                bad.append(step)
            elif step.model:
                words = f"{step.model} {step.file}"
                done, total = step.completed, step.total
                progression.report(Progress(status=words, completed=done, total=total))
        elapsed = progression.elapsed
    for one in bad:
        _tell_bad(call, one)
    if bad:
        count = f"{len(bad)} file{'s are' if len(bad) > 1 else ' is'}"
        raise HostProblem(
            f"{count} not as downloaded", hint="`vllamactl pull MODEL` brings a model's files again"
        )
    if call.screen.json:
        end = {"event": "done", "models": sorted(names), "bad": [], "elapsed": round(elapsed, 3)}
        call.screen.event(end)
        return
    count = f"{len(names)} model{'s' if len(names) != 1 else ''}"
    text = f"{call.screen.mark(DONE)} {model or count} verified in {human.clock(elapsed)}"
    call.screen.answer(None, text)


def prune(call: CommandContext, *, dry_run: bool) -> None:
    """Remove what no model needs, and say what and how much; with `dry_run`, only say."""
    with Progression(call.screen, "looking for what no model needs"):
        found = [
            step
            for step in _steps(call, "/v1/models/prune", PruneOrder(dry_run=dry_run))
            if step.file
        ]
    freed = sum(step.total for step in found)
    things = [{"path": one.file, "size": one.total, "why": one.problem} for one in found]
    bullet = call.screen.mark(BULLET)
    lines = [
        f"  {bullet} {human.clean(one.file)}  {human.size(one.total)}, {one.problem}"
        for one in found
    ]
    what = "would free" if dry_run else "freed"
    count = f"{len(found)} thing{'s' if len(found) != 1 else ''}"
    done = call.screen.mark(DONE)
    lines.append(
        f"{done} {what} {human.size(freed)}, {count}" if found else f"{done} nothing to remove"
    )
    data = {"dry_run": dry_run, "removed": things, "freed": freed}
    call.screen.answer(data, "\n".join(lines), [one.file for one in found])


def _steps(call: CommandContext, path: str, order: VerifyOrder | PruneOrder) -> Iterator[Progress]:
    with closing(call.client.follow(path, order)) as steps:
        yield from steps


def _tell_bad(call: CommandContext, one: Progress) -> None:
    if call.screen.json:
        event = {"event": "bad", "model": one.model, "file": one.file, "problem": one.problem}
        call.screen.event(event)
        return
    mark = call.screen.mark(FAILED, call.screen.err)
    where = f"{one.model} {one.file}".strip()
    print(f"{mark} {human.clean(where)}: {human.clean(one.problem)}", file=call.screen.err)
