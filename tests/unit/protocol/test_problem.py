"""Errors on our sockets: each class comes back as itself, with all that it said."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad import errors
from vllamad.errors import (
    KINDS,
    ConfigError,
    EngineRefused,
    HostProblem,
    ModelNotFound,
    VllamadError,
)
from vllamad.protocol import lease
from vllamad.protocol.control import Progress, encode_line, failed
from vllamad.protocol.problem import Problem, decode_error, encode_error


def over_control(error: VllamadError) -> VllamadError:
    """As the body of a refusal on the control socket."""
    return decode_error(encode_error(error))


def over_progress(error: VllamadError) -> VllamadError:
    """As the last line of a long answer, or of a pull's process."""
    line = msgspec.json.decode(encode_line(failed(error)), type=Progress)
    assert line.done
    assert line.error is not None
    return line.error.error()


def over_lease(error: VllamadError) -> VllamadError:
    """As the answer of the lease server."""
    answer = lease.decode_answer(lease.encode(lease.Refused(problem=Problem.of(error))))
    assert isinstance(answer, lease.Refused)
    return answer.problem.error()


WAYS = [over_control, over_progress, over_lease]


def make(cls: type[VllamadError], message: str, hint: str, status: int, errno: int) -> VllamadError:
    if issubclass(cls, ConfigError):
        return cls((message, "b.toml:1: a line\nand another"), hint=hint, status=status)
    if issubclass(cls, HostProblem):
        return cls(message, hint=hint, status=status, errno=errno)
    return cls(message, hint=hint, status=status)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cls", KINDS.values(), ids=KINDS.keys())
@given(st.text(), st.text(), st.integers(400, 599), st.integers(0, 200))
def test_an_error_crosses_every_socket_whole(
    way: Callable[[VllamadError], VllamadError],
    cls: type[VllamadError],
    message: str,
    hint: str,
    status: int,
    errno: int,
) -> None:
    sent = make(cls, message, hint, status, errno)
    received = way(sent)
    assert type(received) is cls
    assert vars(received) | {"status": received.status} == vars(sent) | {"status": sent.status}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cls", KINDS.values(), ids=KINDS.keys())
def test_the_status_of_a_class_crosses_too(
    way: Callable[[VllamadError], VllamadError], cls: type[VllamadError]
) -> None:
    sent = make(cls, "cannot do it", "", cls.status, 0)
    assert way(sent).status == cls.status


def test_every_class_of_errors_is_registered_by_its_kind() -> None:
    classes = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, VllamadError)
    }
    assert classes == set(KINDS.values())
    assert all(KINDS[cls.kind] is cls for cls in classes)


def test_a_class_without_a_kind_of_its_own_comes_back_as_the_one_it_is_of() -> None:
    class FileGone(HostProblem):
        """Only for this test; it does not register itself."""

    received = over_control(FileGone("cannot read a", errno=2))
    assert (type(received), received.message) == (HostProblem, "cannot read a")


def test_what_the_engine_said_for_the_log_stays_here() -> None:
    received = over_control(EngineRefused("no", status=422, unknown="a text"))
    assert isinstance(received, EngineRefused)
    assert (received.status, received.unknown) == (422, "")


def test_older_clients_read_kind_message_and_hint() -> None:
    body = msgspec.json.decode(encode_error(ModelNotFound("no a", hint="pull it")))
    assert body["error"] == {
        "kind": "model-not-found", "message": "no a", "hint": "pull it", "status": 404,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "cls", "status"),
    [
        ({"kind": "model-not-found", "message": "m", "hint": ""}, ModelNotFound, 404),
        ({"kind": "config", "message": "a: x\nb: y", "hint": ""}, ConfigError, 500),
        ({"kind": "of-tomorrow", "message": "m", "status": 418}, VllamadError, 418),
    ],
)
def test_errors_of_other_versions_are_read(
    sent: dict[str, object], cls: type[VllamadError], status: int
) -> None:
    received = decode_error(msgspec.json.encode({"error": sent}))
    assert (type(received), received.status) == (cls, status)
    assert received.message == sent["message"]
    if isinstance(received, ConfigError):
        assert received.problems == ("a: x", "b: y")


def test_two_classes_cannot_have_one_kind() -> None:
    with pytest.raises(AssertionError, match="two errors of kind busy"):
        type("Other", (VllamadError,), {"kind": "busy"})
