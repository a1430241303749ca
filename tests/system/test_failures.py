"""Which failures are tried again, and what `systemctl status` says of them."""

from __future__ import annotations

import errno
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from tests.support.daemon import until
from tests.support.log_lines import event_lines
from tests.system.service import Service
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.system


@pytest.fixture
def alone(service: Service) -> Service:
    """The service without its sockets: it binds its own."""
    text = service.box.path(f"/run/systemd/system/{service.name}").read_text()
    lines = [line for line in text.splitlines() if ".socket" not in line]
    service.write("/run/systemd/system/test-alone.service", "\n".join(lines) + "\n")
    one = Service(service.box, "test-alone.service")
    one.setting("Environment=VLLAMAD_PATHS_CONTROL=/run/vllamad/control.sock", "Restart=no")
    one.control = "/run/vllamad/control.sock"
    return one


@pytest.mark.assertion(6)
def test_a_faulty_configuration_is_not_tried_again(service: Service):
    service.setting("RestartSec=10ms")
    service.configure("[scheduler]\nkeep_alive = 'soon'")
    service.box.systemctl("start", service.name, code=1)
    assert service.show("ExecMainStatus") == "78"
    assert (service.show("ActiveState"), service.show("NRestarts")) == ("failed", "0")
    assert "config.toml:" in service.journal()


@pytest.mark.assertion(6)
def test_status_75_asks_for_a_restart(service: Service):
    service.setting("RestartSec=10ms", "Type=exec", "ExecStart=", "ExecStart=/bin/sh -c 'exit 75'")
    service.box.systemctl("start", service.name, code=None)
    until(lambda: int(service.show("NRestarts")) > 2)


@pytest.mark.assertion(6)
def test_a_port_that_is_taken_is_told_as_errno(alone: Service):
    with taken(alone):
        alone.box.systemctl("start", alone.name, code=1)
    assert alone.show("StatusErrno") == str(errno.EADDRINUSE)
    assert "Address already in use" in alone.box.systemctl("status", alone.name, code=3)
    assert "cannot listen on 127.0.0.1:11434" in alone.journal()


@pytest.mark.assertion(11)
def test_without_socket_units_it_binds_its_own(alone: Service):
    alone.start()
    assert alone.chat().status == 200
    assert alone.ctl("ps").count("a:latest") == 1
    alone.stop()
    assert not alone.box.path(alone.control).exists()


@pytest.mark.assertion(11)
def test_without_delegation_it_works_with_process_groups_and_says_so(service: Service):
    service.setting("Delegate=no")
    service.start()
    assert service.chat().status == 200
    assert len(event_lines(service.journal(), LogEvent.CGROUPS_UNAVAILABLE)) == 1
    service.stop()
    assert service.box.run("pgrep", "-u", "vllamad", "-a", code=None) == ""


@pytest.mark.assertion(11)
def test_without_d_bus_it_works(service: Service):
    service.box.systemctl("stop", "dbus.socket", "dbus.service")
    try:
        service.start()
        assert service.chat().status == 200
        service.restart()
        assert service.chat().status == 200
        service.stop()
        assert service.show("Result") == "success"
    finally:
        service.box.systemctl("start", "dbus.socket")


@contextmanager
def taken(service: Service) -> Generator[None]:
    """Another unit listens on the port."""
    unit = "test-other.socket"
    service.write(f"/run/systemd/system/{unit}", "[Socket]\nListenStream=127.0.0.1:11434\n"
                  "Service=rescue.service\n")  # fmt: skip
    service.box.systemctl("daemon-reload")
    service.box.systemctl("start", unit)
    yield
    service.box.systemctl("stop", unit)
