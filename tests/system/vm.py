"""A virtual machine for what no container has: memory controllers. Boots in about half a minute.

The system is a tree of `trees.py` as a RAM disk, the processor is emulated (no KVM needed), and one
program runs in it. What that prints behind `RESULT ` comes back.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.system import environment, trees
from tests.system.service import UNITS

LIMIT = 900.0
MEMORY = 6144  # MiB, of which the RAM disk takes a part
_NEEDS = {"qemu-system-x86_64": "qemu-system-x86", "cpio": "cpio"}
_PROBE = """[Unit]
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
TimeoutStartSec=infinity
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/opt/vllamad/bin/python /opt/probe.py
"""


def kernel(cache: Path) -> Path:
    """A kernel with all it needs built in. Raises CannotBoot."""
    kept = cache / "vmlinuz"
    if not kept.exists():
        trees.install(_NEEDS)
        work = cache / ".kernel"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        asked = trees.must("apt-cache", "depends", "--important", "linux-image-cloud-amd64")
        name = asked.split("Depends:")[1].split()[0]
        trees.must("apt-get", "download", "-q", name, cwd=work)
        trees.must("dpkg-deb", "-x", *map(str, work.glob("*.deb")), str(work))
        next((work / "boot").glob("vmlinuz-*")).rename(kept)
        shutil.rmtree(work)
    return kept


def ram_disk(tree: Path, cache: Path, state: Path, files: dict[str, str], work: Path) -> Path:
    """The tree with vllamad installed, and `files` by their path."""
    root = work / "root"
    trees.must("cp", "-a", str(tree), str(root))
    opt = root / "opt"
    trees.must("cp", "-a", str(environment.environment(cache, tree)), str(opt / "vllamad"))
    environment.sources(opt / "vllamad-src")
    for name in ("vllamad", "vllamactl"):
        (root / "usr/bin" / name).symlink_to(f"{environment.HOME}/bin/{name}")
    trees.must("cp", "-a", str(state), str(root / "var/lib/vllamad"))
    for unit in UNITS.glob("vllamad*"):
        shutil.copy(unit, root / "etc/systemd/system")
    shutil.copy(UNITS / "sysusers.d" / "vllamad.conf", root / "usr/lib/sysusers.d")
    for path, text in {"etc/systemd/system/probe.service": _PROBE, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    disk = work / "initrd"
    trees.must("sh", "-c", f"find . | cpio -o -H newc --quiet > {disk}", cwd=root)
    shutil.rmtree(root)
    return disk


def boot(kernel: Path, disk: Path) -> Iterator[str]:
    """Run it until it powers itself off; the lines of its console."""
    # fmt: off
    words = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
             "-m", str(MEMORY), "-smp", "2", "-nographic", "-no-reboot", "-nodefaults",
             "-serial", "stdio", "-kernel", str(kernel), "-initrd", str(disk), "-append",
             "console=ttyS0 quiet rdinit=/lib/systemd/systemd systemd.unit=probe.service "
             "systemd.condition-first-boot=no panic=-1"]
    # fmt: on
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LIMIT,
    )  # fmt: skip
    yield from done.stdout.decode(errors="replace").splitlines()


def results(lines: Iterator[str]) -> dict[str, Any]:
    """What the probe found, by name."""
    said = list(lines)
    print("\n".join(said[-200:]))
    found: dict[str, Any] = {}
    for line in said:
        if "RESULT " in line:
            found.update(json.loads(line.partition("RESULT ")[2]))
    return found
