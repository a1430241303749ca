"""The lease conversation between a gateway and the supervisor.

One JSON object per line over a Unix socket. The gateway speaks first and once; the supervisor
answers until the connection ends. For a lease, closing, cancelling and dying are the same event:
the end of the connection is the end of the lease. Knows no I/O.
"""

from __future__ import annotations

import msgspec

from vllamad.protocol.control import WorkerInfo
from vllamad.protocol.problem import Problem

LINE_LIMIT = 64 * 1024


class Acquire(msgspec.Struct, tag="acquire", frozen=True, kw_only=True):
    """Request a lease on the worker of `model`; `keep_alive` in seconds, negative for no end."""

    model: str  # canonical name, as it is listed
    keep_alive: float | None = None
    request_id: str = ""


class Unload(msgspec.Struct, tag="unload", frozen=True, kw_only=True):
    """Stop `model` as soon as it is idle; answered at once with `Done`."""

    model: str


class ListRunning(msgspec.Struct, tag="list-running", frozen=True):
    """List the loaded models; answered with `Running`."""


Question = Acquire | Unload | ListRunning


class Waiting(msgspec.Struct, tag="waiting", frozen=True, kw_only=True):
    """The request waits; `why` is "loading" or "queued"."""

    why: str


class Granted(msgspec.Struct, tag="granted", frozen=True, kw_only=True):
    """The lease is granted; the worker listens on the Unix socket `endpoint`."""

    endpoint: str
    served_name: str
    context_length: int
    tools: bool = False  # the worker has a parser of tool calls
    thinking: bool = False  # the worker has a parser of reasoning


class Refused(msgspec.Struct, tag="refused", frozen=True, kw_only=True):
    """No lease, and why."""

    problem: Problem


class Revoked(msgspec.Struct, tag="revoked", frozen=True, kw_only=True):
    """The worker of a granted lease is gone; the stream ends with `reason`."""

    reason: str


class Running(msgspec.Struct, tag="running", frozen=True, kw_only=True):
    models: list[WorkerInfo]


class Done(msgspec.Struct, tag="done", frozen=True):
    pass


Answer = Waiting | Granted | Refused | Revoked | Running | Done

_encoder = msgspec.json.Encoder()
_questions = msgspec.json.Decoder(Question)
_answers = msgspec.json.Decoder(Answer)


def encode(message: Question | Answer) -> bytes:
    """One message as one line, the newline included."""
    return _encoder.encode(message) + b"\n"


def decode_question(line: bytes) -> Question:
    """Read a message of a gateway. Raises msgspec.DecodeError for anything else."""
    return _questions.decode(line)


def decode_answer(line: bytes) -> Answer:
    """Read a message of the supervisor. Raises msgspec.DecodeError for anything else."""
    return _answers.decode(line)
