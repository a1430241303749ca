"""One pull for all who ask, to its end or to the last who leaves."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from vllamad.core.model_name import ModelName, parse_model_name
from vllamad.errors import HostProblem, VllamadError
from vllamad.protocol.control import Progress
from vllamad.supervisor.models.pull_jobs import GRACE, PullJobs, Report

NAME = parse_model_name("org/tiny")
START = Progress(status="pulling manifest")
SUCCESS = Progress(status="success", done=True)


def of_file(completed: int, file: str = "a") -> Progress:
    return Progress(status=f"pulling {file}", digest=file, total=100, completed=completed)


class Hub:
    """Where the pulls of a test come from: it says what the test sends."""

    def __init__(self) -> None:
        self.asked = 0
        self.cancelled = 0
        self._send, self._steps = trio.open_memory_channel[Progress | Exception](100)

    def say(self, *steps: Progress | Exception) -> None:
        for step in steps:
            self._send.send_nowait(step)

    async def fetch(self, name: ModelName, report: Report) -> None:
        self.asked += 1
        await report(START)
        try:
            async for step in self._steps:
                if isinstance(step, Exception):
                    raise step
                await report(step)
                if step.done:
                    return
        except trio.Cancelled:
            self.cancelled += 1
            raise


class Listener:
    """One who asks for a model."""

    def __init__(self) -> None:
        self.heard: list[Progress] = []
        self.problem: VllamadError | None = None
        self.scope = trio.CancelScope()
        self.done = trio.Event()

    async def listen(self, pulls: PullJobs, *, detach: bool = False) -> None:
        with self.scope:
            try:
                await pulls.attend(NAME, self.hear, detach=detach)
            except VllamadError as problem:
                self.problem = problem
        self.done.set()

    async def hear(self, step: Progress) -> None:
        self.heard.append(step)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
async def pulls(hub: Hub, nursery: trio.Nursery) -> PullJobs:
    pulls = PullJobs(hub.fetch)
    await nursery.start(pulls.run)
    return pulls


async def test_who_comes_late_hears_how_far_it_has_come(
    hub: Hub, pulls: PullJobs, nursery: trio.Nursery
) -> None:
    first, second = Listener(), Listener()
    nursery.start_soon(first.listen, pulls)
    hub.say(of_file(10), of_file(0, "b"), of_file(20), of_file(30))
    await wait_all_tasks_blocked()
    nursery.start_soon(second.listen, pulls)
    await wait_all_tasks_blocked()
    assert second.heard == [START, of_file(0, "b"), of_file(30)]
    hub.say(of_file(100), SUCCESS)
    await second.done.wait()
    await first.done.wait()
    assert hub.asked == 1
    assert first.heard[-2:] == second.heard[-2:] == [of_file(100), SUCCESS]


async def test_what_stops_it_everybody_is_told(
    hub: Hub, pulls: PullJobs, nursery: trio.Nursery
) -> None:
    first, second = Listener(), Listener()
    nursery.start_soon(first.listen, pulls)
    nursery.start_soon(second.listen, pulls)
    await wait_all_tasks_blocked()
    problem = HostProblem("cannot pull org/tiny: the disk is full")
    hub.say(problem)
    await wait_all_tasks_blocked()
    assert (first.problem, second.problem) == (problem, problem)
    assert hub.asked == 1


async def test_a_pull_that_breaks_is_an_error_and_not_the_end_of_the_daemon(
    hub: Hub, pulls: PullJobs, nursery: trio.Nursery
) -> None:
    one = Listener()
    nursery.start_soon(one.listen, pulls)
    hub.say(ZeroDivisionError("oh"))
    await one.done.wait()
    assert one.problem is not None
    assert "internal error" in one.problem.message


async def test_it_goes_on_while_anybody_listens(
    hub: Hub, pulls: PullJobs, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    first, second = Listener(), Listener()
    nursery.start_soon(first.listen, pulls)
    nursery.start_soon(second.listen, pulls)
    await wait_all_tasks_blocked()
    first.scope.cancel()
    await trio.sleep(10 * GRACE)
    hub.say(SUCCESS)
    await second.done.wait()
    assert second.heard[-1] == SUCCESS
    assert hub.cancelled == 0


async def test_it_ends_a_moment_after_the_last_has_left(
    hub: Hub, pulls: PullJobs, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    one = Listener()
    nursery.start_soon(one.listen, pulls)
    await wait_all_tasks_blocked()
    one.scope.cancel()
    await trio.sleep(GRACE - 0.1)
    assert hub.cancelled == 0
    await trio.sleep(0.2)
    assert hub.cancelled == 1


async def test_who_comes_back_in_that_moment_finds_it_going_on(
    hub: Hub, pulls: PullJobs, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    first, second = Listener(), Listener()
    nursery.start_soon(first.listen, pulls)
    await wait_all_tasks_blocked()
    first.scope.cancel()
    await trio.sleep(GRACE / 2)
    nursery.start_soon(second.listen, pulls)
    await trio.sleep(GRACE * 2)
    hub.say(SUCCESS)
    await second.done.wait()
    assert (hub.asked, hub.cancelled) == (1, 0)


async def test_a_detached_one_needs_nobody(
    hub: Hub, pulls: PullJobs, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    one, other = Listener(), Listener()
    nursery.start_soon(lambda: one.listen(pulls, detach=True))
    await wait_all_tasks_blocked()
    one.scope.cancel()
    await trio.sleep(10 * GRACE)
    assert hub.cancelled == 0
    nursery.start_soon(other.listen, pulls)
    await wait_all_tasks_blocked()
    hub.say(SUCCESS)
    await other.done.wait()
    assert hub.asked == 1


async def test_a_slow_listener_holds_nobody_up(
    hub: Hub, pulls: PullJobs, nursery: trio.Nursery
) -> None:
    heard: list[Progress] = []
    go_on = trio.Event()

    async def slowly(step: Progress) -> None:
        heard.append(step)
        await go_on.wait()

    quick = Listener()
    nursery.start_soon(pulls.attend, NAME, slowly)
    nursery.start_soon(quick.listen, pulls)
    await wait_all_tasks_blocked()
    hub.say(*(of_file(n) for n in range(50)), SUCCESS)
    await quick.done.wait()
    go_on.set()
    await wait_all_tasks_blocked()
    assert heard == [START, of_file(49), SUCCESS]


async def test_the_next_pull_of_it_is_another(
    hub: Hub, pulls: PullJobs, nursery: trio.Nursery
) -> None:
    for number in (1, 2):
        one = Listener()
        hub.say(SUCCESS)
        nursery.start_soon(one.listen, pulls)
        await one.done.wait()
        assert hub.asked == number
