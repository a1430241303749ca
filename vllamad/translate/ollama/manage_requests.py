"""What did an Ollama client ask of the library? The bodies of copy, delete, create, pull and push.

Checks only what the body alone can tell, in Ollama's order. Knows no models.
"""

from __future__ import annotations

from typing import Final

import msgspec

from vllamad.core.overlay import Overlay, Turn
from vllamad.errors import BadInput
from vllamad.protocol.control import Progress
from vllamad.translate.go import json_decoder
from vllamad.translate.go.fields import (
    Read,
    anything,
    boolean,
    list_of,
    mapping,
    misfit,
    read_fields,
    string,
)
from vllamad.translate.ollama.create_files import adapter_of, check_files
from vllamad.translate.ollama.options import check_options, is_option
from vllamad.translate.ollama.request import MAX_MESSAGES, decode_request


class CopyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `/api/copy`."""

    source: str = ""
    destination: str = ""


class NamedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A body that names a model; `name` is the older spelling of `model`."""

    model: str = ""
    name: str = ""

    @property
    def named(self) -> str:
        return self.model or self.name


class DeleteRequest(NamedRequest, frozen=True, kw_only=True):
    """The body of `DELETE /api/delete`."""


class PullRequest(NamedRequest, frozen=True, kw_only=True):
    """The body of `/api/pull`; the hub is configured, so `insecure` and the like change nothing."""

    stream: bool = True


class PushRequest(PullRequest, frozen=True, kw_only=True):
    """The body of `/api/push`."""


class CreateRequest(NamedRequest, frozen=True, kw_only=True):
    """The body of `/api/create`."""

    stream: bool = True
    base: str = msgspec.field(name="from", default="")
    files: dict[str, str] = {}
    adapters: dict[str, str] = {}
    template: str = ""
    license: list[str] = []
    system: str = ""
    parameters: dict[str, object] = {}
    messages: list[Turn] = []
    info: dict[str, object] = {}
    quantize: str = ""
    quantization: str = ""
    renderer: str = ""
    parser: str = ""
    draft_files: dict[str, str] = {}
    draft_quantize: str = ""
    remote_host: str = ""


def decode_copy(body: bytes) -> CopyRequest:
    """Read the body of `/api/copy`. Raises BadInput with Ollama's text, as all of these do."""
    return decode_request(body, CopyRequest, {"source": string, "destination": string})


def decode_delete(body: bytes) -> DeleteRequest:
    return decode_request(body, DeleteRequest, _NAMED)


def decode_pull(body: bytes) -> PullRequest:
    return decode_request(body, PullRequest, _PULL)


def decode_push(body: bytes) -> PushRequest:
    return decode_request(body, PushRequest, _PULL)


def decode_create(body: bytes) -> CreateRequest:
    return decode_request(body, CreateRequest, _CREATE)


def check_create(request: CreateRequest) -> None:
    """Refuse what could never become a model here. The name and the base are for the caller."""
    for files in (request.files, request.adapters):
        check_files(files)
    if request.draft_quantize and not request.draft_files:
        raise BadInput("--draft-quantize requires a DRAFT model")


def overlay_of(request: CreateRequest) -> Overlay:
    """What a model made by this request adds to its base, or to its files. Raises BadInput."""
    _refuse_unsupported(request)
    if not request.base and not request.files:
        raise BadInput("neither 'from' or 'files' was specified")
    if request.base and request.files:
        raise BadInput("cannot use both 'from' and 'files': name one of them")
    return Overlay(
        system=request.system,
        template=request.template,
        parameters=_parameters(request.parameters),
        messages=tuple(request.messages),
        licenses=tuple(text for text in request.license if text),
        capabilities=_capabilities(request.info),
        adapter=adapter_of(request.adapters) if request.adapters else None,
    )


def unknown_parameters(overlay: Overlay) -> list[str]:
    """Those that mean nothing to us; they are kept, as Ollama keeps them."""
    return [name for name in overlay.parameters if not is_option(name)]


def progress_line(progress: Progress) -> bytes:
    """One step in Ollama's words, newline included; what is empty or zero is left out."""
    step = {
        "status": progress.status,
        "digest": progress.digest,
        "total": progress.total,
        "completed": progress.completed,
    }
    told = {key: value for key, value in step.items() if value or key == "status"}
    return msgspec.json.encode(told) + b"\n"


def _refuse_unsupported(request: CreateRequest) -> None:
    if request.remote_host:
        raise BadInput("bad remote")
    if request.quantize or request.quantization:
        raise BadInput("quantization is not supported")
    for name in ("renderer", "parser", "draft_files"):
        if getattr(request, name):
            raise BadInput(f"{name} is not supported")


def _parameters(parameters: dict[str, object]) -> dict[str, object]:
    """As given. Ollama would find a wrong type only when the model runs."""
    try:
        check_options(parameters)
    except BadInput as error:
        raise BadInput(error.message) from error
    return {name: value for name, value in parameters.items() if value is not None}


_TEXTS: Final = ("model_family", "base_name", "quantization_level", "parameter_size")
_LENGTHS: Final = ("context_length", "embedding_length")


def _capabilities(info: dict[str, object]) -> tuple[str, ...]:
    """What the client says the model can do; all else in `info` the files say themselves."""
    for key in _TEXTS:
        if not isinstance(info.get(key) or "", str):
            raise BadInput(f"info field {json_decoder.quoted(key)} must be a string")
    for key in _LENGTHS:
        value = info.get(key) or 0
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadInput(f"info field {json_decoder.quoted(key)} must be a non-negative integer")
    given = info.get("capabilities")
    if given is None:
        return ()
    if not json_decoder.is_list(given) or not all(isinstance(item, str) for item in given):
        raise BadInput('info field "capabilities" must be a list of strings')
    return tuple(str(item) for item in given)


def _files(value: object, where: str) -> dict[str, str]:
    if not json_decoder.is_object(value):
        raise misfit(value, where, "map[string]string")
    return {name: string(item, where) for name, item in value.items() if item is not None}


def _license(value: object, where: str) -> list[str]:
    """Ollama takes one text or several, and nothing else for one."""
    if json_decoder.is_list(value):
        return [string(item, where) for item in value if item is not None]
    return [string(value, where)]


def _turn(value: object, where: str) -> Turn:
    fields = read_fields(value, where, "api.Message", {"role": string, "content": string})
    return msgspec.convert({"role": ""} | fields, Turn)


_NAMED: Final[dict[str, Read[object]]] = {"model": string, "name": string}

_PULL: Final[dict[str, Read[object]]] = _NAMED | {
    "stream": boolean,
    "insecure": boolean,
    "username": string,
    "password": string,
}

_CREATE: Final[dict[str, Read[object]]] = _NAMED | {
    "stream": boolean,
    "from": string,
    "files": _files,
    "adapters": _files,
    "template": string,
    "license": _license,
    "system": string,
    "parameters": mapping,
    "messages": list_of(_turn, "[]api.Message", MAX_MESSAGES),
    "info": mapping,
    "quantize": string,
    "quantization": string,
    "renderer": string,
    "parser": string,
    "requires": anything,
    "draft_files": _files,
    "draft_quantize": string,
    "remote_host": string,
}
