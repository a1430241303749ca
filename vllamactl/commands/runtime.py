"""Engine runtimes of this machine: install, list, use; needs no daemon."""

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

# vllamad.runtimes is imported where it is used: it is slow, and no other command needs it.


def install(
    call: CommandContext,
    *,
    device: Literal["cpu", "cuda"] | None,
    version: str | None,
    repair: bool = False,
) -> None:
    """Install an engine, or mend one, see it start, and show how it goes."""
    from vllamad.runtimes import install as installing
    from vllamad.runtimes import installed_runtimes

    folder = _folder(call.environ)
    before = {info.name for info in installed_runtimes.list_runtimes(folder) if not info.problem}
    mended: list[str] = []
    with Progression(
        call.screen, "mending a runtime" if repair else "installing a runtime"
    ) as progression:

        def progress(step: str) -> None:
            progression.report(Progress(status=step))

        if repair:
            facts, mended = installing.repair_runtime(
                folder, device=device, version=version, progress=progress
            )
        else:
            facts = installing.install_runtime(
                folder, device=device, version=version, progress=progress
            )
        elapsed = progression.elapsed
    if call.screen.json:
        names = ("name", "python", "engine", "version", "device")
        end: dict[str, object] = {name: getattr(facts, name) for name in names}
        end |= {"mended": mended} if repair else {}
        call.screen.event({"event": "done", **end, "elapsed": round(elapsed, 3)})
        return
    if repair:
        how = "is mended" if mended else "is sound: nothing was to be mended"
    else:
        how = "is here" if facts.name in before else f"installed in {human.clock(elapsed)}"
    told = [f"{call.screen.mark(DONE)} {facts.name} {how}", *(f"  {one}" for one in mended)]
    call.screen.answer(None, "\n".join(told))


def show(call: CommandContext) -> None:
    """Show the installed runtimes, and which one is in use."""
    from vllamad.runtimes.installed_runtimes import list_runtimes

    found = list_runtimes(_folder(call.environ))
    rows = [
        (info.name, info.version, info.device, "in use" if info.in_use else "-") for info in found
    ]
    names = [info.name for info in found]
    text = table(("NAME", "VERSION", "DEVICE", "STATE"), rows)
    call.screen.answer({"runtimes": found}, text, names)
    for info in found:
        if info.problem:
            mark = call.screen.mark(FAILED, call.screen.err)
            call.screen.note(f"{mark} {info.name}: {human.clean(info.problem)}")


def use(call: CommandContext, name: str) -> None:
    """Choose the runtime that workers run from their next start."""
    from vllamad.runtimes import installed_runtimes

    facts = installed_runtimes.use_runtime(_folder(call.environ), name)
    data = {"name": facts.name, "python": facts.python, "in_use": True}
    text = f"{call.screen.mark(DONE)} workers use {facts.name} from their next start"
    call.screen.answer(data, text)


def _folder(environ: Mapping[str, str]) -> Path:
    return read_settings(environ).paths.runtimes
