"""Commands on models: list, show, pull, cp, rm, and load, unload, restart."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from vllamactl import human
from vllamactl.call import Call, model_path
from vllamactl.progress import Progression
from vllamactl.render import DONE, blocks, table
from vllamad.wire import control

_ID_LENGTH = 12
_DOING = {
    "load": ("loading", "loaded"),
    "unload": ("unloading", "unloaded"),
    "restart": ("restarting", "restarted"),
    "delete": ("removing", "removed"),
    "copy": ("copying", "copied"),
}


def list_models(call: Call) -> None:
    """Show the installed models."""
    models = call.client.get("/v1/models", control.Models).models
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


def show(call: Call, model: str) -> None:
    """Show what is known of one model."""
    detail = call.client.get(model_path(model), control.ModelDetail)
    call.screen.answer(detail, _detail_text(detail), [detail.info.name])


def copy(call: Call, source: str, destination: str) -> None:
    """Give a model a second name."""
    order(call, "copy", source, control.CopyOrder(destination=destination))


def order(call: Call, verb: str, model: str, body: msgspec.Struct | None = None) -> None:
    """Load, unload, restart, copy or delete a model, and show how it goes."""
    doing, done = _DOING[verb]
    with Progression(call.screen, f"{doing} {model}") as progression:
        last = _watch(progression, call.client.follow(model_path(model, verb), body))
        elapsed = progression.elapsed
    if call.screen.json:
        end = {"event": "done", "model": model, "status": last.status or done}
        call.screen.event(end | {"elapsed": round(elapsed, 3)})
        return
    told = f": {human.clean(last.status)}" if last.status not in ("", done, "success") else ""
    text = f"{call.screen.mark(DONE)} {done} {model} in {human.clock(elapsed)}{told}"
    call.screen.answer(None, text)


def pull(call: Call, model: str) -> None:
    """Download a model, unless it is here already."""
    body = control.PullRequest(model=model)
    moved = 0
    with Progression(call.screen, f"pulling {model}") as progression:
        for step in call.client.follow("/v1/models/pull", body):
            moved = max(moved, step.completed)
            if not step.done:
                progression.report(step)
        elapsed = progression.elapsed
    detail = call.client.get(model_path(model), control.ModelDetail)
    if call.screen.json:
        end = {"event": "done", "model": detail.info.name, "cached": moved == 0}
        call.screen.event(end | {"path": detail.path, "elapsed": round(elapsed, 3)})
        return
    size = human.size(detail.info.size)
    how = f"pulled {model} ({size}) in {human.clock(elapsed)}" if moved else f"{model} is here"
    call.screen.answer(None, f"{call.screen.mark(DONE)} {how}")


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
    facts = [
        ("architecture", info.family),
        ("parameters", info.parameter_size),
        ("context length", str(info.context_length or "")),
        ("quantization", info.quantization),
        ("size", human.size(info.size)),
        ("id", _short(info.digest)),
        ("path", detail.path),
    ]
    return blocks(
        {
            "Model": [fact for fact in facts if fact[1]],
            "Capabilities": [(capability,) for capability in info.capabilities],
            "Parameters": [
                tuple(line.split(maxsplit=1))
                for line in detail.parameters.splitlines()
                if line.strip()
            ],
            "License": [(line,) for line in _license_head(detail.license)],
        }
    )


def _license_head(text: str) -> list[str]:
    """A licence fills screens; its first two lines name it."""
    return [line.strip() for line in text.splitlines() if line.strip()][:2]
