"""Addresses to listen on, read from our settings or OLLAMA_HOST. Opens no socket."""

from __future__ import annotations

import ipaddress
import re

OLLAMA_PORT = 11434
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def parse_listen(text: str) -> tuple[str, int]:
    """Read `HOST:PORT`, `[IPV6]:PORT`, `:PORT` (all of IPv4) or `HOST`. Raises ValueError.

    Port 0 is any free one; a missing one is 11434.
    """
    try:
        host, port = split_host_port(text)
    except ValueError:
        host, port = re.sub(r"^\[(.*)\]$", r"\1", text), str(OLLAMA_PORT)
        if not host:
            raise
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"port {port!r} is not a number from 0 to 65535")
    if not _is_ip(host) and (":" in host or not _NAME.fullmatch(host or "0.0.0.0")):
        raise ValueError(f"{host!r} is neither an address nor a host name")
    return host or "0.0.0.0", int(port)


def spell_listen(host: str, port: int) -> str:
    """The address as text in its one form; `parse_listen` reads it back."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unguarded(address: str) -> str:
    """The refusal to listen on a public address without API keys."""
    return (
        f"cannot listen on {address}: the API asks for no key, so every client that reaches it "
        "may use, load and unload models; listen on 127.0.0.1, give it keys with "
        "server.api_keys_file, or allow it with server.allow_unauthenticated = true"
    )


def is_loopback(host: str) -> bool:
    """True if only this machine reaches `host`; other names may resolve to anything."""
    if not _is_ip(host):
        return host.lower() == "localhost"
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def ollama_host(text: str) -> str:
    """OLLAMA_HOST as a server reads it, as `HOST:PORT`; a bad port is the scheme's own.

    Ollama's rules: without a scheme the port is 11434, with http:// 80, with https:// 443;
    scheme and path say nothing more, and the server never speaks TLS.
    """
    scheme, found, rest = text.partition("://")
    default = {"http": 80, "https": 443}.get(scheme, OLLAMA_PORT) if found else OLLAMA_PORT
    address = (rest if found else text).partition("/")[0]
    try:
        host, port = split_host_port(address)
    except ValueError:
        bare = address.strip("[]")
        host, port = (bare if _is_ip(bare) else address) or "127.0.0.1", ""
    number = int(port) if re.fullmatch(r"\+?[0-9]{1,9}", port) else -1
    return spell_listen(host, number if 0 <= number <= 65535 else default)


def split_host_port(text: str) -> tuple[str, str]:
    """Split as Go's net.SplitHostPort does: the port is required. Raises ValueError."""
    found = re.fullmatch(r"\[([^\[\]]*)\]:([^:\[\]]*)|([^:\[\]]*):([^:\[\]]*)", text)
    if not found:
        raise ValueError(f"no HOST:PORT in {text!r}")
    return found[1] or found[3] or "", found[2] or found[4] or ""


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
