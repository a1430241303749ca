"""The examples for nginx and Caddy, as they are shipped: streams, keys, limits, and a restart."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import until
from tests.system import trees
from tests.system.environment import ROOT
from tests.system.prepared import skipping
from tests.system.service import ANSWER_LIMIT, Service

pytestmark = [pytest.mark.system, pytest.mark.parametrize("box", [trees.HOST], indirect=True)]

EXAMPLES = ROOT / "packaging" / "examples"
NAME = "ai.example.org"
KEY = "sk-a-key-for-the-tests-0123456789abcdef"
PAUSE = (
    3.0  # seconds after which the engine speaks; both proxies would hold back a few bytes longer
)
TOKENS = 5
CLIENTS = 8
END_LIMIT = 30.0


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of our own for the name in the examples, and its key."""
    made = folder / "certificate.pem", folder / "key.pem"
    # fmt: off
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
         "-out", made[0], "-keyout", made[1]],
        check=True, capture_output=True,
    )
    # fmt: on
    return made


def nginx(work: Path) -> list[str]:
    """nginx with the example in the place of one of its files."""
    chain, key = certificate(work)
    folder = f"/etc/letsencrypt/live/{NAME}"
    site = (EXAMPLES / "nginx.conf").read_text()
    site = site.replace(f"{folder}/fullchain.pem", str(chain))
    (work / "site.conf").write_text(site.replace(f"{folder}/privkey.pem", str(key)))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {work}/{kind};\n" for kind in kinds)
    (work / "nginx.conf").write_text(
        f"user root;\npid {work}/pid;\ndaemon off;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{places}include {work}/site.conf;\n}}\n"
    )
    words = [program("nginx", work), "-e", str(work / "log"), "-c", str(work / "nginx.conf")]
    done = subprocess.run([*words, "-t"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return words


def caddy(work: Path) -> list[str]:
    """Caddy with the example; its certificate is ours, since nobody out there gives us one."""
    chain, key = certificate(work)
    site = (EXAMPLES / "Caddyfile").read_text()
    site = site.replace(f"{NAME} {{\n", f"{NAME} {{\n\ttls {chain} {key}\n")
    (work / "Caddyfile").write_text(site)
    places = [f"{name}={work}" for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")]
    run = [
        program("caddy", work),
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        str(work / "Caddyfile"),
    ]
    return ["env", *places, *run]


PROXIES: dict[str, Callable[[Path], list[str]]] = {"nginx": nginx, "caddy": caddy}


def program(name: str, work: Path) -> str:
    """A proxy, out of Debian's package where it is not installed: nobody wants it started."""
    if found := shutil.which(name, path="/usr/sbin:/usr/bin"):
        return found
    with skipping(f"cannot run {name}"):
        folder = trees.unpacked(name, work / "unpacked") / "usr"
        return next(str(path) for path in folder.glob(f"*bin/{name}"))
    raise AssertionError("it was skipped")


class Proxied:
    """A service behind a proxy, as a client out there meets it."""

    def __init__(self, service: Service, chain: Path) -> None:
        self.service = service
        self._trust = ssl.create_default_context(cafile=str(chain))

    @contextmanager
    def asking(
        self, method: str, path: str, body: object, key: str = KEY
    ) -> Generator[http.client.HTTPConnection]:
        """A request on its way, on a connection of its own, which is cut on leaving."""
        connection = http.client.HTTPConnection(NAME)
        plain = self.service.box.connect(443)
        connection.sock = self._trust.wrap_socket(plain, server_hostname=NAME)
        connection.sock.settimeout(ANSWER_LIMIT)
        try:
            text = body if isinstance(body, bytes) else json.dumps(body)
            connection.request(method, path, text, {"Authorization": f"Bearer {key}"})
            yield connection
        finally:
            connection.close()

    def status(self, method: str, path: str, body: object, key: str = KEY) -> int:
        with self.asking(method, path, body, key) as connection:
            with connection.getresponse() as response:
                response.read()
            return response.status


@pytest.fixture(params=PROXIES)
def proxied(request: pytest.FixtureRequest, service: Service, tmp_path: Path) -> Generator[Proxied]:
    service.configure(scenarios={"a": {"tokens": 50, "stall_after": TOKENS}})
    service.write("/run/credstore/api_keys", KEY)
    service.start()
    command = PROXIES[request.param](tmp_path)
    process = service.box.start(*command)
    try:
        until(lambda: answers(service))
        yield Proxied(service, tmp_path / "certificate.pem")
    finally:
        process.terminate()
        try:
            print(process.communicate(timeout=END_LIMIT))
        finally:
            process.kill()
        service.box.run("rm", "-rf", "/run/credstore")


def answers(service: Service) -> bool:
    try:
        service.box.connect(443).close()
    except ConnectionRefusedError:
        return False
    return True


def leases(service: Service) -> int:
    return sum(worker["leases"] for worker in service.workers())


def chat(model: str, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_tokens_come_through_as_they_are_made(proxied: Proxied, path: str) -> None:
    # The engine says five words and then nothing more: a proxy that collects would say nothing.
    with (
        proxied.asking("POST", path, chat("a", stream=True)) as connection,
        connection.getresponse() as response,
    ):
        assert response.status == 200
        lines = [line for line in (response.readline() for _ in range(TOKENS)) if line.strip()]
        assert lines
        assert leases(proxied.service) == 1
    # The client has gone: so has its request.
    until(lambda: leases(proxied.service) == 0)


def test_a_client_that_goes_while_it_waits_ends_its_request(proxied: Proxied) -> None:
    with proxied.asking("POST", "/api/chat", chat("a", stream=False)):
        until(lambda: leases(proxied.service) == 1)
    until(lambda: leases(proxied.service) == 0, limit=20)


def test_keys_reach_the_daemon(proxied: Proxied) -> None:
    assert proxied.status("POST", "/api/show", {"model": "a"}) == 200
    assert proxied.status("POST", "/api/show", {"model": "a"}, key="sk-another") == 401


def test_an_upload_may_be_larger_than_proxies_like(proxied: Proxied) -> None:
    blob = bytes(8 << 20)
    digest = "2daeb1f36095b44b318410b3f4e8b5d989dcc7bb023d1426c492dab0a3053e74"
    assert proxied.status("POST", f"/api/blobs/sha256:{digest}", blob) == 201


def test_a_restart_of_the_daemon_is_waited_for(proxied: Proxied) -> None:
    restarted = threading.Event()

    def ask_until_restarted() -> set[int]:
        found: set[int] = set()
        while not restarted.is_set():
            found.add(proxied.status("POST", "/api/show", {"model": "a"}))
        return found

    with ThreadPoolExecutor(CLIENTS) as threads:
        asking = [threads.submit(ask_until_restarted) for _ in range(CLIENTS)]
        proxied.service.restart()
        restarted.set()
    assert {status for one in asking for status in one.result()} == {200}
