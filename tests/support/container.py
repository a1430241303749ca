"""The surroundings a container gives: any uid, no passwd entry, a read-only root, a noexec /tmp.

Made of namespaces only: needs no root where the kernel lets users have them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.daemon import ROOT

UID = 54321  # of nobody: neither in passwd nor in group

# $1 is a user id, what follows up to -- are folders that stay writable, then comes the command.
_SETUP = """
set -e
uid=$1; shift
mount -t tmpfs tmpfs /mnt
n=0
for folder in "$REPOSITORY" "$@"; do
    [ "$folder" = -- ] && break
    n=$((n + 1)); mkdir /mnt/$n; mount --rbind "$folder" /mnt/$n
done
mount -t tmpfs -o noexec,nosuid,nodev,size=64m tmpfs /tmp
mount -o remount,bind,ro /
n=0
for folder in "$REPOSITORY" "$@"; do
    [ "$folder" = -- ] && break
    n=$((n + 1)); mkdir -p "$folder" 2>/dev/null || true; mount --rbind /mnt/$n "$folder"
done
mount -o remount,bind,ro "$REPOSITORY"
while [ "$1" != -- ]; do shift; done; shift
cd /
exec unshare --user --map-user=$uid --map-group=$uid -- "$@"
"""
_OUTER = ("unshare", "--user", "--map-root-user", "--mount", "--")


def contained(*writable: Path) -> list[str]:
    """The words before a command that run it in such surroundings; only `writable` is writable."""
    return [
        *_OUTER,
        "env",
        f"REPOSITORY={ROOT}",
        "sh",
        "-c",
        _SETUP,
        "sh",
        str(UID),
        *map(str, writable),
        "--",
    ]


def problem(before: Sequence[str]) -> str:
    """Why there can be no such surroundings here; empty where there can."""
    try:
        done = subprocess.run([*before, "id", "-u"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no unshare(1)"
    if done.returncode != 0:
        return f"the kernel allows no namespaces: {done.stderr.strip()}"
    assert done.stdout.strip() == str(UID)
    return ""
