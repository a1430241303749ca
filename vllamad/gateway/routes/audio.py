"""Transcriptions and translations of audio: a form, and the engine's response to what is allowed
of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple

import msgspec
from quart import Response, request
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import (
    Data,
    Epilogue,
    Event,
    Field,
    File,
    MultipartDecoder,
    NeedData,
)

from vllamad.core.audio_support import missing_packages
from vllamad.errors import BadInput, NotSupported
from vllamad.gateway.context import Context
from vllamad.gateway.inference.model_lookup import find
from vllamad.gateway.inference.response_stream import read_whole, stream_response
from vllamad.gateway.inference.session import inference, recorded
from vllamad.gateway.routes.bodies import JSON, SSE, read
from vllamad.gateway.server.quart_glue import hold_until_response_sent
from vllamad.models.installed import InstalledModel
from vllamad.translate.go.json_decoder import quoted
from vllamad.translate.ollama.to_engine import ModelTraits
from vllamad.translate.openai.passthrough import OpenAIPassthrough

_FIELDS = frozenset({
    "hotwords", "language", "prompt", "response_format", "seed", "stream", "stream_include_usage",
    "temperature", "timestamp_granularities[]", "to_language", "top_p",
})  # fmt: skip
_PARTS_LIMIT = 64
PIECE = 64 * 1024  # bytes of a form read at once


class AudioForm(NamedTuple):
    """A form as it was sent; a name may come more than once."""

    fields: tuple[tuple[str, str], ...]
    file: bytes | None

    def value(self, name: str) -> str:
        return next((value for key, value in self.fields if key == name), "")


class _Transcript(msgspec.Struct):
    text: str = ""


async def transcriptions(context: Context) -> Response:
    """`POST /v1/audio/transcriptions`."""
    return await _relayed(context, "/v1/audio/transcriptions")


async def translations(context: Context) -> Response:
    """`POST /v1/audio/translations`: into English."""
    return await _relayed(context, "/v1/audio/translations")


async def _relayed(context: Context, path: str) -> Response:
    form = await read(partial(read_form, content_type=request.headers.get("Content-Type", "")))
    name, audio = form.value("model"), form.file
    if not name:
        raise BadInput("model is required")
    if audio is None:
        raise BadInput("file is required: http: no such file")
    if not audio:
        raise BadInput("audio file is empty")
    installed = await find(context, name, missing=BadInput("model is required"))

    def needs(traits: ModelTraits) -> None:
        if "audio" not in traits.capabilities:
            raise _no_audio(name, installed, context)

    session = await hold_until_response_sent(inference(context, installed, needs))
    served, stream = session.served_name, form.value("stream") in ("true", "True", "1")
    plain = form.value("response_format") == "text"
    output = OpenAIPassthrough(stream=stream, served_name=served, requested_name=name)
    await hold_until_response_sent(recorded(output))
    boundary = secrets.token_hex(16)
    fields = session.fit_form(path, _allowed(form, served, plain, stream))
    upstream = await session.send(
        path,
        write_form(fields, audio, boundary),
        output,
        stream=stream,
        content_type=f"multipart/form-data; boundary={boundary}",
    )
    if stream:
        return await stream_response(upstream, SSE)
    body = await read_whole(upstream)
    if plain:
        text = msgspec.json.decode(body, type=_Transcript).text
        return Response(text, content_type="text/plain; charset=utf-8")
    return Response(body, content_type=JSON)


def _no_audio(name: str, installed: InstalledModel, context: Context) -> NotSupported:
    refusal = f"{quoted(name)} does not support audio transcription"
    engine = context.settings.features
    if missing := missing_packages(installed.facts.audio, engine.audio_packages if engine else ()):
        refusal += f": the engine's runtime lacks {' and '.join(missing)}"
    return NotSupported(refusal, hint="vllamactl runtime install" if missing else "")


def read_form(body: bytes, *, content_type: str) -> AudioForm:
    """Read a multipart form. Raises BadInput."""
    kind, options = parse_options_header(content_type)
    boundary = options.get("boundary")
    if kind != "multipart/form-data" or not boundary:
        raise BadInput(
            "failed to parse multipart form: request Content-Type isn't multipart/form-data"
        )
    try:
        return _parts(MultipartDecoder(boundary.encode(), max_parts=_PARTS_LIMIT), body)
    except RequestEntityTooLarge as error:
        raise BadInput(f"cannot take a form of more than {_PARTS_LIMIT} parts") from error
    except (ValueError, LookupError) as error:
        raise BadInput(f"failed to parse multipart form: {error}") from error


def write_form(fields: list[tuple[str, str]], audio: bytes, boundary: str) -> bytes:
    """Spell a form with a file; names are ours, the boundary is in no value."""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="'
    parts = [f'{head}{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields]
    file = f'{head}file"; filename="audio"\r\nContent-Type: application/octet-stream\r\n\r\n'
    return b"".join([*parts, file.encode(), audio, f"\r\n--{boundary}--\r\n".encode()])


def _parts(decoder: MultipartDecoder, body: bytes) -> AudioForm:
    fields: list[tuple[str, str]] = []
    file: bytes | None = None
    part: Field | File | None = None
    content = bytearray()
    for event in _events(decoder, body):
        if isinstance(event, Field | File):
            part, content = event, bytearray()
        if not isinstance(event, Data) or part is None:
            continue
        content += event.data
        if event.more_data:
            continue
        if isinstance(part, Field):
            fields.append((part.name, content.decode(errors="replace")))
        elif part.name == "file":
            file = bytes(content)
    return AudioForm(tuple(fields), file)


def _events(decoder: MultipartDecoder, body: bytes) -> Iterator[Event]:
    """What there is in `body`. At once, its search would hold up everything in this process."""
    pieces = (body[at : at + PIECE] for at in range(0, len(body), PIECE))
    for piece in chain(pieces, (None,)):
        decoder.receive_data(piece)
        while not isinstance(event := decoder.next_event(), Epilogue | NeedData):
            yield event


def _allowed(form: AudioForm, served_name: str, plain: bool, stream: bool) -> list[tuple[str, str]]:
    """What of the form the engine gets: of what we judge too, our judgement.

    Plain text is made of its JSON; and it would stream for "yes" and "on" too.
    """
    judged = {"stream", "response_format"} if plain else {"stream"}
    kept = [(name, value) for name, value in form.fields if name in _FIELDS - judged]
    return [("model", served_name), *kept, *([("stream", "true")] if stream else [])]
