"""Commands on models: list, show, pull, cp, rm, and load, unload, restart."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import msgspec

from vllamactl import human
from vllamactl.command_context import CommandContext
from vllamactl.model_details import ModelDetails, about_text
from vllamactl.progress import Progression
from vllamactl.render import DONE, STEP, table
from vllamad.protocol import control

_ID_LENGTH = 12
_DOING = {
    "load": ("loading", "loaded"),
    "unload": ("unloading", "unloaded"),
    "restart": ("restarting", "restarted"),
    "delete": ("removing", "removed"),
    "copy": ("copying", "copied"),
}


def list_models(call: CommandContext, beginning: str = "") -> None:
    """Show the installed models, or those whose names begin so."""
    models = call.client.get("/v1/models", control.Models).models
    models = [model for model in models if model.name.lower().startswith(beginning.lower())]
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
    call.screen.answer(data, table(("NAME", "ID", "SIZE", "MODIFIED"), rows), names)


TEXTS = ("license", "modelfile", "parameters", "system", "template")


def show(call: CommandContext, model: str, text: str = "", *, verbose: bool = False) -> None:
    """Show what is known of one model, or only one of its TEXTS, as it stands.

    With `verbose` every tensor of its weights too.
    """
    path = control.model_path(model) + ("?tensors=1" if verbose else "")
    detail = call.client.get(path, control.ModelDetail)
    if text:
        value = str(getattr(detail, text))
        lines = human.clean_lines(value) if call.screen.out.isatty() else value
        call.screen.answer({text: value}, lines, lines.splitlines())
        return
    call.screen.answer(detail, _detail_text(detail), [detail.info.name])


def copy(call: CommandContext, source: str, destination: str) -> None:
    """Give a model a second name."""
    order(call, "copy", source, control.CopyOrder(destination=destination))


def order(call: CommandContext, verb: str, model: str, body: msgspec.Struct | None = None) -> None:
    """Load, unload, restart, copy or delete a model, and show how it goes."""
    doing, done = _DOING[verb]
    with Progression(call.screen, f"{doing} {model}") as progression:
        last = _watch(progression, call.client.follow(control.model_path(model, verb), body))
        elapsed = progression.elapsed
    if call.screen.json:
        end = {"event": "done", "model": model, "status": last.status or done}
        if verb == "delete":
            end |= {"deleted": True}
        call.screen.event(end | {"elapsed": round(elapsed, 3)})
        return
    told = f": {human.clean(last.status)}" if last.status not in ("", done, "success") else ""
    text = f"{call.screen.mark(DONE)} {done} {model} in {human.clock(elapsed)}{told}"
    call.screen.answer(None, text)


def remove(call: CommandContext, models: Sequence[str]) -> None:
    """Remove models, one after the other, up to the first that cannot be."""
    for model in models:
        order(call, "delete", model)


def pull(call: CommandContext, model: str, *, detach: bool = False) -> None:
    """Download a model, unless it is here already; with `detach` only see that it has begun."""
    found: dict[str, int] = {}  # bytes of each file that were here
    moved = False
    with Progression(call.screen, f"pulling {model}") as progression:
        wanted = control.PullOrder(model=model, detach=detach)
        with closing(call.client.follow("/v1/models/pull", wanted)) as steps:
            for step in steps:
                if detach and step.completed < step.total:  # the plan stands, and bytes are to come
                    break
                moved |= step.completed > found.setdefault(step.digest, step.completed)
                if not step.done:
                    progression.report(step)
            else:
                detach = False
        elapsed = progression.elapsed
    if detach:
        _leave(call, model)
        return
    detail = call.client.get(control.model_path(model), control.ModelDetail)
    if call.screen.json:
        end = {"event": "done", "model": detail.info.name, "cached": not moved}
        call.screen.event(end | {"path": detail.path, "elapsed": round(elapsed, 3)})
        return
    size = human.size(detail.info.size)
    how = f"pulled {model} ({size}) in {human.clock(elapsed)}" if moved else f"{model} is here"
    call.screen.answer(None, f"{call.screen.mark(DONE)} {how}")


def _leave(call: CommandContext, model: str) -> None:
    if call.screen.json:
        call.screen.event({"event": "detached", "model": model})
        return
    text = f"{call.screen.mark(STEP)} vllamad goes on pulling {model}"
    call.screen.answer(None, f"{text}; see it with `vllamactl pull {model}`")


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
    about = ModelDetails(
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
        (human.clean(one.name), one.type, f"[{' '.join(map(str, one.shape))}]")
        for one in detail.tensors
    ]
    return about_text(about, facts=facts, memory=_memory(detail.memory), tensors=tensors)


def _memory(memory: control.ModelMemory) -> list[tuple[str, ...]]:
    """What it takes to load it here; nothing where the daemon does not say."""
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
