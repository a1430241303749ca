"""The commands `verify` and `prune`: check files against digests, remove unneeded files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from vllamactl import human
from vllamactl.command_context import CommandContext
from vllamactl.progress import Progression
from vllamactl.render import BULLET, DONE, FAILED
from vllamad.errors import HostProblem
from vllamad.protocol.control import Progress, PruneOrder, VerifyOrder


def verify(context: CommandContext, model: str) -> None:
    """Hash every file of one model, or of all models, and list the bad ones."""
    bad: list[Progress] = []
    names: set[str] = set()
    title = f"verifying {model}" if model else "verifying"
    with Progression(context.screen, title) as progression:
        for step in _steps(context, "/v1/models/verify", VerifyOrder(model=model)):
            names |= {step.model} - {""}
            if step.problem:
                bad.append(step)
            elif step.model:
                words = f"{step.model} {step.file}"
                done, total = step.completed, step.total
                progression.report(Progress(status=words, completed=done, total=total))
        elapsed = progression.elapsed
    for step in bad:
        _print_bad(context, step)
    if bad:
        count = f"{len(bad)} file{'s are' if len(bad) > 1 else ' is'}"
        raise HostProblem(
            f"{count} not as downloaded",
            hint="`vllamactl pull MODEL` downloads a model's files again",
        )
    if context.screen.json:
        end = {"event": "done", "models": sorted(names), "bad": [], "elapsed": round(elapsed, 3)}
        context.screen.event(end)
        return
    count = f"{len(names)} model{'s' if len(names) != 1 else ''}"
    text = f"{context.screen.mark(DONE)} {model or count} verified in {human.clock(elapsed)}"
    context.screen.answer(None, text)


def prune(context: CommandContext, *, dry_run: bool) -> None:
    """Remove the files that no model needs, and list them; with `dry_run`, only list them."""
    with Progression(context.screen, "finding files that no model needs"):
        unneeded = [
            step
            for step in _steps(context, "/v1/models/prune", PruneOrder(dry_run=dry_run))
            if step.file
        ]
    freed = sum(step.total for step in unneeded)
    removed = [{"path": step.file, "size": step.total, "why": step.problem} for step in unneeded]
    bullet = context.screen.mark(BULLET)
    lines = [
        f"  {bullet} {human.clean(step.file)}  {human.size(step.total)}, {step.problem}"
        for step in unneeded
    ]
    verb = "would free" if dry_run else "freed"
    count = f"{len(unneeded)} item{'s' if len(unneeded) != 1 else ''}"
    done = context.screen.mark(DONE)
    lines.append(
        f"{done} {verb} {human.size(freed)}, {count}" if unneeded else f"{done} nothing to remove"
    )
    data = {"dry_run": dry_run, "removed": removed, "freed": freed}
    context.screen.answer(data, "\n".join(lines), [step.file for step in unneeded])


def _steps(
    context: CommandContext, path: str, order: VerifyOrder | PruneOrder
) -> Iterator[Progress]:
    with closing(context.client.follow(path, order)) as steps:
        yield from steps


def _print_bad(context: CommandContext, step: Progress) -> None:
    if context.screen.json:
        event = {"event": "bad", "model": step.model, "file": step.file, "problem": step.problem}
        context.screen.event(event)
        return
    mark = context.screen.mark(FAILED, context.screen.err)
    path = f"{step.model} {step.file}".strip()
    print(f"{mark} {human.clean(path)}: {human.clean(step.problem)}", file=context.screen.err)
