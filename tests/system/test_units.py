"""Our unit files in systemd's own judgement, and those beside vllamad.service at work."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.daemon import until
from tests.system.box import Box
from tests.system.service import Service, fresh, remove

pytestmark = pytest.mark.system

UNITS = "/run/systemd/system"
PORTS = (11435, 11436)
USER = "test-user"
MAX_EXPOSURE = 25


def unit_files(box: Box) -> list[str]:
    """Ours, templates as an instance."""
    names = sorted(path.name for path in box.path(UNITS).glob("vllamad*") if path.is_file())
    return [f"{UNITS}/{name.replace('@.', '@11435.')}" for name in names]


@pytest.mark.assertion(13)
def test_verify_is_silent(box: Box):
    said = box.run("systemd-analyze", "verify", "--man=no", "--recursive-errors=no",
                   *unit_files(box))  # fmt: skip
    assert said == ""


@pytest.mark.assertion(13)
@pytest.mark.parametrize("name", ["vllamad.service", "vllamad@11435.service"])
def test_the_exposure_is_low(box: Box, name: str):
    box.run("systemd-analyze", "security", "--no-pager", f"--threshold={MAX_EXPOSURE}", name)


class Instance(Service):
    """One of several, named by its port."""

    def __init__(self, box: Box, port: int) -> None:
        super().__init__(box, f"vllamad@{port}.service", port)
        self.control = f"/run/vllamad-control-{port}.sock"


@pytest.fixture
def instances(service: Service) -> list[Instance]:
    """Two of them, configured and wanted by the target."""
    for port in PORTS:
        service.configure(file=f"{port}.toml")
        state = f"/var/lib/vllamad-{port}"
        service.box.run("cp", "-a", "/var/lib/vllamad", state)
    service.drop_in("[Unit]\nWants=" + " ".join(f"vllamad@{port}.service" for port in PORTS) + "\n",
                    unit="vllamad.target")  # fmt: skip
    return [Instance(service.box, port) for port in PORTS]


@pytest.mark.assertion(13)
def test_instances_start_and_stop_with_their_target(instances: list[Instance]):
    box = instances[0].box
    box.systemctl("start", "vllamad.target")
    until(lambda: all(instance.is_active() for instance in instances))
    for instance in instances:
        assert instance.chat().status == 200
        assert len(instance.workers()) == 1
    assert box.show("vllamad.service", "ActiveState") == "inactive"
    box.systemctl("stop", "vllamad.target")
    until(lambda: not any(instance.is_active() for instance in instances))


@pytest.mark.assertion(13)
def test_an_instance_without_settings_of_its_own_is_refused(service: Service):
    said = service.box.systemctl("start", "vllamad@11435.service", code=1)
    assert "Assertion failed" in said


class OfUser(Service):
    """The service of a user's own manager."""

    def __init__(self, box: Box, uid: int) -> None:
        super().__init__(box)
        self.control = f"/run/user/{uid}/vllamad/control.sock"
        self._as_user = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--init-groups", "env",
                         f"XDG_RUNTIME_DIR=/run/user/{uid}", f"HOME=/home/{USER}")  # fmt: skip

    def systemctl(self, *words: str) -> str:
        return self.box.run(*self._as_user, "systemctl", "--user", *words)


@pytest.fixture
def of_user(box: Box) -> Generator[OfUser]:
    """A user with a manager of their own, a runtime and models."""
    fresh(box)
    box.run("systemd-sysusers", "-", stdin=f'u {USER} - "has their own" /home/{USER}\n')
    uid = int(box.run("id", "-u", USER))
    box.run("sh", "-c", f"mkdir -p /home/{USER}/.local/state /home/{USER}/.config && cp -a"
            f" /var/lib/vllamad /home/{USER}/.local/state/ && cp -a /etc/vllamad"
            f" /home/{USER}/.config/ && chown -R {USER}: /home/{USER}")  # fmt: skip
    box.systemctl("start", f"user@{uid}.service")
    yield OfUser(box, uid)
    box.systemctl("stop", f"user@{uid}.service")
    box.run("rm", "-rf", f"/home/{USER}")
    remove(box)


@pytest.mark.assertion(13)
def test_a_user_s_own_service_starts(of_user: OfUser):
    of_user.systemctl("start", "vllamad.service")
    assert of_user.chat().status == 200
    assert [worker["model"] for worker in of_user.workers()] == ["a:latest"]
    of_user.systemctl("stop", "vllamad.service")
    assert "vllamad" not in of_user.box.run("ps", "-e", "-o", "comm")
