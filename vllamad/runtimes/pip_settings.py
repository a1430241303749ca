"""Reads the configuration of pip on this machine and translates it for uv.

uv reads neither pip's files nor its PIP_* variables, but an index or a folder of wheels configured
for pip is meant for every installer. Standard library only.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Mapping

# pip's settings for the sources of packages, and uv's flags for them. pip separates repeated
# values by blanks.
_REPEATED = {
    "find-links": "--find-links",
    "extra-index-url": "--extra-index-url",
    "trusted-host": "--allow-insecure-host",
    "constraint": "--constraints",
    "only-binary": "--only-binary",
    "no-binary": "--no-binary",
}
_SINGLE = {"index-url": "--index-url"}
_SWITCHES = {"no-index": ("--no-index",), "pre": ("--prerelease", "allow")}
_ENVIRONMENT = {
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
    "retries": ("UV_HTTP_RETRIES",),
}


def read_pip_settings(pythons: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, str]:
    """The settings of pip, from the first of `pythons` that has it; empty where none has."""
    for python in pythons:
        listing = subprocess.run(
            [python, "-m", "pip", "config", "list"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if listing.returncode == 0:
            return parse_pip_config(listing.stdout)
    return {}


def parse_pip_config(listing: str) -> dict[str, str]:
    """Read `pip config list`; `install` wins over `global`, the environment over both."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        key, equals, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if equals and section in sections:
            sections[section][name] = str(ast.literal_eval(value))
    return sections["global"] | sections["install"] | sections[":env:"]


def uv_options(settings: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The same settings as arguments of `uv pip install`, and as environment variables."""
    arguments: list[str] = []
    environment: dict[str, str] = {}
    for name, value in settings.items():
        if flag := _REPEATED.get(name):
            arguments += [word for part in value.split() for word in (flag, part)]
        elif flag := _SINGLE.get(name):
            arguments += [flag, value]
        elif words := _SWITCHES.get(name):
            arguments += words if value.lower() in ("1", "true", "yes", "on") else ()
        for variable in _ENVIRONMENT.get(name, ()):
            environment[variable] = value
    if "extra-index-url" in settings:
        # pip takes the best version of all indexes, uv by default that of the first.
        arguments += ["--index-strategy", "unsafe-best-match"]
    return arguments, environment
