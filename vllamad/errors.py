"""Every refusal that a caller can act on, each with a stable kind.

VllamadError
    BadInput            bad-input         a request that can never succeed as it stands
    ModelNotFound       model-not-found   no model of that name is installed
    NotSupported        not-supported     the model exists but cannot do this
    ServerBusy          busy              the queue is full
    Unavailable         unavailable       draining, or not yet up: worth another try
    DoesNotFit          does-not-fit      no amount of eviction makes room
    LoadFailed          load-failed       the engine did not come up, and why
    WorkerLost          worker-lost       the engine died while it was answering
    EngineRefused       engine-refused    the engine answered with an error of its own
    NotAllowed          not-allowed       the peer may not do this
    Unauthenticated     unauthenticated   a client without a valid API key
    NotReachable        not-reachable     no daemon answers on its control socket
    ConfigError         config            one or more faults in the configuration
    RuntimeProblem      runtime           the engine runtime is missing, broken or unusable
    HostProblem         host              the machine says no: address in use, disk full

A class exists only if some caller treats it differently. HTTP statuses are chosen in one table in
`gateway/errors.py`, exit statuses in one table in `vllamactl/__main__.py`, both by `kind`.
"""

from __future__ import annotations

from typing import ClassVar


class VllamadError(Exception):
    """A refusal that a caller can act on; `kind` is part of the wire and never changes."""

    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadInput(VllamadError):
    """A request that can never succeed as it stands; `status` is Ollama's, mostly 400."""

    kind = "bad-input"

    def __init__(self, message: str, *, hint: str = "", status: int = 400) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ModelNotFound(VllamadError):
    kind = "model-not-found"


class NotSupported(VllamadError):
    kind = "not-supported"


class ServerBusy(VllamadError):
    """The queue is full; the text is Ollama's, two spaces included."""

    kind = "busy"

    def __init__(
        self, message: str = "server busy, please try again.  maximum pending requests exceeded"
    ) -> None:
        super().__init__(message)


class Unavailable(VllamadError):
    kind = "unavailable"


class DoesNotFit(VllamadError):
    kind = "does-not-fit"


class LoadFailed(VllamadError):
    kind = "load-failed"


class WorkerLost(VllamadError):
    kind = "worker-lost"


class EngineRefused(VllamadError):
    """The engine answered with an error of its own; `status` is the engine's.

    `unknown` is an outline for the log of what it said, where no words of ours were known for it.
    """

    kind = "engine-refused"

    def __init__(self, message: str, *, status: int, unknown: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.unknown = unknown


class NotAllowed(VllamadError):
    kind = "not-allowed"


class Unauthenticated(VllamadError):
    kind = "unauthenticated"


class NotReachable(VllamadError):
    kind = "not-reachable"


class ConfigError(VllamadError):
    """All faults of a configuration at once, each a line `file:line: key: problem`."""

    kind = "config"

    def __init__(self, problems: tuple[str, ...], *, hint: str = "") -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = problems


class RuntimeProblem(VllamadError):
    kind = "runtime"


class HostProblem(VllamadError):
    """The machine says no; `errno` is its number for it, 0 where it gave none."""

    kind = "host"

    def __init__(self, message: str, *, hint: str = "", errno: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


def from_kind(kind: str, message: str, hint: str = "") -> VllamadError:
    """Rebuild an error that crossed a socket; an unknown kind becomes a plain VllamadError."""
    for cls in (
        ModelNotFound, NotSupported, Unavailable, DoesNotFit,
        LoadFailed, WorkerLost, NotAllowed, RuntimeProblem, HostProblem, BadInput,
    ):  # fmt: skip
        if cls.kind == kind:
            return cls(message, hint=hint)
    if kind == ServerBusy.kind:
        return ServerBusy(message)
    if kind == ConfigError.kind:
        return ConfigError(tuple(message.splitlines()), hint=hint)
    return VllamadError(message, hint=hint)
