"""What every test run shares: how patient it is, and what it says at its end."""

from __future__ import annotations

import hypothesis
import pytest

from vllamad.host import amx

# A busy machine is no failure: how long one example takes says nothing about what it shows.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the machine gave, and how much of the run was on the real engine."""
    terminalreporter.write_line(f"AMX: {amx.ask()}")
    passed = terminalreporter.stats.get("passed", [])
    real = sum("e2e" in report.keywords for report in passed)
    if real:
        terminalreporter.write_line(f"{real} of {len(passed)} tests ran on the real engine")
