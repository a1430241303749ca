"""vllamad as a service in a box, with the scripted engine and two tiny models.

`Service` is one unit and the ways to talk to it. Its files are those in `systemd/`, as they are.
"""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.daemon import fake_config, until
from tests.system.box import Box
from tests.system.environment import ROOT, SOURCES

UNITS = ROOT / "systemd"
PORT = 11434
CONTROL = "/run/vllamad-control.sock"
SOCKETS = ("vllamad-http.socket", "vllamad-control.socket")
ETC = "/etc/vllamad"
STATE = "/opt/vllamad-state"  # what the state directory of each test begins with
ANSWER_LIMIT = 240.0  # a real model is loaded first, on a busy machine


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Service:
    """One vllamad.service: its configuration, its life, its answers."""

    def __init__(self, box: Box, name: str = "vllamad.service", port: int = PORT) -> None:
        self.box = box
        self.name = name
        self.port = port
        self.control = CONTROL

    def configure(
        self,
        more: str = "",
        *,
        scenarios: Mapping[str, Mapping[str, Any]] | None = None,
        file: str = "config.toml",
    ) -> None:
        """Write the configuration: `more`, and where the scripted engine is."""
        text = fake_config(scenarios=scenarios, more=more, root=Path(SOURCES))
        self.write(f"{ETC}/{file}", text)

    def write(self, path: str, text: str) -> None:
        """Write a file inside that everybody may read."""
        file = self.box.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o644)

    def drop_in(self, text: str, *, unit: str = "", name: str = "50-test") -> None:
        """Change a unit, as `systemctl edit` would."""
        self.write(f"/run/systemd/system/{unit or self.name}.d/{name}.conf", text)
        self.box.systemctl("daemon-reload")

    def setting(self, *lines: str) -> None:
        """A drop-in for [Service]."""
        self.drop_in("\n".join(["[Service]", *lines, ""]))

    def start(self) -> None:
        self.box.systemctl("start", self.name)

    def stop(self) -> None:
        self.box.systemctl("stop", self.name)

    def restart(self) -> None:
        self.box.systemctl("restart", self.name)

    def show(self, prop: str) -> str:
        return self.box.show(self.name, prop)

    @property
    def pid(self) -> int:
        """The main process as it is numbered inside; 0: there is none."""
        return int(self.show("MainPID"))

    def kill(self, signal: str = "KILL", whom: str = "main") -> None:
        self.box.systemctl("kill", f"--kill-whom={whom}", f"--signal={signal}", self.name)

    def until_restarted(self, times: int = 1) -> None:
        """Wait until systemd has restarted it so many times, and it is ready again."""
        until(lambda: int(self.show("NRestarts")) >= times and self.is_active())

    def is_active(self) -> bool:
        return self.show("ActiveState") == "active"

    def ask(self, method: str, path: str, body: object = None, key: str = "") -> Answer:
        """One request to the API, on a connection of its own, with an API key if there is one."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port)) as connection:
            connection.sock = self.box.connect(self.port)
            connection.sock.settimeout(ANSWER_LIMIT)
            text = None if body is None else json.dumps(body)
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            connection.request(method, path, text, headers)
            response = connection.getresponse()
            return Answer(status=response.status, body=response.read())

    def chat(self, model: str = "a", *, text: str = "hi", key: str = "") -> Answer:
        messages = [{"role": "user", "content": text}]
        wishes = {"temperature": 0, "num_predict": 16}
        body = {"model": model, "messages": messages, "stream": False, "options": wishes}
        return self.ask("POST", "/api/chat", body, key)

    def ctl(self, *words: str, code: int | None = 0) -> str:
        """Run `vllamactl` inside, as root."""
        return self.box.run("vllamactl", "--socket", self.control, *words, code=code)

    def workers(self) -> list[dict[str, Any]]:
        transport = httpx.HTTPTransport(uds=str(self.box.path(self.control)))
        with httpx.Client(transport=transport, base_url="http://control") as client:
            return client.get("/v1/workers").json()["workers"]

    def journal(self, *words: str) -> str:
        return self.box.journal("-o", "cat", "-u", self.name, *words)

    def cgroup(self) -> str:
        """The unit's folder in the cgroup tree; empty: it has none."""
        return self.show("ControlGroup")

    def processes(self) -> list[int]:
        """Every process in the unit's cgroup, those of the workers included."""
        found = self.box.run("find", f"/sys/fs/cgroup{self.cgroup()}", "-name", "cgroup.procs",
                             "-exec", "cat", "{}", "+", code=None)  # fmt: skip
        return [int(word) for word in found.split() if word.isdigit()]


def install(box: Box, units: Path = UNITS) -> None:
    """Put our units, user and groups into a box, as the package does."""
    there = box.path("/run")
    for folder in ("sysusers.d", "tmpfiles.d"):
        shutil.copytree(units / folder, there / folder, dirs_exist_ok=True)
    for unit in units.iterdir():
        if unit.is_file():
            shutil.copy(unit, there / "systemd" / "system")
    shutil.copytree(units / "user", there / "systemd" / "user", dirs_exist_ok=True)
    box.run("systemd-sysusers", "vllamad.conf")
    box.run("systemd-tmpfiles", "--create", "vllamad.conf")
    box.systemctl("daemon-reload")


def fresh(box: Box) -> Service:
    """A service as newly installed: its state is that of `STATE`, nothing is configured."""
    box.run("sh", "-c", f"mkdir -p {ETC} /var/lib/vllamad && cp -a {STATE}/. /var/lib/vllamad/"
            " && chown -R vllamad:vllamad /var/lib/vllamad")  # fmt: skip
    service = Service(box)
    service.configure()
    return service


def remove(box: Box) -> None:
    """End everything of ours in the box, and what tests wrote."""
    units = ["vllamad.service", *SOCKETS, "vllamad.target", "vllamad@*", "vllamad-*@*", "test-*"]
    box.systemctl("stop", *units, code=None)
    box.systemctl("reset-failed", code=None)
    for drop_in in box.path("/run/systemd/system").glob("*.d"):
        shutil.rmtree(drop_in)
    for unit in box.path("/run/systemd/system").glob("test-*"):
        unit.unlink()
    box.run("sh", "-c", f"rm -rf {ETC} /var/lib/vllamad* /var/cache/vllamad* /var/log/vllamad*")
    box.systemctl("daemon-reload")


KEPT_WORKER_ANSWERS = 2.0  # seconds until a kept worker answers again, as promised
KEEP_WORKERS_UNIT = (UNITS / "drop-ins" / "keep-workers.conf").read_text()
