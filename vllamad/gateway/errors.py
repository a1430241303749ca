"""Which HTTP status a refusal gets, and its body: the one table for every route."""

from __future__ import annotations

from vllamad.errors import BadInput, EngineRefused, VllamadError

_STATUS = {
    "bad-input": 400,
    "model-not-found": 404,
    "not-supported": 400,
    "not-allowed": 403,
    "busy": 503,
    "unavailable": 503,
}


def status_of(error: VllamadError) -> int:
    """The status of `error`; Ollama's where it says otherwise, 500 for what is not the client's."""
    if isinstance(error, BadInput | EngineRefused):
        return error.status
    return _STATUS.get(error.kind, 500)
