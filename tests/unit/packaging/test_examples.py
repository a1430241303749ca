"""The examples shipped with the package are those that the documentation shows."""

from __future__ import annotations

import pytest

from tests.support.paths import ROOT


def bare(text: str) -> list[str]:
    """A configuration without comments, blank lines and indentation."""
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(("name", "heading"), [("Caddyfile", "Caddy"), ("nginx.conf", "nginx")])
def test_the_documentation_shows_the_example(name: str, heading: str) -> None:
    page = (ROOT / "docs" / "deployment.md").read_text().split(f"\n### {heading}\n")[1]
    shown = page.split("\n\n    ", 1)[1]
    block = shown.splitlines()[: next(
        at for at, line in enumerate(shown.splitlines()) if at and line and line[0] not in " \t"
    )]  # fmt: skip
    assert bare("\n".join(block)) == bare((ROOT / "packaging" / "examples" / name).read_text())
