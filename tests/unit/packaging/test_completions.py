"""What the shells complete of a `vllamactl` command line."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pexpect
import pytest
import shtab

from vllamactl.commandline import _parser

# As bash does at a TAB: bash(1), Programmable Completion.
BASH = """\
source "$0"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
_shtab_vllamactl
printf '%s\\n' "${COMPREPLY[@]}"
"""
PATIENCE = 30.0


def completion(shell: str, path: Path) -> Path:
    path.write_text(shtab.complete(_parser(), shell=shell))
    return path


def completed(tmp_path: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    script = completion("bash", tmp_path / "completion")
    # Not our environment: somebody's own completions may be in it.
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH, str(script), *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={"PATH": "/usr/bin:/bin"},
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["mo"], {"model"}),
        (["re"], {"reload"}),
        (["model", ""], {"load", "unload", "restart"}),
        (["model", "un"], {"unload"}),
        (["reload", "--w"], {"--wait"}),
        (["runtime", "install", "--cu"], {"--cuda"}),
        (["--so"], {"--socket"}),
        (["there-is-no-such"], set[str]()),
    ],
    ids=" ".join,
)
def test_bash_completes(tmp_path: Path, words: list[str], offered: set[str]) -> None:
    assert set(completed(tmp_path, "vllamactl", *words)) == offered


def test_a_tab_in_bash_completes(tmp_path: Path) -> None:
    script = completion("bash", tmp_path / "completion")
    with pexpect.spawn(
        "bash", ["--norc", "--noprofile", "-i"], encoding="utf-8", timeout=PATIENCE,
        env={"PATH": "/usr/bin:/bin", "TERM": "dumb", "PS1": "READY> ", "INPUTRC": "/dev/null"},
    ) as bash:  # fmt: skip
        bash.expect_exact("READY> ")
        bash.sendline(f"source {script}; PS1='DONE> '")
        bash.expect_exact("\nDONE> ")
        bash.send("vllamactl mo\t")
        bash.expect_exact("vllamactl model ")
        bash.sendcontrol("u")
        bash.sendline("exit")


def test_a_tab_in_zsh_completes(tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    completion("zsh", tmp_path / "_vllamactl")
    with pexpect.spawn(
        "zsh", ["-f", "-i"], encoding="utf-8", timeout=PATIENCE,
        env={"PATH": "/usr/bin:/bin", "TERM": "dumb", "PS1": "READY> ", "HOME": str(tmp_path)},
    ) as zsh:  # fmt: skip
        zsh.expect_exact("READY> ")
        zsh.sendline(
            f"fpath=({tmp_path} $fpath); autoload -Uz compinit; compinit -u -D; PS1='DONE> '"
        )
        zsh.expect_exact("\rDONE> ")
        zsh.send("vllamactl mo\t")
        zsh.expect_exact("vllamactl model ")
        zsh.sendcontrol("u")
        zsh.sendline("exit")
