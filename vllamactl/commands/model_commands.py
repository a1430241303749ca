"""Commands on models: list, show, pull, cp, rm, and load, unload, restart."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import msgspec

from vllamactl import human
from vllamactl.command_context import CommandContext
from vllamactl.model_details import ModelDetails, details_text
from vllamactl.progress import Progression
from vllamactl.render import DONE, STEP, table
from vllamad.protocol import control

_ID_LENGTH = 12
_VERBS = {
    "load": ("loading", "loaded"),
    "unload": ("unloading", "unloaded"),
    "restart": ("restarting", "restarted"),
    "delete": ("removing", "removed"),
    "copy": ("copying", "copied"),
}


def list_models(context: CommandContext, prefix: str = "") -> None:
    """List the installed models; only those whose names have the prefix."""
    models = context.client.get("/v1/models", control.Models).models
    models = [model for model in models if model.name.lower().startswith(prefix.lower())]
    now = time.time()
    rows = [
        (m.name, _short(m.digest), human.size(m.size), human.ago(m.modified_at, now))
        for m in models
    ]
    data = {
        "models": [_listed(model) for model in models],
        "total_size_mb": _megabytes(sum(model.size for model in models)),
    }
    names = [model.name for model in models]
    context.screen.answer(data, table(("NAME", "ID", "SIZE", "MODIFIED"), rows), names)


TEXTS = ("license", "modelfile", "parameters", "system", "template")


def show(context: CommandContext, model: str, text: str = "", *, verbose: bool = False) -> None:
    """Show the details of one model, or only one of its TEXTS, unchanged.

    With `verbose` also every tensor of its weights.
    """
    path = control.model_path(model) + ("?tensors=1" if verbose else "")
    detail = context.client.get(path, control.ModelDetail)
    if text:
        value = str(getattr(detail, text))
        lines = human.clean_lines(value) if context.screen.out.isatty() else value
        context.screen.answer({text: value}, lines, lines.splitlines())
        return
    context.screen.answer(detail, _detail_text(detail), [detail.info.name])


def copy(context: CommandContext, source: str, destination: str) -> None:
    """Copy a model to a second name."""
    order(context, "copy", source, control.CopyOrder(destination=destination))


def order(
    context: CommandContext, verb: str, model: str, body: msgspec.Struct | None = None
) -> None:
    """Load, unload, restart, copy or delete a model, and show the progress."""
    doing, done = _VERBS[verb]
    with Progression(context.screen, f"{doing} {model}") as progression:
        last = _watch(progression, context.client.follow(control.model_path(model, verb), body))
        elapsed = progression.elapsed
    if context.screen.json:
        end = {"event": "done", "model": model, "status": last.status or done}
        if verb == "delete":
            end |= {"deleted": True}
        context.screen.event(end | {"elapsed": round(elapsed, 3)})
        return
    detail = f": {human.clean(last.status)}" if last.status not in ("", done, "success") else ""
    text = f"{context.screen.mark(DONE)} {done} {model} in {human.clock(elapsed)}{detail}"
    context.screen.answer(None, text)


def remove(context: CommandContext, models: Sequence[str]) -> None:
    """Remove models one by one, up to the first error."""
    for model in models:
        order(context, "delete", model)


def pull(context: CommandContext, model: str, *, detach: bool = False) -> None:
    """Download a model unless it is installed; with `detach` return once it has begun."""
    present: dict[str, int] = {}  # bytes of each file before the pull
    moved = False
    with Progression(context.screen, f"pulling {model}") as progression:
        pull_order = control.PullOrder(model=model, detach=detach)
        with closing(context.client.follow("/v1/models/pull", pull_order)) as steps:
            for step in steps:
                if (
                    detach and step.completed < step.total
                ):  # the plan is made, and the download has begun
                    break
                moved |= step.completed > present.setdefault(step.digest, step.completed)
                if not step.done:
                    progression.report(step)
            else:
                detach = False
        elapsed = progression.elapsed
    if detach:
        _print_detached(context, model)
        return
    detail = context.client.get(control.model_path(model), control.ModelDetail)
    if context.screen.json:
        end = {"event": "done", "model": detail.info.name, "cached": not moved}
        context.screen.event(end | {"path": detail.path, "elapsed": round(elapsed, 3)})
        return
    size = human.size(detail.info.size)
    result = (
        f"pulled {model} ({size}) in {human.clock(elapsed)}"
        if moved
        else f"{model} is already installed"
    )
    context.screen.answer(None, f"{context.screen.mark(DONE)} {result}")


def _print_detached(context: CommandContext, model: str) -> None:
    if context.screen.json:
        context.screen.event({"event": "detached", "model": model})
        return
    text = f"{context.screen.mark(STEP)} vllamad continues to pull {model}"
    context.screen.answer(None, f"{text}; watch it with `vllamactl pull {model}`")


def _watch(progression: Progression, steps: Iterator[control.Progress]) -> control.Progress:
    last = control.Progress()
    for last in steps:
        if not last.done:
            progression.report(last)
    return last


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_ID_LENGTH]


def _megabytes(size: int) -> float:
    return round(size / 1e6, 1)


def _listed(model: control.ModelInfo) -> dict[str, object]:
    return {
        "name": model.name,
        "size_mb": _megabytes(model.size),
        "path": model.path,
        "digest": model.digest,
        "size": model.size,
        "modified_at": model.modified_at,
        "family": model.family,
        "parameter_size": model.parameter_size,
        "quantization": model.quantization,
        "context_length": model.context_length,
        "capabilities": model.capabilities,
    }


def _detail_text(detail: control.ModelDetail) -> str:
    info = detail.info
    details = ModelDetails(
        architecture=info.family,
        parameter_size=info.parameter_size,
        quantization=info.quantization,
        model_info={f"{info.family}.context_length": info.context_length} | detail.model_info,
        capabilities=info.capabilities,
        parameters=detail.parameters,
        system=detail.system,
        license=detail.license,
    )
    facts = [("size", human.size(info.size)), ("id", _short(info.digest)), ("path", detail.path)]
    tensors = [
        (human.clean(tensor.name), tensor.type, f"[{' '.join(map(str, tensor.shape))}]")
        for tensor in detail.tensors
    ]
    return details_text(details, facts=facts, memory=_memory(detail.memory), tensors=tensors)


def _memory(memory: control.ModelMemory) -> list[tuple[str, ...]]:
    """Return the memory a load takes here; empty if the daemon reports none."""
    if not memory.weights:
        return []
    rows = [("weights", human.size(memory.weights))]
    if memory.kv_per_token:
        rows.append(("a token of context", human.size(memory.kv_per_token)))
    if memory.planned:
        rows.append(
            ("loaded here", f"{human.size(memory.planned)}, {memory.context_length} tokens")
        )
    if memory.threads:
        why = f": {memory.dtype_why}" if memory.dtype_why else ""
        rows.append(("computed in", f"{memory.dtype}{why}"))
        rows.append(("threads", str(memory.threads)))
    return rows
