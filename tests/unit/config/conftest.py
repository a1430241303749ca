"""A place to write configuration files in, and a short way to load them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from vllamad.config.load import load_settings
from vllamad.config.settings import Settings
from vllamad.errors import ConfigError


class Place:
    """An empty machine: nothing in /etc, nothing at home, nothing in the environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.etc, self.home, self.cwd = root / "etc", root / "home", root / "cwd"
        for folder in (self.etc / "conf.d", self.home / ".config/vllamad", self.cwd):
            folder.mkdir(parents=True)

    def write(self, text: str, name: str = "cwd/vllamad.toml") -> Path:
        file = self.root / name
        file.write_text(text)
        return file

    def load(
        self,
        cli: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        only: Path | None = None,
        *,
        listening: bool = False,
    ) -> Settings:
        return load_settings(
            cli or {},
            environ or {},
            cwd=self.cwd,
            home=self.home,
            euid=1000,
            etc=self.etc,
            only=only,
            listening=listening,
        )

    def faults(
        self,
        cli: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        only: Path | None = None,
    ) -> list[str]:
        """The problems found, the folder of this place cut off."""
        with pytest.raises(ConfigError) as caught:
            self.load(cli, environ, only)
        return [problem.replace(f"{self.root}/", "") for problem in caught.value.problems]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
