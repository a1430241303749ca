"""Who may give orders: members of a group, by the kernel's word."""

from __future__ import annotations

import pytest

from tests.system.service import CONTROL, Service

pytestmark = pytest.mark.system

USERS = """
u test-member - "may give orders"
u test-stranger - "may not"
m test-member vllamad-ctl
"""


@pytest.fixture
def users(service: Service) -> Service:
    """A running daemon, a member of the group, and a stranger."""
    service.box.run("systemd-sysusers", "-", stdin=USERS)
    service.start()
    return service


def as_user(service: Service, user: str, *words: str, code: int = 0) -> str:
    """Run a command as somebody, with the groups that user has."""
    return service.box.run("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups",
                           *words, code=code)  # fmt: skip


@pytest.mark.assertion(8)
def test_a_member_of_the_group_gives_orders(users: Service):
    as_user(users, "test-member", "vllamactl", "--socket", CONTROL, "model", "load", "a")
    member = users.box.run("id", "-u", "test-member").strip()
    assert f"uid={member} " in users.journal()  # the kernel's word on who it was


@pytest.mark.assertion(8)
def test_a_stranger_is_not_even_connected(users: Service):
    said = as_user(users, "test-stranger", "vllamactl", "--socket", CONTROL, "ps", code=4)
    assert "permission denied" in said.lower()


@pytest.mark.assertion(8)
def test_the_socket_belongs_to_the_daemon_and_the_group(users: Service):
    shown = users.box.run("stat", "-c", "%U %G %a", CONTROL)
    assert shown.split() == ["vllamad", "vllamad-ctl", "660"]
