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
    """I want to use one worker of `model`; `keep_alive` is seconds, negative for ever."""

    model: str  # canonical name, as the catalog prints it
    keep_alive: float | None = None
    request_id: str = ""


class Unload(msgspec.Struct, tag="unload", frozen=True, kw_only=True):
    """Stop `model` as soon as it is idle; answered at once with `Done`."""

    model: str


class ListRunning(msgspec.Struct, tag="list-running", frozen=True):
    """What is loaded? Answered with `Running`."""


Question = Acquire | Unload | ListRunning


class Waiting(msgspec.Struct, tag="waiting", frozen=True, kw_only=True):
    """Not yet: what the request waits for, in words for people ("loading", "queued")."""

    why: str


class Granted(msgspec.Struct, tag="granted", frozen=True, kw_only=True):
    """The lease is held; talk to the worker on the Unix socket `endpoint`."""

    endpoint: str
    served_name: str
    context_length: int
    tools: bool = False  # whether this worker can tell tool calls from text
    thinking: bool = False  # whether it can tell thoughts from answers


class Refused(msgspec.Struct, tag="refused", frozen=True, kw_only=True):
    """No lease, and why."""

    problem: Problem


class Revoked(msgspec.Struct, tag="revoked", frozen=True, kw_only=True):
    """The worker behind a granted lease is gone: end the stream with `reason`."""

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
    """Read what a gateway asked. Raises msgspec.DecodeError for anything else."""
    return _questions.decode(line)


def decode_answer(line: bytes) -> Answer:
    """Read what the supervisor answered. Raises msgspec.DecodeError for anything else."""
    return _answers.decode(line)
