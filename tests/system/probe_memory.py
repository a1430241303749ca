"""Runs in the virtual machine: a worker that takes more memory than it may."""

from __future__ import annotations

import http.client
import json
import subprocess
import time


def run(*words: str) -> str:
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.strip()


def result(**found: object) -> None:
    print("RESULT " + json.dumps(found), flush=True)


def chat() -> str:
    """The status, and what was said."""
    body = {"model": "a", "messages": [{"role": "user", "content": "hi"}], "stream": False}
    connection = http.client.HTTPConnection("127.0.0.1", 11434, timeout=120)
    connection.request("POST", "/api/chat", json.dumps(body))
    response = connection.getresponse()
    return f"{response.status} {response.read().decode()[:500]}"


def pid() -> str:
    return run("systemctl", "show", "--value", "-p", "MainPID", "vllamad")


def main() -> None:
    run("systemd-sysusers")
    run("chown", "-R", "vllamad:", "/var/lib/vllamad")
    result(
        start=run("systemctl", "start", "vllamad.service"),
        controllers=run("cat", "/sys/fs/cgroup/vllamad.slice/vllamad.service/cgroup.controllers"),
    )
    result(first=chat(), pid=pid())
    print(run("journalctl", "-b", "-n", "60", "-u", "vllamad"), flush=True)
    result(
        limit=run(
            "sh", "-c", "cat /sys/fs/cgroup/vllamad.slice/vllamad.service/worker-*/memory.max"
        )
    )
    run("pkill", "-USR1", "-u", "vllamad", "-f", "launch_vllm")
    until = time.monotonic() + 120
    while time.monotonic() < until and "out of memory" not in run("journalctl", "-u", "vllamad"):
        run("sleep", "1")
    result(told=run("journalctl", "-o", "cat", "-u", "vllamad", "--grep", "out of memory"))
    result(kernel=run("journalctl", "-k", "-o", "cat", "--grep", "oom|Killed process"))
    result(
        second=chat(),
        pid_after=pid(),
        restarts=run("systemctl", "show", "--value", "-p", "NRestarts", "vllamad"),
    )


main()
