"""Every refusal that a caller can act on, each with a stable kind and an HTTP status.

VllamadError                error             500   of no other kind
    BadInput            bad-input         400   a request that can never succeed as it stands
    ModelNotFound       model-not-found   404   no model of that name is installed
    NotSupported        not-supported     400   the model exists but cannot do this
    ServerBusy          busy              503   the queue is full
    Unavailable         unavailable       503   draining, or not yet up: worth another try
    DoesNotFit          does-not-fit      500   no amount of eviction makes room
    LoadFailed          load-failed       500   the engine did not come up, and why
    WorkerLost          worker-lost       500   the engine died while it was answering
    EngineRefused       engine-refused    its   the engine answered with an error of its own
    NotAllowed          not-allowed       403   the peer may not do this
    Unauthenticated     unauthenticated   401   a client without a valid API key
    NotReachable        not-reachable     500   no daemon answers on its control socket
    ConfigError         config            500   one or more faults in the configuration
    RuntimeProblem      runtime           500   the engine runtime is missing, broken or unusable
    HostProblem         host              500   the machine says no: address in use, disk full

A class exists only if some caller treats it differently; a new one registers itself by its kind.
`protocol/problem.py` sends them over our sockets. The exit statuses of `vllamactl` are in one table
in `vllamactl/__main__.py`.
"""

from __future__ import annotations

from typing import ClassVar

KINDS: dict[str, type[VllamadError]] = {}  # every class with a kind of its own


class VllamadError(Exception):
    """A refusal that a caller can act on.

    `kind` is part of every protocol and never changes. `status` is the HTTP status; one error may
    bring its own.
    """

    kind: ClassVar[str] = "error"
    status: int = 500

    def __init__(self, message: str, *, hint: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if status is not None:
            self.status = status

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            assert cls.kind not in KINDS, f"two errors of kind {cls.kind}"
            KINDS[cls.kind] = cls


KINDS[VllamadError.kind] = VllamadError


class BadInput(VllamadError):
    """A request that can never succeed as it stands; one may bring the status that Ollama has."""

    kind = "bad-input"
    status = 400


class ModelNotFound(VllamadError):
    kind = "model-not-found"
    status = 404


class NotSupported(VllamadError):
    kind = "not-supported"
    status = 400


class ServerBusy(VllamadError):
    """The queue is full; the text is Ollama's, two spaces included."""

    kind = "busy"
    status = 503

    def __init__(
        self,
        message: str = "server busy, please try again.  maximum pending requests exceeded",
        *,
        hint: str = "",
        status: int | None = None,
    ) -> None:
        super().__init__(message, hint=hint, status=status)


class Unavailable(VllamadError):
    kind = "unavailable"
    status = 503


class DoesNotFit(VllamadError):
    kind = "does-not-fit"


class LoadFailed(VllamadError):
    kind = "load-failed"


class WorkerLost(VllamadError):
    kind = "worker-lost"


class EngineRefused(VllamadError):
    """The engine answered with an error of its own; `status` is the engine's.

    `unknown` is an outline for the log of an error text that was not known; it stays here.
    """

    kind = "engine-refused"

    def __init__(self, message: str, *, hint: str = "", status: int, unknown: str = "") -> None:
        super().__init__(message, hint=hint, status=status)
        self.unknown = unknown


class NotAllowed(VllamadError):
    kind = "not-allowed"
    status = 403


class Unauthenticated(VllamadError):
    kind = "unauthenticated"
    status = 401


class NotReachable(VllamadError):
    kind = "not-reachable"


class ConfigError(VllamadError):
    """All faults of a configuration at once, each a line `file:line: key: problem`."""

    kind = "config"

    def __init__(
        self, problems: tuple[str, ...], *, hint: str = "", status: int | None = None
    ) -> None:
        super().__init__("\n".join(problems), hint=hint, status=status)
        self.problems = problems


class RuntimeProblem(VllamadError):
    kind = "runtime"


class HostProblem(VllamadError):
    """The machine says no; `errno` is its number for it, 0 where it gave none."""

    kind = "host"

    def __init__(
        self, message: str, *, hint: str = "", status: int | None = None, errno: int = 0
    ) -> None:
        super().__init__(message, hint=hint, status=status)
        self.errno = errno
