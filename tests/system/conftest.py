"""Boxes for the tests, booted when the first test wants one, and the table of what was shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.daemon import fake_home
from tests.system import engine, environment, trees
from tests.system.box import Box, Plan, sweep
from tests.system.prepared import cache, home, tree
from tests.system.service import STATE, Service, fresh, install, remove

Boxes = Callable[[str], Box]

COMPILED = (environment.HOME, f"{environment.SOURCES}/vllamad", f"{environment.SOURCES}/vllamactl")


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with the scripted engine as its runtime and the models `a` and `b`."""
    return fake_home(tmp_path_factory.mktemp("home"), python=environment.PYTHON) / "state"


@pytest.fixture(scope="session")
def boxes(state: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Boxes]:
    """Boxes by name, each booted once."""
    booted: dict[str, Box] = {}
    with ExitStack() as stack:

        def box(name: str) -> Box:
            if name not in booted:
                root, work = tree(name), tmp_path_factory.mktemp(f"box-{name}")
                plan = Plan(
                    root=root,
                    read_only={state: STATE, **engine.binds(home(), root, work / "engine")},
                    writable={
                        environment.environment(cache(), root): environment.HOME,
                        # Compiled inside: two Pythons must not share a copy.
                        environment.sources(work / "sources"): environment.SOURCES,
                    },
                    over_usr_bin=environment.commands(work / "commands"),
                )
                one = stack.enter_context(Box(name, plan, work))
                one.run(environment.PYTHON, "-m", "compileall", "-q", *COMPILED)
                install(one)
                booted[name] = one
            return booted[name]

        yield box


@pytest.fixture(params=trees.NAMES)
def box(boxes: Boxes, request: pytest.FixtureRequest) -> Box:
    """A running systemd."""
    return boxes(request.param)


@pytest.fixture
def service(box: Box) -> Generator[Service]:
    """A vllamad that is installed in a box and not yet started."""
    since = box.run("date", "+%s").strip()
    one = fresh(box)
    try:
        yield one
    finally:
        print(box.journal("--since", f"@{since}")[-20_000:])  # shown when the test fails
        remove(box)


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> None:
    """Boxes of test runs that were killed are ended first."""
    if os.geteuid() == 0:
        sweep()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each report say which assertion it is about."""
    for item in items:
        for mark in item.iter_markers("assertion"):
            item.user_properties.append(("assertion", mark.args[0]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line for each assertion: what was run, and how it ended."""
    lines: list[tuple[int, str]] = []
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, number in getattr(report, "user_properties", ()):
                if name == "assertion" and (report.when == "call" or outcome != "passed"):
                    lines.append((number, f"{outcome:8}{report.nodeid.partition('::')[2]}"))
    if lines:
        terminalreporter.section("what a real systemd showed")
    for number, line in sorted(lines):
        terminalreporter.write_line(f"{number:3}  {line}")
