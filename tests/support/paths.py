"""Where the repository and the recorded answers of engines lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "fakes" / "recorded"
MADE_SCHEMAS = ROOT / "tests" / "support" / "made_schemas.json"
