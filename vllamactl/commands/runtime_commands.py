"""The commands `runtime install`, `list` and `use`; they need no daemon."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from vllamactl import human
from vllamactl.command_context import CommandContext
from vllamactl.commands.config import read_settings
from vllamactl.progress import Progression
from vllamactl.render import DONE, FAILED, table
from vllamad.protocol.control import Progress

# vllamad.runtimes is imported late: it is slow, and no other command needs it.


def install(
    context: CommandContext,
    *,
    device: Literal["cpu", "cuda"] | None,
    version: str | None,
    repair: bool = False,
) -> None:
    """Install or repair an engine, test it, and show the progress."""
    from vllamad.runtimes import install as installing
    from vllamad.runtimes import installed_runtimes

    folder = _folder(context.environ)
    before = {info.name for info in installed_runtimes.list_runtimes(folder) if not info.problem}
    repaired: list[str] = []
    with Progression(
        context.screen, "repairing a runtime" if repair else "installing a runtime"
    ) as progression:

        def progress(step: str) -> None:
            progression.report(Progress(status=step))

        if repair:
            facts, repaired = installing.repair_runtime(
                folder, device=device, version=version, progress=progress
            )
        else:
            facts = installing.install_runtime(
                folder, device=device, version=version, progress=progress
            )
        elapsed = progression.elapsed
    if context.screen.json:
        names = ("name", "python", "engine", "version", "device")
        end: dict[str, object] = {name: getattr(facts, name) for name in names}
        end |= {"mended": repaired} if repair else {}
        context.screen.event({"event": "done", **end, "elapsed": round(elapsed, 3)})
        return
    if repair:
        result = "is repaired" if repaired else "is intact: nothing to repair"
    else:
        result = (
            "is already installed"
            if facts.name in before
            else f"installed in {human.clock(elapsed)}"
        )
    lines = [
        f"{context.screen.mark(DONE)} {facts.name} {result}",
        *(f"  {line}" for line in repaired),
    ]
    context.screen.answer(None, "\n".join(lines))


def show(context: CommandContext) -> None:
    """List the installed runtimes, and mark the one in use."""
    from vllamad.runtimes.installed_runtimes import list_runtimes

    runtimes = list_runtimes(_folder(context.environ))
    rows = [
        (info.name, info.version, info.device, "in use" if info.in_use else "-")
        for info in runtimes
    ]
    names = [info.name for info in runtimes]
    text = table(("NAME", "VERSION", "DEVICE", "STATE"), rows)
    context.screen.answer({"runtimes": runtimes}, text, names)
    for info in runtimes:
        if info.problem:
            mark = context.screen.mark(FAILED, context.screen.err)
            context.screen.note(f"{mark} {info.name}: {human.clean(info.problem)}")


def use(context: CommandContext, name: str) -> None:
    """Choose the runtime of workers, from their next start."""
    from vllamad.runtimes import installed_runtimes

    facts = installed_runtimes.use_runtime(_folder(context.environ), name)
    data = {"name": facts.name, "python": facts.python, "in_use": True}
    text = f"{context.screen.mark(DONE)} workers use {facts.name} from their next start"
    context.screen.answer(data, text)


def _folder(environ: Mapping[str, str]) -> Path:
    return read_settings(environ).paths.runtimes
