"""The public sockets: all of them or none, and a reason for none."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vllamad.errors import HostProblem
from vllamad.host.listeners import Given, address_of, all_loopback, bind_http, given

Opened = Callable[..., socket.socket]

V4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))
V6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0))
NOT_HERE = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 0, 0, 0))
NO_FAMILY = (63, socket.SOCK_STREAM, 0, "", ("::1", 0))


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What every name stands for from now on."""

    def resolve(*found: object) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: list(found))

    return resolve


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def taken() -> tuple[socket.socket, str]:
    other = socket.create_server(("127.0.0.1", 0))
    return other, f"127.0.0.1:{other.getsockname()[1]}"


def test_every_address_is_listened_on() -> None:
    bound = bind_http(["127.0.0.1:0", "127.0.0.2:0"])
    for sock in bound:
        assert not sock.getblocking()
        socket.create_connection(sock.getsockname()).close()
    assert [sock.getsockname()[0] for sock in bound] == ["127.0.0.1", "127.0.0.2"]
    close(bound)


def test_a_taken_address_is_named_with_advice_and_its_errno() -> None:
    other, text = taken()
    with other, pytest.raises(HostProblem) as caught:
        bind_http([text])
    assert caught.value.message == f"cannot listen on {text}: Address already in use"
    assert caught.value.errno == errno.EADDRINUSE
    assert "set server.listen" in caught.value.hint


def test_all_or_none() -> None:
    other, text = taken()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{probe.getsockname()[1]}"
    with other, pytest.raises(HostProblem):
        bind_http([free, text])
    close(bind_http([free]))


def test_an_address_that_is_not_this_machines_is_refused() -> None:
    with pytest.raises(HostProblem, match=r"cannot listen on 192\.0\.2\.1:1: Cannot assign"):
        bind_http(["192.0.2.1:1"])


def test_a_name_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(HostProblem, match="cannot listen on nowhere:1: Name or service not known"):
        bind_http(["nowhere:1"])


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_a_name_with_several_addresses_is_listened_on_at_each(
    resolving: Callable[..., None],
) -> None:
    resolving(V4, V6, V4)
    bound = bind_http(["localhost:0"])
    assert [sock.family for sock in bound] == [socket.AF_INET, socket.AF_INET6]
    close(bound)


@pytest.mark.parametrize("missing", [NOT_HERE, NO_FAMILY])
def test_an_address_of_a_name_that_this_machine_lacks_is_done_without(
    resolving: Callable[..., None], missing: object
) -> None:
    resolving(missing, V4)
    bound = bind_http(["localhost:0"])
    assert [sock.family for sock in bound] == [socket.AF_INET]
    close(bound)


def test_a_name_of_which_this_machine_has_no_address_is_refused(
    resolving: Callable[..., None],
) -> None:
    resolving(NO_FAMILY, NOT_HERE)
    with pytest.raises(HostProblem, match="cannot listen on elsewhere:0"):
        bind_http(["elsewhere:0"])


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        (["127.0.0.1:0"], True),
        (["127.0.0.1:0", "127.8.8.8:0"], True),
        (["0.0.0.0:0"], False),
        (["127.0.0.1:0", ":0"], False),
    ],
)
def test_only_loopback_is_this_machine_alone(listen: list[str], loopback: bool) -> None:
    bound = bind_http(listen)
    assert all_loopback(bound) is loopback
    close(bound)


def test_a_unix_socket_is_this_machine_alone(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        assert all_loopback([sock])


@pytest.fixture
def opened(tmp_path: Path) -> Generator[Callable[..., socket.socket]]:
    """Opens sockets as systemd does, and closes what is left of them."""
    with ExitStack() as stack:

        def listen(
            family: int, address: object, kind: int = socket.SOCK_STREAM, *, listen: bool = True
        ) -> socket.socket:
            sock = stack.enter_context(socket.socket(family, kind))
            sock.bind(address)  # type: ignore[arg-type]
            if listen:
                sock.listen()
            return sock

        yield listen


def test_sockets_are_known_by_their_names_whatever_their_order(
    opened: Opened, tmp_path: Path
) -> None:
    control = opened(socket.AF_UNIX, str(tmp_path / "c"))
    four = opened(socket.AF_INET, ("127.0.0.1", 0))
    six = opened(socket.AF_INET6, ("::1", 0))
    path = opened(socket.AF_UNIX, str(tmp_path / "h"))
    for names in (("http", "ctl"), ("ctl", "http")):
        by_name = {"http": [four, six, path], "ctl": [control]}
        found = given({name: by_name[name] for name in names})
        assert found == Given(http=(four, six, path), control=control)
    assert [address_of(sock) for sock in (four, six, path)] == [
        f"127.0.0.1:{four.getsockname()[1]}",
        f"[::1]:{six.getsockname()[1]}",
        str(tmp_path / "h"),
    ]


def test_nothing_given_is_nothing() -> None:
    assert given({}) == Given()


@pytest.mark.parametrize("name", ["vllamad-http.socket", "unknown", "HTTP"])
def test_a_socket_of_another_name_is_closed_and_the_others_are_used(
    opened: Opened, name: str
) -> None:
    odd, good = (opened(socket.AF_INET, ("127.0.0.1", 0)) for _ in range(2))
    assert given({name: [odd], "http": [good]}) == Given(http=(good,))
    assert odd.fileno() == -1, "nobody waits for an answer that never comes"


def test_what_cannot_be_what_its_name_says_is_refused_by_its_address(
    opened: Opened, tmp_path: Path
) -> None:
    datagrams = opened(socket.AF_UNIX, str(tmp_path / "d"), socket.SOCK_DGRAM, listen=False)
    with pytest.raises(HostProblem, match=f"cannot use the socket {tmp_path}/d") as caught:
        given({"http": [datagrams]})
    assert "ListenStream=" in caught.value.hint
    bound = opened(socket.AF_INET, ("127.0.0.1", 0), listen=False)
    with pytest.raises(HostProblem, match="it is not listening"):
        given({"http": [bound]})
    tcp = opened(socket.AF_INET, ("127.0.0.1", 0))
    with pytest.raises(HostProblem, match="must be a Unix socket"):
        given({"ctl": [tcp]})
    two = [opened(socket.AF_UNIX, str(tmp_path / name)) for name in ("one", "two")]
    with pytest.raises(HostProblem, match="there is one named ctl already"):
        given({"ctl": two})


def test_an_abstract_address_can_be_written_too(opened: Opened) -> None:
    sock = opened(socket.AF_UNIX, f"\0vllamad-test-{os.getpid()}")
    assert address_of(sock) == f"@vllamad-test-{os.getpid()}"
