"""The addresses of this machine's interfaces, which a Host header may name."""

from __future__ import annotations

import socket
import struct
from fcntl import ioctl
from pathlib import Path

_SIOCGIFADDR = 0x8915  # netdevice(7)


def own_addresses() -> set[str]:
    """Every IPv6 address of every interface, and its first IPv4 one."""
    return _ipv4() | _ipv6(Path("/proc/net/if_inet6"))


def _ipv4() -> set[str]:
    found: set[str] = set()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            try:
                answer = ioctl(sock, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has none
            found.add(socket.inet_ntoa(answer[20:24]))
    return found


def _ipv6(path: Path) -> set[str]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return set()
    return {socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])) for line in lines}
