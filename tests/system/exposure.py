"""How exposed our unit is, beside units people run: `python -m tests.system.exposure`.

The others are those of Debian's packages, and what Ollama's installer writes.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from tests.system.environment import ROOT

PACKAGES = {"caddy": "caddy.service", "nginx-common": "nginx.service", "nginx": "nginx.service",
            "redis-server": "redis-server.service"}  # fmt: skip
OLLAMA = """[Service]
ExecStart=/usr/local/bin/ollama serve
User=ollama
Group=ollama
Restart=always
RestartSec=3
Environment="PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
[Install]
WantedBy=default.target
"""
LIMIT = 120.0


def exposure(unit: Path) -> float:
    """What `systemd-analyze security` gives it: 0.0 is confined, 10.0 is not at all."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    last = done.stdout.strip().rpartition("Overall exposure level for ")[2]
    return float(last.split(":")[1].split()[0])


def ours() -> float:
    return exposure(ROOT / "systemd" / "vllamad.service")


def ollama(folder: Path) -> float:
    unit = folder / "ollama.service"
    unit.write_text(OLLAMA)
    return exposure(unit)


def packaged(folder: Path) -> dict[str, float]:
    """Those of the packages that can be had."""
    found: dict[str, float] = {}
    for package, name in PACKAGES.items():
        subprocess.run(["apt-get", "download", "-q", package], cwd=folder, timeout=LIMIT,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        for archive in folder.glob(f"{package}_*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(archive), str(folder / package)], check=True)
        for unit in (folder / package).rglob(name):
            found[name] = exposure(unit)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        others = packaged(folder) | {"ollama.service": ollama(folder)}
    rows = sorted({"vllamad.service": ours(), **others}.items(), key=lambda row: row[1])
    print(json.dumps(dict(rows), indent=2))


if __name__ == "__main__":
    main()
