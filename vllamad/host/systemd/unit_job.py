"""Finds the systemd job of the daemon's own unit: a stop or a restart."""

from __future__ import annotations

import shutil
import subprocess

import trio

from vllamad.host.processes.cgroup import unit_of

_PATIENCE = 1.0  # seconds: the stop does not wait for this


async def pending_job(cgroup: str | None = None) -> str:
    """The type of our unit's job (`stop`, `restart`, ...); empty if it cannot be known in time.

    `cgroup` is the content of /proc/self/cgroup.
    """
    if cgroup is None:
        cgroup = await trio.Path("/proc/self/cgroup").read_text()
    unit, of_user = unit_of(cgroup)
    systemctl = shutil.which("systemctl")
    if not unit or systemctl is None:
        return ""
    manager = ["--user"] if of_user else []
    command = [systemctl, *manager, "list-jobs", "--no-legend", "--no-pager", "--plain", unit]
    with trio.move_on_after(_PATIENCE):
        done = await trio.run_process(
            command, capture_stdout=True, stderr=subprocess.DEVNULL, check=False
        )
        return _job_of(unit, done.stdout.decode(errors="replace"))
    return ""


def _job_of(unit: str, listed: str) -> str:
    """Lines are `ID UNIT TYPE STATE`."""
    for line in listed.splitlines():
        words = line.split()
        if len(words) >= 3 and words[1] == unit:
            return words[2]
    return ""
