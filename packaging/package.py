"""Build the deb and the rpm: `python packaging/package.py [--python 3.11] [--release 1] [OUT]`.

The package holds the daemon's own environment at its final path, made for one Python of the
distribution it is for; engines are installed later by `vllamactl runtime install`. nfpm packs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = "/usr/lib/vllamad"
MAINTAINER = "The vllamad project <vllamad@localhost>"
COMMANDS = ("vllamad", "vllamactl")
OLDEST_LIBC = "2.17"  # the bundled wheels are manylinux2014
_SCRIPT = """#!{home}/bin/python -P
import sys
from {name}.__main__ import main
sys.exit(main())
"""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Source pattern to folder. Drop-ins and examples are not active: the operator copies them.
_FILES = {
    "systemd/*.service": "/usr/lib/systemd/system",
    "systemd/*.socket": "/usr/lib/systemd/system",
    "systemd/*.slice": "/usr/lib/systemd/system",
    "systemd/*.target": "/usr/lib/systemd/system",
    "systemd/user/*.service": "/usr/lib/systemd/user",
    "systemd/sysusers.d/*.conf": "/usr/lib/sysusers.d",
    "systemd/tmpfiles.d/*.conf": "/usr/lib/tmpfiles.d",
    "systemd/drop-ins/*.conf": "/usr/share/doc/vllamad/examples",
    "packaging/examples/*": "/usr/share/doc/vllamad/examples",
    "docs/*.md": "/usr/share/doc/vllamad",
    "docs/decisions/*.md": "/usr/share/doc/vllamad/decisions",
    "docs/openapi.yaml": "/usr/share/doc/vllamad",
    "README.md": "/usr/share/doc/vllamad",
}
_COMPLETIONS = {
    "bash": "/usr/share/bash-completion/completions/vllamactl",
    "zsh": "/usr/share/zsh/vendor-completions/_vllamactl",
}

Content = dict[str, object]


def main() -> int:
    options = _options()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    build = ROOT / "build" / f"package-{options.python}"
    shutil.rmtree(build, ignore_errors=True)
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"→ package: vllamad {project['version']} for Python {options.python}", flush=True)
    make_environment(build / "home", options.python)
    contents = [*tree(build / "home"), *commands(), *files(), *made(build)]
    contents += metadata(build, f"{project['version']}-{options.release}")
    for packager in ("deb", "rpm"):
        config = build / f"nfpm-{packager}.json"  # JSON is YAML
        config.write_text(json.dumps(recipe(project, contents, options, packager), indent=1))
        run(beside("nfpm"), "package", "--config", str(config), "--packager", packager,
            "--target", str(options.out))  # fmt: skip
    for path in sorted(options.out.glob(f"vllamad*{project['version']}*")):
        print(f"✓ {path.name}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="package.py", description=__doc__)
    parser.add_argument(
        "--python",
        default=Path("/usr/bin/python3").resolve().name.removeprefix("python"),
        metavar="X.Y",
        help="the distribution's Python the package is for (default: this machine's)",
    )
    parser.add_argument("--release", default="1", help="of the package, not of vllamad")
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "dist", metavar="OUT")
    return parser.parse_args()


def make_environment(home: Path, version: str) -> None:
    """A venv as it will lie in /usr/lib/vllamad: three files and a folder, for any Python."""
    site = home / "lib" / f"python{version}" / "site-packages"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").symlink_to(f"../../../bin/python{version}")
    # Nothing that the distribution has for Python counts for us.
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n"
    )
    for name in COMMANDS:
        script = home / "bin" / name
        script.write_text(_SCRIPT.format(home=HOME, name=name))
        script.chmod(0o755)
    run(beside("uv"), "pip", "install", "--quiet", "--python-version", version,
        "--target", str(site), "--link-mode", "copy", str(ROOT))  # fmt: skip
    shutil.rmtree(site / "bin")
    (site / ".lock").unlink(missing_ok=True)
    for told in ("direct_url.json", "uv_*.json"):  # where it was built
        for path in site.glob(f"vllamad-*.dist-info/{told}"):
            path.unlink()


def tree(home: Path) -> Iterator[Content]:
    for path in sorted(home.rglob("*")):
        if "__pycache__" in path.parts or (path.is_dir() and not path.is_symlink()):
            continue
        there = f"{HOME}/{path.relative_to(home)}"
        if path.is_symlink():
            yield {"src": str(path.readlink()), "dst": there, "type": "symlink"}
        else:
            yield content(path, there, 0o755 if os.access(path, os.X_OK) else 0o644)


def commands() -> Iterator[Content]:
    for name in COMMANDS:
        there = HOME.replace("/usr", "..", 1)
        yield {"src": f"{there}/bin/{name}", "dst": f"/usr/bin/{name}", "type": "symlink"}


def files() -> Iterator[Content]:
    for pattern, folder in _FILES.items():
        for path in sorted(ROOT.glob(pattern)):
            yield content(path, f"{folder}/{path.name}")
    yield {
        "src": str(ROOT / "packaging" / "config.toml"),
        "dst": "/etc/vllamad/config.toml",
        "type": "config|noreplace",
        "file_info": {"mode": 0o644},
    }


def made(build: Path) -> Iterator[Content]:
    """What is written here: man pages and completions."""
    import shtab
    from manpages import pages, vllamactl_parser

    for name, text in pages().items():
        section = name.rpartition(".")[2]
        yield packed(build / name, text, f"/usr/share/man/man{section}/{name}.gz")
    for shell, there in _COMPLETIONS.items():
        path = build / f"completion.{shell}"
        path.write_text(shtab.complete(vllamactl_parser(), shell=shell))
        yield content(path, there)


def metadata(build: Path, version: str) -> Iterator[Content]:
    """Changelogs, our licence and those of the bundled packages, at each distribution's paths."""
    import debian_metadata

    doc = "/usr/share/doc/vllamad"
    (site,) = (build / "home" / "lib").glob("*/site-packages")
    bundled = build / "third-party.txt"
    bundled.write_text(
        debian_metadata.third_party(site, f"{HOME}/{site.relative_to(build / 'home')}")
    )
    yield content(bundled, f"{doc}/third-party.txt")
    yield packed(build / "changelog", (ROOT / "CHANGELOG.md").read_text(), f"{doc}/changelog.gz")
    changes = packed(
        build / "changelog.Debian",
        debian_metadata.debian_changelog(version, MAINTAINER),
        f"{doc}/changelog.Debian.gz",
    )
    copyright = build / "copyright"
    copyright.write_text(debian_metadata.COPYRIGHT)
    for entry in (changes, content(copyright, f"{doc}/copyright")):
        yield entry | {"packager": "deb"}
    licence = content(ROOT / "LICENSE", "/usr/share/licenses/vllamad/LICENSE")
    yield licence | {"packager": "rpm", "type": "license"}


def recipe(
    project: dict[str, object], contents: list[Content], options: argparse.Namespace, packager: str
) -> dict[str, object]:
    """The configuration of nfpm; https://nfpm.goreleaser.com/docs/configuration."""
    major, minor = options.python.split(".")
    after = f"{major}.{int(minor) + 1}"
    python = {
        "deb": [
            f"python3 (>= {options.python})",
            f"python3 (<< {after})",
            f"python{options.python}",
            f"libc6 (>= {OLDEST_LIBC})",
        ],
        "rpm": [f"python(abi) = {options.python}"],
    }
    # `vllamactl runtime install` needs a venv module; engines compile with the rest.
    build = {
        "deb": [f"python{options.python}-venv", f"python{options.python}-dev", "g++"],
        "rpm": ["python3-devel", "gcc-c++"],
    }
    scripts = ROOT / "packaging" / "scripts"
    return {
        "name": "vllamad",
        "arch": _ARCHITECTURES[platform.machine()],
        "platform": "linux",
        "version": project["version"],
        "release": options.release,
        "section": "net",
        "priority": "optional",
        "maintainer": MAINTAINER,
        "description": "supervisor of vLLM workers behind the API of Ollama\n"
        "One daemon loads the models that are asked for into vLLM workers, unloads\n"
        "them when memory is needed, and answers the APIs of Ollama, OpenAI and\n"
        "Anthropic.",
        "license": project["license"],
        "depends": [*python[packager], "systemd"],
        "recommends": build[packager],
        "contents": contents,
        "scripts": {
            "postinstall": str(scripts / "postinstall.sh"),
            "preremove": str(scripts / "preremove.sh"),
            "postremove": str(scripts / "postremove.sh"),
        },
    }


def content(path: Path, there: str, mode: int = 0o644) -> Content:
    return {"src": str(path), "dst": there, "file_info": {"mode": mode}}


def packed(path: Path, text: str, there: str) -> Content:
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return content(path, there)


def beside(program: str) -> str:
    """A program of the environment this runs in."""
    return str(Path(sys.executable).with_name(program))


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
