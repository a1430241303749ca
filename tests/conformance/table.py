"""The outcomes as a table: a row for each feature, a column for each client. Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from tests.conformance.roster import FEATURES, Client
from tests.conformance.stage import Outcome

DONE, FAILED, NOT_THERE = "✓", "✗", " "


def table(outcomes: Mapping[Client, list[Outcome]]) -> str:
    """What each client could do: ✓, ✗, or nothing where it has no such feature."""
    marks = {
        client: {one.feature: FAILED if one.problem else DONE for one in found}
        for client, found in outcomes.items()
    }
    rows = [["", *(client.name for client in marks)]]
    rows += [
        [feature, *(found.get(feature, NOT_THERE) for found in marks.values())]
        for feature in FEATURES
        if any(feature in found for found in marks.values())
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def problems(outcomes: Mapping[Client, list[Outcome]]) -> list[str]:
    """One line for each failure: the client, the feature, and what it said."""
    return [
        f"{FAILED} {client.name}: {one.feature}: {one.problem}"
        for client, found in outcomes.items()
        for one in found
        if one.problem
    ]
