"""Routes that change what is installed: copy, delete, create, pull; and push, which cannot be.

A gateway changes nothing itself: it reads what is asked, has the supervisor do it, and tells how
that goes in Ollama's words.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import trio
from quart import Response, g

from vllamad.core.model_name import ModelName, parse_model_name, split_source
from vllamad.errors import BadInput, ModelNotFound, NotAllowed, VllamadError
from vllamad.gateway.context import Context, Record
from vllamad.gateway.inference.model_lookup import CLOUD_DISABLED
from vllamad.gateway.inference.template_syntax import check_template
from vllamad.gateway.routes.bodies import NDJSON, read
from vllamad.gateway.server.quart_glue import OwnBody, ResponseSink, hold_until_response_sent
from vllamad.host.log import event
from vllamad.protocol.control import CopyOrder, CreateOrder, Progress, PullOrder, model_path
from vllamad.translate.error_bodies import api_error
from vllamad.translate.go.json_decoder import quoted
from vllamad.translate.ollama.create_files import checkpoint_of
from vllamad.translate.ollama.manage_requests import (
    check_create,
    decode_copy,
    decode_create,
    decode_delete,
    decode_pull,
    decode_push,
    overlay_of,
    progress_line,
    unknown_parameters,
)

log = logging.getLogger(__name__)

PLAIN_JSON = "application/json"


async def copy(context: Context) -> Response:
    """`POST /api/copy`: a second name for the same model."""
    asked = await read(decode_copy)
    source = _valid(asked.source, f"source {quoted(asked.source)} is invalid")
    destination = _valid(asked.destination, f"destination {quoted(asked.destination)} is invalid")
    _record(source)
    if source.key() == destination.key():  # whether or not there is such a model
        return Response(b"")
    try:
        order = CopyOrder(destination=destination.display())
        await context.orders.carry_out(model_path(source.display(), "copy"), order)
    except ModelNotFound as error:
        raise ModelNotFound(f"model {quoted(asked.source)} not found") from error
    return Response(b"")


async def delete(context: Context) -> Response:
    """`DELETE /api/delete`: answered when the model is out of memory and off the disk."""
    asked = await read(decode_delete)
    name, source = split_source(asked.named)
    if not name:
        raise BadInput("model is required")
    model = _valid(name, f"name {quoted(name)} is invalid")
    _record(model)
    try:
        if source == "cloud":
            raise ModelNotFound(asked.named)
        await context.orders.carry_out(model_path(model.display(), "delete"))
    except ModelNotFound as error:
        raise ModelNotFound(f"model '{asked.named}' not found") from error
    return Response(b"")


async def create(context: Context) -> Response:
    """`POST /api/create`: from a model that is installed or can be pulled, or uploaded files."""
    asked = await read(decode_create)
    check_create(asked)
    model = parse_model_name(asked.named)
    _record(model)
    overlay = overlay_of(asked)
    files = checkpoint_of(asked.files) if asked.files else {}
    base, source = split_source(asked.base)
    if source == "cloud":
        raise NotAllowed(CLOUD_DISABLED)
    await trio.to_thread.run_sync(check_template, overlay.template)
    if unknown := unknown_parameters(overlay):
        event(
            log,
            logging.WARNING,
            "unknown parameters in a Modelfile",
            model=model.display(),
            names=unknown,
        )
    based = parse_model_name(base).display() if asked.base else ""
    order = CreateOrder(base=based, files=files, overlay=overlay)
    path = model_path(model.display(), "create")
    return await _told(context, path, order, stream=asked.stream)


async def pull(context: Context) -> Response:
    """`POST /api/pull`."""
    asked = await read(decode_pull)
    name, source = split_source(asked.named)
    model = parse_model_name(name)
    _record(model)
    if source == "cloud":
        missing = "pull model manifest: file does not exist"
        return _failing("pulling manifest", missing, 500, stream=asked.stream)
    order = PullOrder(model=model.display())
    return await _told(context, "/v1/models/pull", order, stream=asked.stream)


async def push(context: Context) -> Response:
    """`POST /api/push`: there is nowhere to push to."""
    asked = await read(decode_push)
    if not asked.named.strip():
        raise BadInput("model is required")
    return _failing("retrieving manifest", "push is not supported", 501, stream=asked.stream)


class Told(OwnBody):
    """Progress line by line, as it comes; what goes wrong after the first is the last."""

    def __init__(self, first: Progress, steps: AsyncIterator[Progress]) -> None:
        super().__init__(content_type=NDJSON)  # pyright: ignore[reportUnknownMemberType]
        self._first = first
        self._steps = steps

    async def deliver(self, client: ResponseSink) -> None:
        await client.write(progress_line(self._first))
        try:
            async for step in self._steps:
                await client.write(progress_line(step))
        except VllamadError as error:
            await client.write(api_error(error.message) + b"\n")


async def _told(
    context: Context, path: str, order: CreateOrder | PullOrder, *, stream: bool
) -> Response:
    """Have it done; the steps as they come, or only the last one."""
    steps = await hold_until_response_sent(context.orders.follow(path, order))
    try:
        step = await anext(steps)
    except VllamadError as error:  # before anything was said there is still a status to be had
        return _refused(error.message, error.status)
    if stream:
        return Told(step, steps)
    try:
        async for following in steps:
            step = following
    except VllamadError as error:
        return _refused(error.message, 500)
    return Response(progress_line(step).rstrip(), content_type=PLAIN_JSON)


def _failing(status: str, message: str, code: int, *, stream: bool) -> Response:
    """What is begun, and fails: the status `code` is for clients that do not stream."""
    if not stream:
        return _refused(message, code)
    return Told(Progress(status=status), _fails(message))


async def _fails(message: str) -> AsyncIterator[Progress]:
    for _ in ():
        yield Progress()
    raise BadInput(message)


def _refused(message: str, status: int) -> Response:
    return Response(api_error(message), status=status, content_type=PLAIN_JSON)


def _valid(text: str, refusal: str) -> ModelName:
    try:
        return parse_model_name(text)
    except BadInput as error:
        raise BadInput(refusal) from error


def _record(model: ModelName) -> None:
    record: Record = g.record
    record.model = model.display()
