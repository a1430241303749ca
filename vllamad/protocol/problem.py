"""An error on a socket of ours: written as a `Problem`, and read back as the error it was.

Used on the control socket, in its progress lines, in the lease conversation, and between a pull and
the supervisor. Knows no I/O.
"""

from __future__ import annotations

import msgspec

from vllamad.errors import KINDS, ConfigError, HostProblem, VllamadError


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One error. `kind` is one of those in `errors.py`; one that is not known reads as "error"."""

    kind: str
    message: str
    hint: str = ""
    status: int = 0  # HTTP; 0 from a daemon that did not send it: that of the kind
    problems: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET  # of a ConfigError
    errno: int | msgspec.UnsetType = msgspec.UNSET  # of a HostProblem

    @classmethod
    def of(cls, error: VllamadError) -> Problem:
        """What is sent of `error`."""
        return cls(
            kind=error.kind,
            message=error.message,
            hint=error.hint,
            status=error.status,
            problems=error.problems if isinstance(error, ConfigError) else msgspec.UNSET,
            errno=error.errno if isinstance(error, HostProblem) else msgspec.UNSET,
        )

    def error(self) -> VllamadError:
        """The error that was sent: of the same class, with the same status."""
        cls = KINDS.get(self.kind, VllamadError)
        status = self.status or cls.status
        if issubclass(cls, ConfigError):
            problems = self.problems or tuple(self.message.splitlines())
            return cls(problems, hint=self.hint, status=status)
        if issubclass(cls, HostProblem):
            return cls(self.message, hint=self.hint, status=status, errno=self.errno or 0)
        return cls(self.message, hint=self.hint, status=status)


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every refusal: `{"error": {"kind": ..., "message": ..., "hint": ...}}`."""

    error: Problem


def encode_error(error: VllamadError) -> bytes:
    """The body of a refusal."""
    return msgspec.json.encode(ProblemBody(error=Problem.of(error)))


def decode_error(body: bytes) -> VllamadError:
    """Read what `encode_error` wrote. Raises msgspec.DecodeError."""
    return msgspec.json.decode(body, type=ProblemBody).error.error()
