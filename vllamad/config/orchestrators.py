"""Variables that an orchestrator adds for a service whose name begins like our variables.

Kubernetes adds these for each service of a namespace, Docker for each link: the service's name in
capitals, then what the tables below say.
"""

from __future__ import annotations

import re

_ADDRESS = r"[a-z]+://[0-9a-zA-Z.:\[\]-]+"  # tcp://10.0.0.1:11434
_HOST = r"[0-9a-fA-F.:]+"
_PORT = r"[0-9]{1,5}"
_PROTOCOL = r"TCP|UDP|SCTP"
_GENERATED = tuple(
    (re.compile(name), re.compile(value))
    for name, value in (
        (r".*_SERVICE_HOST", rf"{_HOST}|None"),
        (r".*_SERVICE_PORT(_[A-Z0-9_]+)?", _PORT),
        (rf".*_PORT(_[0-9]+_({_PROTOCOL}))?", _ADDRESS),
        (rf".*_PORT_[0-9]+_({_PROTOCOL})_PROTO", "tcp|udp|sctp"),
        (rf".*_PORT_[0-9]+_({_PROTOCOL})_PORT", _PORT),
        (rf".*_PORT_[0-9]+_({_PROTOCOL})_ADDR", _HOST),
        (r".*_NAME", r"/[^/]+/[^/]+"),  # Docker's, of a link
    )
)


def is_generated(variable: str, text: str) -> bool:
    """True if an orchestrator adds a variable of that name with such a value."""
    return any(
        name.fullmatch(variable) and value.fullmatch(text.strip()) for name, value in _GENERATED
    )
