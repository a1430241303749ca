"""What is installed and what is loaded: tags, show, ps, version, and the model list of /v1."""

from __future__ import annotations

import time
from math import inf
from typing import Final

import msgspec
import trio
from quart import Response, g, request

from vllamad.core.model_name import parse_model_name
from vllamad.errors import BadInput, HostProblem, ModelNotFound
from vllamad.gateway.context import Context, Record
from vllamad.gateway.inference import leases
from vllamad.gateway.inference.model_lookup import find
from vllamad.gateway.routes.bodies import JSON, read
from vllamad.models import model_info
from vllamad.models.installed import InstalledModel
from vllamad.protocol.control import WorkerInfo
from vllamad.translate.go.timestamps import expires_at
from vllamad.translate.ollama.request import decode_show
from vllamad.translate.openai import chat_fields
from vllamad.translate.openai.chat_fields import ListedModel

COPILOT: Final = "GitHubCopilotChat/"


async def root(context: Context) -> Response:
    """`GET /`: the liveness probe of Ollama's own command line."""
    return Response("Ollama is running", content_type="text/plain; charset=utf-8")


async def version(context: Context) -> Response:
    """`GET /api/version`: the Ollama version we answer like, as clients compare it."""
    return _json({"version": context.settings.server.ollama_version})


async def health(context: Context) -> Response:
    """`GET /health`: whether a request could be served now; 503 while the supervisor is away."""
    loaded = await leases.running(context.settings.broker)
    return _json({"status": "ok", "models": [worker.model for worker in loaded]})


async def tags(context: Context) -> Response:
    """`GET /api/tags`."""
    installed = await trio.to_thread.run_sync(context.installed_models.all)
    return _json({"models": [model_info.tag_entry(model) for model in installed]})


async def ps(context: Context) -> Response:
    """`GET /api/ps`: the loaded models, the one that leaves last first."""
    workers = await leases.running(context.settings.broker)
    ready = [worker for worker in workers if worker.state in ("ready", "draining")]
    ready.sort(key=lambda worker: inf if worker.expires_in is None else worker.expires_in)
    ready.reverse()
    entries = [await _ps_entry(context, worker) for worker in ready]
    return _json({"models": [entry for entry in entries if entry]})


async def show(context: Context) -> Response:
    """`POST /api/show`: read from the model's files; nothing is loaded."""
    asked = await read(decode_show)
    installed = await find(
        context,
        asked.model,
        missing=BadInput("model is required"),
        unknown=_normalised,
        cloud="ollama cloud is disabled: remote model details are unavailable",
    )
    record: Record = g.record
    record.model = installed.name
    agent = request.headers.get("User-Agent", "")
    # Copilot shows this name in its list: the one it asked for.
    basename = asked.model if agent.startswith(COPILOT) else ""
    tensors = (
        await trio.to_thread.run_sync(model_info.tensor_entries, installed) if asked.verbose else ()
    )
    return _json(model_info.show_response(installed, basename=basename, tensors=tensors))


async def openai_models(context: Context) -> Response:
    """`GET /v1/models`: everything installed, loaded or not."""
    installed = await trio.to_thread.run_sync(context.installed_models.all)
    body = chat_fields.encode_model_list([_listed(model, model.name) for model in installed])
    return Response(body, content_type="application/json")


async def openai_model(context: Context) -> Response:
    """`GET /v1/models/{id}`: the id comes back as it was asked for."""
    name = str((request.view_args or {})["name"])
    installed = await find(
        context, name, missing=ModelNotFound("model '' not found"), unknown=_normalised
    )
    return Response(
        chat_fields.encode_model(_listed(installed, name)), content_type="application/json"
    )


async def _ps_entry(context: Context, worker: WorkerInfo) -> dict[str, object] | None:
    try:
        installed = await trio.to_thread.run_sync(context.installed_models.find, worker.model)
    except HostProblem:
        installed = None
    if installed is None:  # its files went while it runs
        return None
    return {
        "name": worker.model,
        "model": worker.model,
        "size": worker.size,
        "digest": installed.digest,
        "details": model_info.details_entry(installed),
        "expires_at": expires_at(time.time_ns(), worker.expires_in),
        "size_vram": worker.size_vram,
        "context_length": worker.context_length,
    }


def _listed(model: InstalledModel, name: str) -> ListedModel:
    owner = model.name.rpartition("/")[0] or "library"
    return ListedModel(id=name, created=int(model.modified_at), owned_by=owner)


def _normalised(name: str) -> str:
    return f"model '{parse_model_name(name).display()}' not found"


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), content_type=JSON)
