"""The error bodies of all APIs, and the translation of the engine's errors to ours."""

from __future__ import annotations

import re

import msgspec

from vllamad.errors import (
    EngineRefused,
    HostProblem,
    LoadFailed,
    RuntimeProblem,
    ServerBusy,
    VllamadError,
)
from vllamad.translate.engine.refusal_texts import explain_refusal

STOPPED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an "
    "internal error, check ollama server logs for details"
)
FAILED = "the model failed while answering"
INTERNAL = "Internal server error"  # vLLM's text for an unexpected error
CANNOT = "this model does not support requests of this kind"
_BUSY = "rate limit exceeded"  # the text of an engine that Ollama passes on
_NO_ROUTE = "Not Found"  # of the engine's router, whose routes depend on the model

_LONGEST = 300  # characters
_LONGEST_ECHO = 2_000  # characters of a message that may repeat what a client sent
_TRACE = re.compile(r'Traceback|File "')
_PRIVATE = re.compile(
    r"\b[a-z]+://\S+"  # internal addresses
    r"|(?<![\w.])(?:/[\w.+-]+){2,}/?"  # absolute paths
    r"|\b0x[0-9a-fA-F]+"
    r"|\bpid[= ]\d+"
)
_OPENAI_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error",
}  # fmt: skip
_ANTHROPIC_TYPES = _OPENAI_TYPES | {
    403: "permission_error", 429: "rate_limit_error", 503: "overloaded_error",
    529: "overloaded_error",
}  # fmt: skip


class _Fault(msgspec.Struct):
    message: str = ""
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Fault | str | None = None
    detail: str | None = None


def api_error(message: str) -> bytes:
    """The body of an error on `/api`; with a newline also the last line of a stream."""
    return msgspec.json.encode({"error": message})


def openai_error(status: int, message: str) -> bytes:
    """The body of an error on `/v1`, newline included."""
    kind = _OPENAI_TYPES.get(status, "api_error")
    fault = {"message": message, "type": kind, "param": None, "code": None}
    return msgspec.json.encode({"error": fault}) + b"\n"


def anthropic_error(status: int, message: str, request_id: str = "") -> bytes:
    """The body of an error on `/v1/messages`; without an id it is the data of an event."""
    fault = {"type": _ANTHROPIC_TYPES.get(status, "api_error"), "message": message}
    body: dict[str, object] = {"type": "error", "error": fault}
    return msgspec.json.encode(body | {"request_id": request_id} if request_id else body)


def engine_refusal(status: int, body: bytes) -> EngineRefused:
    """Translate an error response of the engine to the error for the client."""
    fault = _fault(body)
    return refusal_of(status, fault.message, fault.param or "")


def refusal_of(status: int, message: str, param: str = "") -> EngineRefused:
    """Translate the text and status of an engine's error to the error for the client."""
    if status in (429, 503):
        busy = message if message == _BUSY else ServerBusy().message
        return EngineRefused(busy, status=status)
    if status == 404 and message == _NO_ROUTE:
        return EngineRefused(CANNOT, status=400)
    if message == INTERNAL:
        return EngineRefused(INTERNAL, status=500)
    text, unknown = explain_refusal(message, param)
    if status == 404 or status >= 500:
        # The worker does not know its model, or failed: not the client's fault.
        return EngineRefused(STOPPED if status >= 500 else FAILED, status=500, unknown=unknown)
    return EngineRefused(text, status=status, unknown=unknown)


def without_private_text(message: str) -> str:
    """The reason of a failed load without paths, addresses and tracebacks."""
    if not message.strip() or _TRACE.search(message):
        return FAILED
    text = _PRIVATE.sub("…", " ".join(message.split()))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def public_message(error: VllamadError) -> str:
    """What a client reads of `error`; paths of files of ours are for the operator alone."""
    if isinstance(error, HostProblem | LoadFailed | RuntimeProblem):
        return without_private_text(error.message)
    if len(error.message) > _LONGEST_ECHO:
        return error.message[:_LONGEST_ECHO] + "…"
    return error.message


def _fault(body: bytes) -> _Fault:
    """Read the error in a body; a body of any other form is the message itself."""
    try:
        answer = msgspec.json.decode(body, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Fault(body.decode(errors="replace"))
    if isinstance(answer.error, _Fault):
        return answer.error
    return _Fault(answer.error or answer.detail or "")
