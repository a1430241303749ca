"""Which HTTP status a refusal gets, and in which words: the one table for every route."""

from __future__ import annotations

from vllamad.errors import (
    BadInput,
    EngineRefused,
    HostProblem,
    LoadFailed,
    RuntimeProblem,
    VllamadError,
)
from vllamad.translate.error_bodies import without_private_text

_LONGEST = 2_000  # characters

_STATUS = {
    "bad-input": 400,
    "model-not-found": 404,
    "not-supported": 400,
    "not-allowed": 403,
    "unauthenticated": 401,
    "busy": 503,
    "unavailable": 503,
}


def status_of(error: VllamadError) -> int:
    """The status of `error`; Ollama's where it says otherwise, 500 for what is not the client's."""
    if isinstance(error, BadInput | EngineRefused):
        return error.status
    return _STATUS.get(error.kind, 500)


def public_message(error: VllamadError) -> str:
    """What a client reads of `error`: where our files are is the operator's business alone."""
    if isinstance(error, HostProblem | LoadFailed | RuntimeProblem):
        return without_private_text(error.message)
    return error.message if len(error.message) <= _LONGEST else error.message[:_LONGEST] + "…"
