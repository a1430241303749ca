"""Our own addresses, as the kernel lists them."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from vllamad.host.machine import network_addresses
from vllamad.host.machine.network_addresses import own_addresses

IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
fe8000000000000000155dfffe000001 02 40 20 80     eth0
20010db8000000000000000000000007 02 40 00 80     eth0
"""


def test_loopback_is_always_ours() -> None:
    assert "127.0.0.1" in own_addresses()


def test_every_one_is_an_address() -> None:
    assert [str(ip_address(text)) for text in sorted(own_addresses())] == sorted(own_addresses())


def test_ipv6_addresses_are_spelled_as_in_a_host_header(tmp_path: Path) -> None:
    (tmp_path / "if_inet6").write_text(IF_INET6)
    assert network_addresses._ipv6(tmp_path / "if_inet6") == {
        "::1",
        "fe80::15:5dff:fe00:1",
        "2001:db8::7",
    }


def test_a_kernel_without_ipv6_has_none(tmp_path: Path) -> None:
    assert network_addresses._ipv6(tmp_path / "if_inet6") == set()


def test_an_interface_without_an_address_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (99, "nowhere0")])
    assert network_addresses._ipv4() == {"127.0.0.1"}
