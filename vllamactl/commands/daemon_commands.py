"""Commands on the daemon itself: status, ps, version, reload."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from vllamactl import human
from vllamactl.command_context import CommandContext
from vllamactl.progress import Progression
from vllamactl.render import BULLET, DONE, FAILED, STEP, Screen, table
from vllamad.errors import NotReachable
from vllamad.protocol import control

_ENDING = ("draining", "stopping")
_BROKEN = ("backoff", "failed")


def status(call: CommandContext) -> None:
    """Show the daemon in one look."""
    now = call.client.get("/v1/status", control.Status)
    call.screen.answer(now, _status_text(call.screen, now))


def ps(call: CommandContext, beginning: str = "") -> None:
    """Show the workers: what is loaded, on its way, or failed; or those whose names begin so."""
    found = call.client.get("/v1/workers", control.Workers).workers
    workers = control.Workers(
        workers=[one for one in found if one.model.lower().startswith(beginning.lower())]
    )
    names = [worker.model for worker in workers.workers]
    call.screen.answer(workers, workers_table(workers.workers), names)
    for line in _reasons(call.screen, workers.workers):
        call.screen.note(line)


def version(call: CommandContext) -> None:
    """Show the version of this command, and of the daemon if it runs."""
    from importlib.metadata import version as version_of  # slow, and needed only here

    own = version_of("vllamad")
    try:
        daemon = call.client.get("/v1/version", control.Version)
    except NotReachable:
        daemon = None
    data = {"client": own, "daemon": daemon and daemon.version, "api": control.API_VERSION}
    told = f"vllamad   {daemon.version}" if daemon else "vllamad   does not answer"
    call.screen.answer(data, f"vllamactl {own}\n{told}", [own])


def reload(call: CommandContext, *, wait: bool) -> None:
    """Have the daemon read its configuration again; with `wait`, until the new one counts."""
    found = control.Reloaded()
    with (
        Progression(call.screen, "reloading") as progression,
        closing(call.client.follow("/v1/reload")) as steps,
    ):
        for step in steps:
            found = step.reloaded or found
            if not wait:
                break
            if not step.done:
                progression.report(step)
    if call.screen.json:
        done = {"event": "done", "changes": found.changes, "replaced": found.replaced}
        call.screen.event(done)
        return
    call.screen.answer(None, _reload_text(call.screen, found, "in force" if wait else "accepted"))


def _reload_text(screen: Screen, found: control.Reloaded, how: str) -> str:
    if not found.changes:
        return f"{screen.mark(DONE)} nothing has changed"
    bullet = screen.mark(BULLET)
    width = max(map(len, found.changes))
    lines = [f"{screen.mark(DONE)} the new configuration is {how}"]
    lines += [
        f"  {bullet} {human.clean(key):<{width}}  {human.clean(effect)}"
        for key, effect in found.changes.items()
    ]
    if found.replaced:
        names = human.clean(", ".join(found.replaced))
        lines.append(f"  {screen.mark(STEP)} replaced as soon as idle: {names}")
    return "\n".join(lines)


def workers_table(workers: list[control.WorkerInfo]) -> str:
    """The table of `ps`."""
    heads = ("NAME", "STATE", "SIZE", "PROCESSOR", "CONTEXT", "LEASES", "UNTIL")
    return table(heads, [_row(worker) for worker in workers])


def _row(worker: control.WorkerInfo) -> tuple[str, ...]:
    return (
        worker.model,
        worker.state,
        human.size(worker.size) if worker.size else "-",
        _processor(worker.size, worker.size_vram),
        str(worker.context_length or "-"),
        str(worker.leases),
        _until(worker),
    )


def _processor(size: int, in_gpu: int) -> str:
    if not size:
        return "-"
    gpu = round(100 * min(in_gpu / size, 1.0))
    if gpu in (0, 100):
        return f"100% {'GPU' if gpu else 'CPU'}"
    return f"{100 - gpu}%/{gpu}% CPU/GPU"


def _until(worker: control.WorkerInfo) -> str:
    if worker.state in _ENDING:
        return "Stopping..."
    return human.from_now(worker.expires_in) if worker.state == "ready" else "-"


def _reasons(screen: Screen, workers: list[control.WorkerInfo]) -> Iterator[str]:
    """Why workers are not up, one line each."""
    for worker in workers:
        if worker.state in _BROKEN and worker.reason:
            mark = screen.mark(FAILED, screen.err)
            yield f"{mark} {human.clean(worker.model)}: {human.clean(worker.reason)}"


def _status_text(screen: Screen, now: control.Status) -> str:
    loaded = sum(worker.state == "ready" for worker in now.workers)
    gateways = f"{now.gateways} gateway{'s' if now.gateways != 1 else ''}"
    facts = [
        ("listening", f"{', '.join(now.listen) or 'nowhere'} ({gateways})"),
        ("runtime", _runtime(now.runtime)),
        ("models", f"{now.installed} installed, {loaded} loaded"),
        ("queue", f"{now.queued} waiting"),
    ]
    bullet = screen.mark(BULLET)
    head = f"{screen.mark(DONE)} vllamad {now.version}, pid {now.pid}"
    lines = [f"{head}, up {human.duration(now.uptime).lower()}"]
    lines += [f"  {bullet} {name:<12}{human.clean(value)}" for name, value in facts]
    if now.message:
        lines.append(f"  {screen.mark(STEP)} {human.clean(now.message)}")
    if now.workers:
        lines += ["", workers_table(now.workers)]
    lines += _reasons(screen, now.workers)
    return "\n".join(lines)


def _runtime(runtime: control.RuntimeInfo | None) -> str:
    if runtime is None:
        return "none: install one with `vllamactl runtime install`"
    problem = f": {runtime.problem}" if runtime.problem else ""
    return f"{runtime.name} ({runtime.engine} {runtime.version} on {runtime.device}){problem}"
