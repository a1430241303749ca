"""The process between the supervisor and one worker: no process of the worker outlives either.

Run as `python -I -S shim.py`, standard library only: fd 0 is the control socket, fds 1 and 2 are
the worker's log. It must not know what a worker is: it starts one command and owns its processes.

In:  one JSON line (`Job`); then TERM bytes; end of file means "kill them all", so that asking for
     it and the death of the supervisor are the same event.
Out: lines `started PID`, `failed WHY`, `exited CODE KIB` (minus the signal, if one ended the
     leader; the memory that it, or a child it waited for, held at most).
The shim exits only when waitpid says ECHILD, and it is a child subreaper: so "the shim is gone" is
exactly "no process of the worker is left".
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import time
from typing import NamedTuple, TypedDict

TERM = b"t"
CONTROL = 0
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
# What Python's multiprocessing and vLLM leave there, and only that: files of others may be mapped.
# Intel's OpenMP keeps one file for each process, and removes it at an orderly end only.
OPENMP = "/dev/shm/__KMP_REGISTERED_LIB_"
SHARED = ("/dev/shm/psm_", "/dev/shm/sem.mp-", "/dev/shm/vllm_", "/dev/shm/mp-")
OOM_SCORE = "500"  # the kernel should take a worker before the daemon
# Ignored signals stay ignored over exec, so `become` restores the default of these, and of those
# that Python, or the shell that started us in the background, ignores.
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_libc = ctypes.CDLL(None, use_errno=True)


class Job(TypedDict):
    argv: list[str]
    env: dict[str, str]
    cwd: str
    cgroup: str  # folder of the leader's cgroup, or ""
    linger: float  # seconds the others get after the leader's own exit


class Process(NamedTuple):
    pid: int
    parent: int
    group: int
    session: int
    comm: str


def main() -> None:
    become_subreaper()
    _libc.prctl(PR_SET_NAME, b"vllamad-shim")
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    wake = wake_on_child()
    job = read_job()
    leader = start(job)
    shared: set[str] = set()
    if watch(leader, wake, job["linger"], shared):
        kill_all(leader, wake, job["cgroup"], shared)
    for path in shared:
        remove(path)


def become_subreaper() -> None:
    """Have orphaned descendants, even those in a session of their own, become our children."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a child subreaper")


def wake_on_child() -> int:
    """Return a descriptor that turns readable when a child dies."""
    wake, tell = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(tell, False)
    signal.signal(signal.SIGCHLD, do_nothing)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    return wake


def do_nothing(_number: int, _frame: object) -> None:
    """Handle SIGCHLD: an ignored or default one would not wake us."""


def read_job() -> Job:
    """Read up to the newline; the supervisor sends nothing more before our first report."""
    data = b""
    while not data.endswith(b"\n"):
        more = os.read(CONTROL, 65536)
        if not more:
            raise SystemExit(0)
        data += more
    return json.loads(data)


def start(job: Job) -> int:
    """Start the leader; returns once it runs, or has said why it cannot."""
    shim = os.getpid()
    why, tell = os.pipe()  # close-on-exec: end of file says that exec worked
    leader = os.fork()
    if leader == 0:
        try:
            become(job, shim)
        except Exception as problem:  # noqa: BLE001 - told to the supervisor
            os.write(tell, str(problem).replace("\n", " ").encode())
        finally:
            os._exit(127)
    os.close(tell)
    problem = os.read(why, 4096)
    os.close(why)
    report(b"failed " + problem if problem else b"started %d" % leader)
    return leader


def become(job: Job, shim: int) -> None:
    """Turn this fresh child into the leader."""
    os.setsid()
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != shim:
        return  # the shim died before prctl: its death signal would never come
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    write("/proc/self/oom_score_adj", OOM_SCORE)
    if job["cgroup"]:
        write(job["cgroup"] + "/cgroup.procs", "0")
    os.chdir(job["cwd"])
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    os.execve(job["argv"][0], job["argv"], job["env"])


def watch(leader: int, wake: int, linger: float, shared: set[str]) -> bool:
    """Carry out orders until it is time to kill. False: nothing is left that could be killed.

    `shared` gathers the shared memory files that the tree holds when its end begins.
    """
    until = None  # set by the leader's exit
    while True:
        left = None if until is None else until - time.monotonic()
        if left is not None and left <= 0:
            return True
        ready, _, _ = select.select([CONTROL, wake], [], [], left)
        if wake in ready:
            os.read(wake, 4096)
            some_left, exited = reap(leader)
            if not some_left:
                return False
            if exited:
                # Python's resource tracker needs a moment to remove shared memory.
                until = time.monotonic() + linger
                shared |= shared_memory(descendants(os.getpid()))
        if CONTROL in ready:
            try:
                order = os.read(CONTROL, 1)
            except OSError:
                return True
            if not order:
                return True
            if order == TERM and until is None:
                shared |= shared_memory(descendants(os.getpid()))
                os.kill(leader, signal.SIGTERM)


def kill_all(leader: int, wake: int, cgroup: str, shared: set[str]) -> None:
    """Kill every descendant, again and again, until none is left to wait for."""
    shared |= shared_memory(descendants(os.getpid()))
    pause = 0.01
    while True:
        if cgroup:
            try:
                write(cgroup + "/cgroup.kill", "1")
            except OSError:
                pass  # Linux before 5.14; the walk does it too
        for process in descendants(os.getpid()):
            kill(process)
        some_left, _ = reap(leader)
        if not some_left:
            return
        if select.select([wake], [], [], pause)[0]:
            os.read(wake, 4096)
        else:
            pause = min(1.0, pause * 2)  # no process died: one hangs in the kernel


def reap(leader: int) -> tuple[bool, bool]:
    """Reap children. Returns (some are left, the leader was reaped)."""
    exited = False
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return False, exited
        if pid == 0:
            return True, exited
        if pid == leader:
            report(b"exited %d %d" % (os.waitstatus_to_exitcode(status), usage.ru_maxrss))
            exited = True


def report(line: bytes) -> None:
    try:
        os.write(CONTROL, line + b"\n")
    except OSError:
        pass  # the supervisor is dead: end of file will say so


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def kill(process: Process) -> None:
    """SIGKILL a process with its group: that cannot miss a child that is just being forked."""
    foreign = process.group not in (0, os.getpgrp())
    try:
        os.kill(-process.group if foreign else process.pid, signal.SIGKILL)
    except OSError:
        pass  # gone meanwhile, or not ours to kill: the next look tells


def descendants(root: int) -> list[Process]:
    """List everything below `root`, zombies included."""
    children: dict[int, list[Process]] = {}
    for process in processes():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += [process.pid for process in below]
    return found


def shared_memory(tree: list[Process]) -> set[str]:
    """List the files under /dev/shm that a tree has mapped and would leave.

    The names of most carry no pid, so they can be told only while a process still maps them.
    """
    own = (f"{OPENMP}{process.pid}_{os.getuid()}" for process in tree)
    found = {path for path in own if os.path.exists(path)}
    for process in tree:
        try:
            with open(f"/proc/{process.pid}/maps", encoding="utf-8", errors="replace") as file:
                paths = {line[73:].rstrip("\n") for line in file if line[73:82] == "/dev/shm/"}
        except OSError:
            continue  # it has just gone
        found |= {path for path in paths if path.startswith(SHARED)}
    return found


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # removed by its owner, as it should be


def processes() -> list[Process]:
    """List what /proc shows; task/*/children would be quicker, but is optional in the kernel."""
    found: list[Process] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                pid, _, rest = file.read().partition(" (")
        except OSError:
            continue  # it has just gone
        comm, _, fields = rest.rpartition(") ")
        _, parent, group, session, _ = fields.split(None, 4)
        found.append(Process(int(pid), int(parent), int(group), int(session), comm))
    return found


if __name__ == "__main__":
    main()
