"""Finds events in the text of the daemon's log by their stable names."""

from __future__ import annotations

from vllamad.host.log_events import LogEvent


def event_lines(text: str, name: LogEvent, **fields: object) -> list[str]:
    """The lines of one event, oldest first; each has the given fields too."""
    words = [f"event={name}", *(f"{key}={value}" for key, value in fields.items())]
    return [line for line in text.splitlines() if all(f" {word} " in f"{line} " for word in words)]
