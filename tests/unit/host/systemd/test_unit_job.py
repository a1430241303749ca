"""What systemd is about to do with us, by the `systemctl` on the path."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from vllamad.host.systemd.unit_job import pending_job

SERVICE = "0::/vllamad.slice/vllamad.service/supervisor\n"
OF_USER = "0::/user.slice/user-7.slice/user@7.service/app.slice/vllamad.service\n"


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in place of the command; it notes how it was called."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "systemctl"


def write(script: Path, *lines: str) -> None:
    script.write_text("\n".join(["#!/bin/sh", f'echo "$@" > {script}.called', *lines]))
    script.chmod(0o755)


@pytest.mark.parametrize("job", ["stop", "restart"])
async def test_the_job_of_our_unit_is_told(systemctl: Path, job: str) -> None:
    write(
        systemctl,
        "echo '  12 other.service      start   waiting'",
        f"echo '  13 vllamad.service {job} running'",
    )
    assert await pending_job(SERVICE) == job
    called = systemctl.with_suffix(".called").read_text().split()
    assert (called[0], called[-1]) == ("list-jobs", "vllamad.service")


async def test_a_users_own_service_asks_the_users_manager(systemctl: Path) -> None:
    write(systemctl, "echo '13 vllamad.service stop running'")
    assert await pending_job(OF_USER) == "stop"
    assert systemctl.with_suffix(".called").read_text().startswith("--user list-jobs ")


@pytest.mark.parametrize(
    "lines", [["echo 'No jobs running.'"], ["echo 1 vllamad.service"], ["exit 1"], []]
)
async def test_without_a_job_nothing_is_told(systemctl: Path, lines: list[str]) -> None:
    write(systemctl, *lines)
    assert await pending_job(SERVICE) == ""


@pytest.mark.parametrize("own", ["0::/\n", "4:memory:/x\n", ""])
async def test_outside_a_unit_nobody_is_asked(systemctl: Path, own: str) -> None:
    write(systemctl, "echo '13 vllamad.service stop running'")
    assert await pending_job(own) == ""
    assert not systemctl.with_suffix(".called").exists()


async def test_without_systemctl_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await pending_job(SERVICE) == ""


async def test_who_does_not_answer_is_not_waited_for(systemctl: Path) -> None:
    write(systemctl, "exec sleep 1000")
    with trio.fail_after(8):
        assert await pending_job(SERVICE) == ""
