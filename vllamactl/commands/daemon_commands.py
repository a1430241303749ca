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


def status(context: CommandContext) -> None:
    """Show the state of the daemon."""
    now = context.client.get("/v1/status", control.Status)
    context.screen.answer(now, _status_text(context.screen, now))


def ps(context: CommandContext, prefix: str = "") -> None:
    """Show the workers: loaded, loading or failed; only those whose names have the prefix."""
    listed = context.client.get("/v1/workers", control.Workers).workers
    workers = control.Workers(
        workers=[worker for worker in listed if worker.model.lower().startswith(prefix.lower())]
    )
    names = [worker.model for worker in workers.workers]
    context.screen.answer(workers, workers_table(workers.workers), names)
    for line in _reasons(context.screen, workers.workers):
        context.screen.note(line)


def version(context: CommandContext) -> None:
    """Show the versions of this command and of the daemon, if it runs."""
    from importlib.metadata import version as version_of  # slow, and needed only here

    client = version_of("vllamad")
    try:
        daemon = context.client.get("/v1/version", control.Version)
    except NotReachable:
        daemon = None
    data = {"client": client, "daemon": daemon and daemon.version, "api": control.API_VERSION}
    line = f"vllamad   {daemon.version}" if daemon else "vllamad   not reachable"
    context.screen.answer(data, f"vllamactl {client}\n{line}", [client])


def reload(context: CommandContext, *, wait: bool) -> None:
    """Reload the daemon's configuration; with `wait`, until the new one is in force."""
    reloaded = control.Reloaded()
    with (
        Progression(context.screen, "reloading") as progression,
        closing(context.client.follow("/v1/reload")) as steps,
    ):
        for step in steps:
            reloaded = step.reloaded or reloaded
            if not wait:
                break
            if not step.done:
                progression.report(step)
    if context.screen.json:
        done = {"event": "done", "changes": reloaded.changes, "replaced": reloaded.replaced}
        context.screen.event(done)
        return
    context.screen.answer(
        None, _reload_text(context.screen, reloaded, "in force" if wait else "accepted")
    )


def _reload_text(screen: Screen, reloaded: control.Reloaded, state: str) -> str:
    if not reloaded.changes:
        return f"{screen.mark(DONE)} nothing has changed"
    bullet = screen.mark(BULLET)
    width = max(map(len, reloaded.changes))
    lines = [f"{screen.mark(DONE)} the new configuration is {state}"]
    lines += [
        f"  {bullet} {human.clean(key):<{width}}  {human.clean(effect)}"
        for key, effect in reloaded.changes.items()
    ]
    if reloaded.replaced:
        names = human.clean(", ".join(reloaded.replaced))
        lines.append(f"  {screen.mark(STEP)} replaced as soon as idle: {names}")
    return "\n".join(lines)


def workers_table(workers: list[control.WorkerInfo]) -> str:
    """Format the table of `ps`."""
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
    """Yield the reason of each failed worker, one line each."""
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
