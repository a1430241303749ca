"""A daemon whose loop hangs is ended and started anew, and says where it hung."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.daemon import until
from tests.support.log_lines import event_lines
from tests.system.environment import HOME
from tests.system.service import Service
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.system

# Python runs it at every start; the daemon knows nothing of it. In a gateway it does no harm.
HANGS = """
import signal, time

def hang_here(*_):
    time.sleep(600)

signal.signal(signal.SIGUSR2, hang_here)
"""
PLACE = "/opt/hangs"
# The same trick: from the signal on, the schedule breaks with the next event.
BREAKS = """
import signal

def break_here(*_):
    from vllamad.core.scheduler import Scheduler
    Scheduler.deadline = None

signal.signal(signal.SIGUSR2, break_here)
"""


@pytest.fixture
def can_hang(service: Service) -> Service:
    """A daemon whose loop blocks for good at SIGUSR2, with a short watchdog."""
    service.write(f"{PLACE}/sitecustomize.py", HANGS)
    service.setting("WatchdogSec=2", "RestartSec=100ms", f"Environment=PYTHONPATH={PLACE}")
    service.start()
    return service


@pytest.mark.assertion(2)
def test_a_blocked_loop_is_noticed_and_the_daemon_restarted(can_hang: Service):
    before = can_hang.pid
    can_hang.kill("USR2")
    can_hang.until_restarted()
    assert can_hang.pid != before
    assert can_hang.ask("GET", "/api/version").status == 200
    assert "Failed with result 'watchdog'" in can_hang.box.journal("-u", can_hang.name)


@pytest.mark.assertion(2)
def test_the_journal_tells_where_it_hung(can_hang: Service):
    pid = can_hang.pid
    can_hang.kill("USR2")
    can_hang.until_restarted()
    said = can_hang.journal(f"_PID={pid}")
    assert "Fatal Python error: Aborted" in said
    assert f'File "{PLACE}/sitecustomize.py", line 5 in hang_here' in said
    assert "in run" in said[said.index("hang_here") :]  # and from where: the event loop


@pytest.mark.assertion(2)
def test_a_daemon_at_rest_is_left_alone(can_hang: Service):
    """The watchdog's other half: it fires for nobody who answers."""
    stamps = set[str]()

    def three_pings() -> bool:
        stamps.add(can_hang.show("WatchdogTimestampMonotonic"))
        return len(stamps) > 3

    until(three_pings)
    assert can_hang.show("NRestarts") == "0"
    assert HOME in can_hang.box.run("ps", "-o", "args=", "-p", str(can_hang.pid))


@pytest.mark.assertion(2)
def test_a_broken_invariant_ends_the_daemon_at_once(service: Service):
    service.write(f"{PLACE}/sitecustomize.py", BREAKS)
    service.setting("RestartSec=100ms", f"Environment=PYTHONPATH={PLACE}")  # WatchdogSec=30
    service.start()
    service.kill("USR2")
    with ThreadPoolExecutor(1) as other:
        other.submit(service.chat)
        service.until_restarted()
    assert "Failed with result 'watchdog'" in service.box.journal("-u", service.name)
    assert event_lines(service.journal(), LogEvent.DAEMON_BROKEN)
    assert service.chat().status == 200
