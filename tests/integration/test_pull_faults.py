"""What goes wrong with a pull: what its user reads, and what is on the disk afterwards.

The table of faults is `FAULTS`, and below it those that take more than a word to bring about.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hub import Hub, running
from tests.support.checkpoints import SMOLLM2
from tests.support.daemon import Daemon, daemon, fake_config, fake_home, until
from vllamad.host.log_events import LogEvent
from vllamad.host.processes.shim import descendants

pytestmark = pytest.mark.integration

SIZE = 24 << 20
LARGE = "model.safetensors"
NOTHING = "nothing"


def weights(size: int) -> bytes:
    header = json.dumps(
        {"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}
    ).encode()
    return len(header).to_bytes(8, "little") + header + random.Random(1).randbytes(size)


CATALOG = """
[tiny]
about = "what the tests pull"
license = "apache-2.0"
latest = "1b"
[tiny.tags.1b]
parameters = 1e6
context = 2048
bf16 = "org/tiny"
"""
FILES = {"config.json": json.dumps(SMOLLM2).encode(), LARGE: weights(SIZE)}


class Puller:
    """A daemon whose hub does as the test says."""

    def __init__(self, one: Daemon, hub: Hub) -> None:
        self.daemon = one
        self.hub = hub

    def pull(self, name: str = "org/tiny") -> str:
        """Pull as `ollama pull` does; the last thing it is told."""
        with self.daemon.http.stream("POST", "/api/pull", json={"model": name}) as answer:
            steps = [json.loads(line) for line in answer.iter_lines()]
        totals = [step["completed"] for step in steps if "completed" in step]
        assert totals == sorted(totals)
        return steps[-1].get("error") or steps[-1]["status"]

    def listed(self) -> list[str]:
        return [model["name"] for model in self.daemon.http.get("/api/tags").json()["models"]]

    def on_disk(self) -> str:
        """What there is of the model: in all, by sort."""
        return what_is_in(self.daemon.home / "state" / "models" / "hub" / "models--org--tiny")

    def pull_process(self) -> int | None:
        below = descendants(self.daemon.pid)
        found = [one.pid for one in below if b"vllamad.models.hub.pull_process" in cmdline(one.pid)]
        return found[0] if found else None


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def what_is_in(repository: Path) -> str:
    blobs = list(repository.glob("blobs/*"))
    parts = [path for path in blobs if path.suffix == ".incomplete"]
    found = [f"{len(blobs) - len(parts)} whole"] if len(blobs) > len(parts) else []
    found += [f"{len(parts)} begun"] if parts else []
    return ", ".join(found) or NOTHING


@contextmanager
def pulling_daemon(home: Path, files: dict[str, bytes]) -> Generator[Puller]:
    with running(dict(files)) as hub:
        environ = {"HF_ENDPOINT": hub.endpoint, "XDG_CONFIG_HOME": str(home / "etc")}
        catalog = home / "etc/vllamad/catalog.toml"
        catalog.parent.mkdir(parents=True)
        catalog.write_text(CATALOG)
        with daemon(
            fake_home(home, []),
            config=fake_config(more="[server]\ndrain_timeout = 1"),
            environ=environ,
        ) as one:
            yield Puller(one, hub)


@pytest.fixture
def puller(tmp_path: Path) -> Generator[Puller]:
    with pulling_daemon(tmp_path, FILES) as one:
        yield one


def flip(hub: Hub) -> None:
    true = hub.files[LARGE]
    hub.serve[LARGE] = true[:-2] + bytes([true[-2] ^ 1]) + true[-1:]


def rename(name: str) -> Callable[[Hub], None]:
    def arrange(hub: Hub) -> None:
        hub.files[name] = b"evil"

    return arrange


def set_to(attribute: str, value: Any) -> Callable[[Hub], None]:
    return lambda hub: setattr(hub, attribute, value)


@dataclass(frozen=True)
class Fault:
    what: str
    arrange: Callable[[Hub], None]
    saw: str  # in it
    left: str = NOTHING


FAULTS = [
    Fault(
        "cut at 10 random places",
        set_to("cut", {LARGE: sorted(random.Random(7).sample(range(1 << 20, SIZE // 8), 10))}),
        "success",
        "2 whole",
    ),
    Fault("a byte flipped", flip, "digest mismatch, file must be downloaded again: want"),
    Fault(
        "a larger size announced than sent",
        set_to("sizes", {LARGE: SIZE * 2}),
        "model.safetensors: its size differs from the",
    ),
    Fault(
        "a smaller size announced than sent",
        set_to("sizes", {LARGE: SIZE // 2}),
        "model.safetensors: its size differs from the",
    ),
    Fault("429 with Retry-After, twice", set_to("busy", [1, 1]), "success", "2 whole"),
    Fault(
        "429 for ever",
        set_to("busy", [0] * 100),
        "cannot pull org/tiny: the hub limits the rate of requests",
        "1 whole, 1 begun",
    ),
    Fault(
        "redirected to a host that is none",
        set_to("location", "http://127.0.0.1:1"),
        "cannot pull org/tiny: the hub cannot be reached",
        "1 whole, 1 begun",
    ),
    Fault("gated", set_to("refuse", (403, "GatedRepo")), "cannot pull org/tiny: it is gated"),
    Fault(
        "no such repository",
        set_to("refuse", (404, "RepoNotFound")),
        "pull model manifest: file does not exist",
    ),
    Fault(
        "the hub is broken",
        set_to("refuse", (500, "Oops")),
        "cannot pull org/tiny: the hub answered with HTTP status 500",
    ),
    *(
        Fault(f"a file named {name}", rename(name), "the file name", NOTHING)
        for name in (
            "..\\evil.json",
            "evil:stream.json",
        )
    ),
    Fault("a file that leads out", rename("1_Pooling/../../../evil.json"), "success", "2 whole"),
    Fault("an etag that is a path", set_to("etags", {"config.json": "../../../evil"}),
          "its commit or etag is not a digest"),
    Fault("a commit that is a path", set_to("commit", "../../../evil"),
          "the hub names no commit"),
    Fault(
        "a header of 4 EiB",
        set_to("files", FILES | {LARGE: (1 << 62).to_bytes(8, "little") + b"{}"}),
        "its header does not fit",
    ),
    Fault(
        "weights as pickles only",
        set_to("files", {"config.json": FILES["config.json"], "pytorch_model.bin": b"x"}),
        "it has no safetensors weights",
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[Puller]:
    with pulling_daemon(tmp_path_factory.mktemp("faults"), FILES) as one:
        yield one


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_of_each_fault_the_user_reads_the_reason_and_no_half_of_a_model_is_seen(
    shared: Puller, fault: Fault
) -> None:
    fresh = Hub(files=dict(FILES), port=shared.hub.port)
    vars(shared.hub).update(vars(fresh))
    fault.arrange(shared.hub)
    try:
        assert fault.saw in shared.pull()
        assert shared.on_disk() == fault.left
        whole = fault.saw == "success"
        assert shared.listed() == (["org/tiny:latest"] if whole else [])
        assert not list(shared.daemon.home.parent.rglob("evil*"))
    finally:
        shared.daemon.http.request("DELETE", "/api/delete", json={"model": "org/tiny"})
        shutil.rmtree(shared.daemon.home / "state/models/hub", ignore_errors=True)


def test_after_a_fault_that_passes_the_next_pull_goes_on_where_it_was(puller: Puller) -> None:
    hub = puller.hub
    hub.cut[LARGE] = [11 << 20] + [0] * 10
    assert "the hub cannot be reached" in puller.pull()
    assert puller.on_disk() == "1 whole, 1 begun"
    hub.ranges.clear()
    hub.cut.clear()
    assert puller.pull() == "success"
    (asked,) = hub.ranges
    assert int(asked.removeprefix("bytes=").removesuffix("-")) >= 10 << 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_ends_midway_leaves_a_beginning_that_the_next_goes_on_from(
    puller: Puller, number: signal.Signals
) -> None:
    puller.hub.hold(LARGE)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(puller.pull)
        assert puller.hub.stalled.wait(60)
        pull = puller.pull_process()
        assert pull is not None
        puller.daemon.stop(number)
        until(lambda: not cmdline(pull))
        assert asking.exception(60) or "going down" in asking.result()
    assert puller.on_disk() == "1 whole, 1 begun"
    puller.hub.go_on.set()
    puller.hub.stall = ""
    puller.hub.ranges.clear()
    puller.daemon.log.unlink()
    puller.daemon.start({"HF_ENDPOINT": puller.hub.endpoint})
    assert puller.listed() == []
    assert puller.pull() == "success"
    assert len(puller.hub.ranges) == 1
    assert puller.on_disk() == "2 whole"


def test_two_who_ask_at_once_share_one_download(puller: Puller) -> None:
    puller.hub.hold(LARGE)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(puller.pull)
        assert puller.hub.stalled.wait(60)
        second = pool.submit(puller.pull)
        until(
            lambda: len(puller.daemon.logged(LogEvent.CONTROL_REQUEST, path="v1/models/pull")) == 2
        )
        puller.hub.go_on.set()
        assert first.result(60) == second.result(60) == "success"
    assert puller.hub.fetched().count(LARGE) == 1


def test_two_who_ask_by_two_names_for_one_repository_share_one_download(puller: Puller) -> None:
    puller.hub.hold(LARGE)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(puller.pull, "tiny:1b")
        assert puller.hub.stalled.wait(60)
        second = pool.submit(puller.pull)
        until(lambda: str(puller.hub.requests).count("/api/models/org/tiny") == 2)
        puller.hub.go_on.set()
        assert first.result(60) == second.result(60) == "success"
    assert puller.hub.fetched().count(LARGE) == 1
    assert sorted(puller.listed()) == ["org/tiny:latest", "tiny:1b"]
    assert puller.on_disk() == "2 whole"


def test_what_everybody_has_left_is_called_off_unless_it_was_detached(puller: Puller) -> None:
    puller.hub.hold(LARGE)
    with puller.daemon.http.stream("POST", "/api/pull", json={"model": "org/tiny"}) as answer:
        next(answer.iter_lines())
        assert puller.hub.stalled.wait(60)
    until(lambda: puller.pull_process() is None)
    puller.hub.stalled.clear()
    puller.daemon.ctl("pull", "--detach", "org/tiny")
    assert puller.hub.stalled.wait(60)
    puller.hub.go_on.set()
    until(lambda: puller.listed() == ["org/tiny:latest"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_fills_up_is_said_so_and_given_back(puller: Puller) -> None:
    models = puller.daemon.home / "state" / "models"
    models.mkdir(parents=True, exist_ok=True)
    mount(models, "size=2G")
    try:
        puller.hub.hold(LARGE)
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(puller.pull)
            assert puller.hub.stalled.wait(60)
            until(lambda: used(models) > SIZE // 2 - (1 << 20))
            mount(models, f"remount,size={used(models) + (1 << 20)}")
            puller.hub.go_on.set()
            assert asking.result(60) == "cannot pull org/tiny: No space left on device"
        assert puller.on_disk() == NOTHING
        assert used(models) < 1 << 20
        assert puller.listed() == []
    finally:
        subprocess.run(["umount", "--lazy", models], check=True)


def mount(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")


def used(folder: Path) -> int:
    usage = os.statvfs(folder)
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


def test_what_leaves_no_room_is_refused_before_a_byte_is_moved(puller: Puller) -> None:
    puller.hub.sizes[LARGE] = 1 << 50
    assert "it needs 1073741824 MiB, the disk has room for" in puller.pull()
    assert puller.hub.fetched() == []
    assert puller.on_disk() == NOTHING
