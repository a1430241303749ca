"""The bodies of `/api/copy`, `/api/delete`, `/api/create`, `/api/pull` and `/api/push`.

Checks only what the body alone can tell, in Ollama's order. Knows no models.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

from vllamad.core.overlay import Overlay, Turn
from vllamad.errors import BadInput
from vllamad.protocol.control import Progress
from vllamad.translate.go import json_decoder
from vllamad.translate.go.fields import string
from vllamad.translate.go.struct_reader import ReadWith, RequestReader
from vllamad.translate.ollama.create_files import adapter_of, check_files
from vllamad.translate.ollama.options import check_options, is_option
from vllamad.translate.ollama.request import MAX_MESSAGES


class CopyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `/api/copy`."""

    source: str = ""
    destination: str = ""


class NamedRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body that names a model; `name` is the older spelling of `model`."""

    model: str = ""
    name: str = ""

    @property
    def named(self) -> str:
        return self.model or self.name


class DeleteRequest(NamedRequest, frozen=True, kw_only=True):
    """The body of `DELETE /api/delete`."""


class PullRequest(NamedRequest, frozen=True, kw_only=True):
    """The body of `/api/pull`; the hub is configured, so the last three have no effect."""

    stream: bool = True
    insecure: bool = False
    username: str = ""
    password: str = ""


class PushRequest(PullRequest, frozen=True, kw_only=True):
    """The body of `/api/push`."""


class CreateMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One turn of a conversation that every conversation with the new model begins with."""

    GO_TYPE: ClassVar[str] = "api.Message"

    role: str = ""
    content: str = ""


def _read_license(value: object, where: str) -> list[str]:
    """Read one text or several; any other value fails as one text, as in Ollama."""
    texts = value if json_decoder.is_list(value) else [value]
    return [string(text, where) for text in texts if text is not None]


class CreateRequest(NamedRequest, frozen=True, kw_only=True):
    """The body of `/api/create`."""

    stream: bool = True
    base: str = msgspec.field(name="from", default="")
    files: dict[str, str] = {}
    adapters: dict[str, str] = {}
    template: str = ""
    license: Annotated[list[str], ReadWith(_read_license)] = []
    system: str = ""
    parameters: dict[str, object] = {}
    messages: Annotated[list[CreateMessage], Meta(max_length=MAX_MESSAGES)] = []
    info: dict[str, object] = {}
    quantize: str = ""
    quantization: str = ""
    renderer: str = ""
    parser: str = ""
    requires: object = None  # a version of Ollama: has no effect here
    draft_files: dict[str, str] = {}
    draft_quantize: str = ""
    remote_host: str = ""


def decode_copy(body: bytes) -> CopyRequest:
    """Read the body of `/api/copy`. Raises BadInput with Ollama's text, as all of these do."""
    return _COPY.read(body)


def decode_delete(body: bytes) -> DeleteRequest:
    return _DELETE.read(body)


def decode_pull(body: bytes) -> PullRequest:
    return _PULL.read(body)


def decode_push(body: bytes) -> PushRequest:
    return _PUSH.read(body)


def decode_create(body: bytes) -> CreateRequest:
    return _CREATE.read(body)


def check_create(request: CreateRequest) -> None:
    """Refuse files that can never become a model. The caller checks the name and the base."""
    for files in (request.files, request.adapters):
        check_files(files)
    if request.draft_quantize and not request.draft_files:
        raise BadInput("--draft-quantize requires a DRAFT model")


def overlay_of(request: CreateRequest) -> Overlay:
    """Return what the new model adds to its base or to its files. Raises BadInput."""
    _refuse_unsupported(request)
    if not request.base and not request.files:
        raise BadInput("neither 'from' or 'files' was specified")
    if request.base and request.files:
        raise BadInput("cannot use both 'from' and 'files': name one of them")
    return Overlay(
        system=request.system,
        template=request.template,
        parameters=_parameters(request.parameters),
        messages=tuple(
            Turn(role=message.role, content=message.content) for message in request.messages
        ),
        licenses=tuple(text for text in request.license if text),
        capabilities=_capabilities(request.info),
        adapter=adapter_of(request.adapters) if request.adapters else None,
    )


def unknown_parameters(overlay: Overlay) -> list[str]:
    """Return the parameters without effect here; they are stored, as in Ollama."""
    return [name for name in overlay.parameters if not is_option(name)]


def progress_line(progress: Progress) -> bytes:
    """Write one step in Ollama's words, newline included; empty or zero fields are left out."""
    step = {
        "status": progress.status,
        "digest": progress.digest,
        "total": progress.total,
        "completed": progress.completed,
    }
    filled = {key: value for key, value in step.items() if value or key == "status"}
    return msgspec.json.encode(filled) + b"\n"


def _refuse_unsupported(request: CreateRequest) -> None:
    if request.remote_host:
        raise BadInput("bad remote")
    if request.quantize or request.quantization:
        raise BadInput("quantization is not supported")
    for name in ("renderer", "parser", "draft_files"):
        if getattr(request, name):
            raise BadInput(f"{name} is not supported")


def _parameters(parameters: dict[str, object]) -> dict[str, object]:
    """Check the parameters now; Ollama finds a wrong type only when the model runs."""
    try:
        check_options(parameters)
    except BadInput as error:
        raise BadInput(error.message) from error
    return {name: value for name, value in parameters.items() if value is not None}


_TEXTS: Final = ("model_family", "base_name", "quantization_level", "parameter_size")
_LENGTHS: Final = ("context_length", "embedding_length")


def _capabilities(info: dict[str, object]) -> tuple[str, ...]:
    """Return the capabilities in `info`; its other fields are checked, and read from the files."""
    for key in _TEXTS:
        if not isinstance(info.get(key) or "", str):
            raise BadInput(f"info field {json_decoder.quoted(key)} must be a string")
    for key in _LENGTHS:
        value = info.get(key) or 0
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BadInput(f"info field {json_decoder.quoted(key)} must be a non-negative integer")
    capabilities = info.get("capabilities")
    if capabilities is None:
        return ()
    if not json_decoder.is_list(capabilities) or not all(
        isinstance(item, str) for item in capabilities
    ):
        raise BadInput('info field "capabilities" must be a list of strings')
    return tuple(str(item) for item in capabilities)


_COPY: Final = RequestReader(CopyRequest)
_DELETE: Final = RequestReader(DeleteRequest)
_PULL: Final = RequestReader(PullRequest)
_PUSH: Final = RequestReader(PushRequest)
_CREATE: Final = RequestReader(CreateRequest)
