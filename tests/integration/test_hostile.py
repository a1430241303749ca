"""Strangers against the running daemon: whatever they say or leave undone, it serves the rest."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random

import httpx
import pytest

from tests.fakes.hostile_clients import (
    SEED,
    at_once,
    back_to,
    bytes_on_the_wire,
    connected,
    post,
    request_body,
    reset_on_close,
    say,
    usage,
)
from tests.support.daemon import Daemon, daemon, fake_config, fake_home, until
from tests.support.waiting import CHAT, Waits

pytestmark = pytest.mark.integration

# Routes that take a body and neither change what is installed nor look at any hub.
BODIES = [
    "/api/chat", "/api/generate", "/api/show", "/api/embed", "/api/embeddings",
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages",
    "/v1/messages/count_tokens", "/rerank", "/score",
]  # fmt: skip
# What Ollama itself answers with a 500 or 501.
OLLAMAS_OWN = re.compile(
    r'option \\"\w+\\" must be of |invalid format: |This server does not support embeddings'
)
TOLD_TOO_MUCH = re.compile(r'Traceback|File \\?"|site-packages|/state/models')


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon whose model `a` answers at once, for the tests that only talk."""
    home = fake_home(tmp_path_factory.mktemp("hostile"))
    with daemon(home, config=fake_config()) as running:
        yield running


@pytest.fixture
def unharmed(one: Daemon) -> Generator[None]:
    """Afterwards the same processes answer, hold what they held, and have nothing to report."""
    assert one.chat("a").status_code == 200
    pids = [one.pid, *one.gateways()]
    before = [usage(pid) for pid in pids]
    read = len(one.text())
    yield
    assert [one.pid, *one.gateways()] == pids
    assert one.chat("a").json()["done"] is True
    until(lambda: leases(one) == 0)
    one.http.close()
    one.http = httpx.Client(base_url=one.url, timeout=60)
    until(lambda: all(map(back_to, before, pids)), limit=20)
    assert not re.findall(r"^\S+ ERROR .*", one.text()[read:], re.MULTILINE)


def leases(one: Daemon) -> int:
    return sum(worker["leases"] + worker["waiting"] for worker in one.workers())


@pytest.mark.usefixtures("unharmed")
def test_no_bytes_on_the_wire_do_any_harm(one: Daemon) -> None:
    def talk(seed: int) -> None:
        random = Random(seed)
        said = bytes_on_the_wire(random)
        heard = say(("127.0.0.1", one.port), said, random, limit=0.5)
        statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)
        assert heard.startswith(b"HTTP/1.1 ") or not heard, (seed, said, heard)
        assert not [code for code in statuses if code[0] == 53 and code not in (b"501", b"505")], (
            seed, said, heard,
        )  # fmt: skip

    at_once((partial(talk, SEED * 10_000 + n) for n in range(800)), threads=24)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("route", BODIES)
def test_a_hostile_body_is_answered_or_refused_in_json(one: Daemon, route: str) -> None:
    refused = 0
    for seed in range(SEED * 10_000, SEED * 10_000 + 250):
        body = request_body(Random(f"{route} {seed}"))
        answer = one.http.post(route, content=body, timeout=10)
        told = seed, body[:500], answer.status_code, answer.text[:500]
        assert answer.status_code < 500 or OLLAMAS_OWN.search(answer.text), told
        assert not TOLD_TOO_MUCH.search(answer.text), told
        if answer.status_code >= 400:
            refused += 1
            assert answer.json()["error"], told
            assert len(answer.content) <= 12_000, told
    assert refused, "a generator of hostile bodies makes some that are refused"


LONG = 30 << 20


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(
    ("begin", "middle", "end"),
    [
        (b'{"model":"a","keep_alive":"', b"1h", b'"}'),
        (b'{"model":"a","keep_alive":"', b"\\u00e9", b'"}'),
        (b'{"model":"a","think":"', b"\\u0001", b'"}'),
        (b'{"model":"a","think":"', b"x", b'"}'),
        (b'{"model":"', b"x", b'"}'),
        (b'{"model":"a","top_logprobs":', b"9", b"}"),
        (b'{"model":"a","messages":[{"role":"user","images":["', b"\\n", b'"]}]}'),
        (b'{"model":"a","prompt":"x","format":"', b"x", b'"}'),
        (b"", b"[", b""),
        (b"", b'"', b""),
    ],
)
def test_a_body_of_30_mb_is_refused_in_a_few_words_and_soon(
    one: Daemon, begin: bytes, middle: bytes, end: bytes
) -> None:
    body = begin + middle * (LONG // len(middle)) + end
    began = time.monotonic()
    answer = one.http.post("/api/generate", content=body)
    assert time.monotonic() - began < 20  # about one on a quiet machine
    assert answer.status_code >= 400
    assert answer.json()["error"]
    assert len(answer.content) < 12_000


@pytest.mark.usefixtures("unharmed")
def test_the_control_socket_and_the_broker_bear_garbage(one: Daemon) -> None:
    control, broker = str(one.run / "control.sock"), str(one.run / "broker.sock")

    def talk(seed: int) -> None:
        random = Random(seed)
        said = bytes_on_the_wire(random).replace(b"/api/", b"/v1/models/a/")
        heard = say(control, said, random, limit=0.3)
        assert not re.search(rb"HTTP/1\.1 5(?!01|05)", heard), (seed, said, heard)
        line = random.choice([b"", b'{"type":"acquire","model":"a:latest"}\n', b"\xff\n", said])
        say(broker, line + random.randbytes(random.randrange(100)), random, limit=0.1)

    at_once((partial(talk, SEED * 10_000 + n) for n in range(200)), threads=8)


@pytest.mark.usefixtures("unharmed")
def test_peers_that_never_read_keep_nobody_from_the_control_socket(one: Daemon) -> None:
    follow = b"GET /v1/models/a/logs?follow=1&lines=100000 HTTP/1.1\r\nHost: x\r\n\r\n"
    control, broker = str(one.run / "control.sock"), str(one.run / "broker.sock")
    with ExitStack() as held:
        for _ in range(60):
            held.enter_context(connected(control, 5)).sendall(follow)
            held.enter_context(connected(broker, 5)).sendall(b'{"type":"list-running"}\n')
        assert "a:latest" in one.ctl("ps")


def test_300_clients_that_stream_vanish_stall_or_dawdle_leave_nothing(home: Path) -> None:
    config = fake_config(scenarios={"a": {"tokens": 1000, "rate": 300}})
    with daemon(home, config=config) as one:
        one.chat("a", options={"num_predict": 3})
        pids = [one.pid, *one.gateways()]
        before = [usage(pid) for pid in pids]
        at_once((partial(misbehave, one.port, SEED * 1000 + n) for n in range(300)), threads=300)
        until(lambda: leases(one) == 0, limit=10)
        until(lambda: gauge(one, "num_requests_running") == 0, limit=10)
        until(lambda: all(map(back_to, before, pids)), limit=20)
        assert [one.pid, *one.gateways()] == pids
        assert " ERROR " not in one.text()


def misbehave(port: int, seed: int) -> None:
    """Be one client for at most four seconds, none of them good."""
    random = Random(seed)
    end = time.monotonic() + random.random() * 4
    kind = random.choice(["vanish", "reset", "stall", "dawdle", "half", "pipeline", "cut", "wait"])
    asked = post("/api/chat", CHAT | {"stream": kind != "wait"})
    with connected(("127.0.0.1", port), 0.5) as sock:
        try:
            match kind:
                case "cut":
                    sock.sendall(asked[: random.randrange(len(asked))])
                case "pipeline":
                    sock.sendall(asked * 5)
                case _:
                    sock.sendall(asked)
            if kind == "half":
                sock.shutdown(socket.SHUT_WR)
            while kind != "stall" and time.monotonic() < end:
                sock.recv(10 if kind == "dawdle" else 5000)
        except (TimeoutError, ConnectionError):
            pass
        if kind == "reset":
            reset_on_close(sock)


def gauge(one: Daemon, name: str) -> float:
    """What the engine says of itself, asked directly."""
    [endpoint] = [path for path in (one.run / "w").glob("*/s") if path.is_socket()]
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(endpoint))) as engine:
        found = re.search(rf"{name}{{.*}} ([0-9.]+)", engine.get("http://engine/metrics").text)
    assert found
    return float(found[1])


def test_with_few_descriptors_some_are_refused_and_none_is_broken(home: Path) -> None:
    config = fake_config(scenarios={"a": {"tokens": 30, "rate": 60}})
    few = ("sh", "-c", 'ulimit -n 128; exec "$@"', "sh")
    with daemon(home, config=config, before=few) as one:
        one.chat("a")
        pids = [one.pid, *one.gateways()]
        statuses: list[int] = []

        def ask() -> None:
            statuses.append(httpx.post(f"{one.url}/api/chat", json=CHAT, timeout=30).status_code)

        at_once([ask] * 80, threads=80)
        assert set(statuses) == {200, 503}
        with ExitStack() as idle:
            for _ in range(100):
                idle.enter_context(connected(("127.0.0.1", one.port), 5))
            until(lambda: one.chat("b").status_code == 200, limit=10)
        assert [one.pid, *one.gateways()] == pids
        assert " ERROR " not in one.text()


def test_a_broken_model_is_refused_and_hides_no_other(tmp_path: Path) -> None:
    home = fake_home(tmp_path, list("abcdefgh"))
    models = home / "state" / "models"
    manifest = {name: next(models.glob(f"manifests/*/*/{name}/*.json")) for name in "bcdefgh"}
    folder = {name: models / json.loads(manifest[name].read_text())["folder"] for name in "efgh"}
    manifest["b"].write_bytes(b"\xff\x00garbage")
    manifest["c"].write_bytes(b"[" * 100_000)
    manifest["d"].write_text(manifest["d"].read_text().replace("hub/models", "../../etc"))
    (folder["e"] / "loop").symlink_to("loop")
    (folder["f"] / "config.json").unlink()
    shutil.rmtree(folder["g"])
    (folder["h"] / "config.json").write_bytes(b"\xff" * 312)
    manifest["b"].with_name("self.json").symlink_to("self.json")
    with daemon(home, config=fake_config()) as one:
        tags = one.http.get("/api/tags").json()["models"]
        assert [model["name"] for model in tags] == ["a:latest"]
        assert one.http.get("/v1/models").status_code == 200
        assert one.chat("a").status_code == 200
        for name in "bcdefgh":
            refused = one.chat(name)
            assert refused.status_code in (400, 500), name
            assert refused.json()["error"] not in ("", "internal error: see the log of vllamad")
            assert str(home) not in refused.text
        assert "a:latest" in one.ctl("list")
        assert " ERROR " not in one.text()


def test_a_model_whose_files_go_while_it_is_loaded_harms_no_other(home: Path) -> None:
    with daemon(home, config=fake_config()) as one:
        one.chat("a")
        one.chat("b")
        shutil.rmtree(next((home / "state" / "models" / "hub").glob("*--a")))
        # What was just looked at is not looked at again at once.
        until(lambda: one.chat("a").status_code == 500)
        assert one.chat("b").status_code == 200
        assert [model["name"] for model in one.http.get("/api/ps").json()["models"]] == ["b:latest"]
        shutil.rmtree(home / "state" / "models")
        assert one.http.get("/api/tags").json() == {"models": []}
        until(lambda: one.chat("b").status_code == 404)
        assert {worker["state"] for worker in one.workers()} == {"ready"}


def test_the_words_of_an_engine_tell_no_paths(home: Path) -> None:
    scenario = {"exit": 1, "log": ["OSError: no such file: /srv/secret/model.bin at 0x7f00aa"]}
    more = "[worker]\nmax_failures = 1"
    with daemon(home, config=fake_config(scenarios={"a": scenario}, more=more)) as one:
        for _ in range(2):
            refused = one.chat("a")
            assert "OSError: no such file" in refused.text
            assert "secret" not in refused.text
            assert "0x7f" not in refused.text


# These went on beside everything else; see `waiting.py`.


@pytest.mark.waits
def test_a_stream_of_more_than_a_minute_is_not_cut(waits: Waits) -> None:
    took, done = waits["long_stream"].result()  # type: ignore[misc]
    assert done
    assert took > 65


@pytest.mark.waits
@pytest.mark.parametrize(("job", "limit"), [("slow_head", 10), ("stalled_body", 15)])
def test_a_request_that_does_not_come_is_not_waited_for(
    waits: Waits, job: str, limit: float
) -> None:
    took, heard = waits[job].result()  # type: ignore[misc]
    assert heard.startswith(b"HTTP/1.1 408 ")
    assert limit - 1 < took < limit + 5


@pytest.mark.waits
def test_who_never_reads_loses_the_lease(waits: Waits) -> None:
    took = waits["never_reads"].result()
    assert isinstance(took, float)
    assert 20 < took < 40
