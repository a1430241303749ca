"""What every test run shares: how patient it is, and what it says at its end."""

from __future__ import annotations

import gc
import signal
import sys
import warnings
from collections.abc import Generator

import hypothesis
import pytest

from vllamad.host.machine import amx

# A busy machine is no failure: how long one example takes says nothing about what it shows.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


# A script runs us in the background with these ignored, and what we start would inherit that.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGTTOU):
    if signal.getsignal(_number) is signal.SIG_IGN:
        handler = signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        signal.signal(_number, handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Drop what a failed test left, so that no other is blamed for it.

    Its traceback keeps its open files and processes; whatever test runs when they are collected is
    told that it leaked them.
    """
    failed = item.session.testsfailed
    result = yield
    if item.session.testsfailed > failed:
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            if hasattr(sys, name):
                delattr(sys, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the machine gave, and how much of the run was on the real engine."""
    terminalreporter.write_line(f"AMX: {amx.ask()}")
    passed = terminalreporter.stats.get("passed", [])
    real = sum("e2e" in report.keywords for report in passed)
    if real:
        terminalreporter.write_line(f"{real} of {len(passed)} tests ran on the real engine")
