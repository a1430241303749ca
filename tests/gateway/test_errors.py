"""What a client is told of a refusal."""

from __future__ import annotations

import pytest

from vllamad.errors import BadInput, HostProblem, LoadFailed, RuntimeProblem, VllamadError
from vllamad.gateway.errors import told


@pytest.mark.parametrize("kind", [HostProblem, LoadFailed, RuntimeProblem])
def test_where_our_files_are_stays_with_us(kind: type[VllamadError]) -> None:
    error = kind("cannot load a: no such file: /var/lib/vllamad/x.bin at 0x7f00")
    assert told(error) == "cannot load a: no such file: … at …"


def test_what_a_client_said_is_repeated_as_it_was() -> None:
    assert told(BadInput("cannot use /a/b/c")) == "cannot use /a/b/c"
