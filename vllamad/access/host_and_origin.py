"""The checks of Host and Origin headers, and the CORS headers of a response, as in Ollama.

It must not know the machine: its names and addresses are arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

_SCHEMES: Final = ("http://", "https://")
DEFAULT_ORIGINS: Final = (
    *(
        f"{scheme}{host}{port}"
        for host in ("localhost", "127.0.0.1", "0.0.0.0")
        for scheme in _SCHEMES
        for port in ("", ":*")
    ),
    "app://*",
    "file://*",
    "tauri://*",
    "vscode-webview://*",
    "vscode-file://*",
)

_ALLOWED_HEADERS: Final = ",".join(
    ["Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "Openai-Beta"]
    + [
        f"X-Stainless-{name}"
        for name in (
            "Arch", "Async", "Custom-Poll-Interval", "Helper-Method", "Lang", "Os",
            "Package-Version", "Poll-Helper", "Retry-Count", "Runtime", "Runtime-Version",
            "Timeout",
        )
    ]
    # Not Ollama's: without them no web page could use /v1/messages.
    + ["X-Api-Key", "Anthropic-Version", "Anthropic-Beta"]
    + ["Anthropic-Dangerous-Direct-Browser-Access", "X-Stainless-Helper"]
)  # fmt: skip
_PREFLIGHT: Final = (
    ("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    ("Access-Control-Allow-Headers", _ALLOWED_HEADERS),
    ("Access-Control-Max-Age", "43200"),
)

# narrower than is_private, which also takes documentation and link-local networks
_PRIVATE: Final = tuple(
    ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The decision on a request: an empty response with `status` at once; None lets it pass."""

    status: int | None = None
    headers: Headers = ()  # of the response, also of an error


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Both checks in Ollama's order, for one listening address."""

    bind_is_loopback: bool
    own_names: frozenset[str] = frozenset()
    own_addresses: frozenset[str] = frozenset()
    hosts: tuple[str, ...] = ()  # configured: let in besides our own
    origins: tuple[str, ...] = ()  # configured: let in besides DEFAULT_ORIGINS

    def admit(self, *, origin: str | None, host: str, method: str) -> Decision:
        """Check one request, before its route is looked up."""
        decision = cors(origin, host, method, self.origins)
        if decision.status is not None:
            return decision
        if not allowed_host(
            host,
            bind_is_loopback=self.bind_is_loopback,
            own_names=self.own_names,
            own_addresses=self.own_addresses,
            extra=self.hosts,
        ):
            return Decision(status=403, headers=decision.headers)
        if method == "OPTIONS" and self.bind_is_loopback and not _is_address(_without_port(host)):
            return Decision(status=204, headers=decision.headers)
        return decision


def cors(origin: str | None, host: str, method: str, allowed: Iterable[str] = ()) -> Decision:
    """Check an Origin header, None if there is none; `allowed` are the configured entries."""
    if origin is None or origin in {f"{scheme}{host}" for scheme in _SCHEMES}:
        return Decision()
    entries = [entry.strip().lower() for entry in allowed]
    anyone = "*" in entries
    if not anyone and not any(_matches(entry, origin) for entry in (*entries, *DEFAULT_ORIGINS)):
        return Decision(status=403)
    granted: Headers = (("Access-Control-Allow-Origin", "*" if anyone else origin),)
    vary = ["Origin"] if not anyone else []
    if method != "OPTIONS":
        return Decision(headers=granted + _vary(vary))
    if not anyone:
        vary += ["Access-Control-Request-Method", "Access-Control-Request-Headers"]
    return Decision(status=204, headers=granted + _PREFLIGHT + _vary(vary))


def allowed_host(
    host_header: str,
    *,
    bind_is_loopback: bool,
    own_names: Collection[str],
    own_addresses: Collection[str],
    extra: Collection[str] = (),
) -> bool:
    """Check a Host header. On a loopback bind, only names a rebinding attack cannot use are let in.

    `own_names` are the machine's hostnames, `own_addresses` its interface addresses, `extra` the
    configured names; an entry `*.example.com` there stands for all names below example.com.
    """
    if not bind_is_loopback:
        return True
    host = _without_port(host_header.strip()).lower()
    names = {"", "localhost", *(name.lower() for name in (*own_names, *extra))}
    below = (".localhost", ".local", ".internal", *(n[1:] for n in names if n.startswith("*.")))
    return host in names or host.endswith(below) or _local_address(host, own_addresses)


def _matches(entry: str, origin: str) -> bool:
    before, star, after = entry.partition("*")
    if not star:
        return entry == origin
    long_enough = len(origin) >= len(before) + len(after)
    return long_enough and origin.startswith(before) and origin.endswith(after)


def _vary(names: Iterable[str]) -> Headers:
    return tuple(("Vary", name) for name in names)


def _without_port(host: str) -> str:
    """`name:port`, `[v6]:port` or `[v6]` without port and brackets; a bare v6 address as it is."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    return name if colon and ":" not in name and not port.strip("0123456789") else host


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _local_address(host: str, own: Collection[str]) -> bool:
    if not _is_address(host):
        return False
    address = ip_address(host)
    if address.is_loopback or address.is_unspecified or str(address) in own:
        return True
    return any(address in network for network in _PRIVATE)
