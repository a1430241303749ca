"""How long do /api/tags, /api/show and `vllamactl list` take over a library of 500 models?

    python -m tests.bench.library [--quick]

A real vllamad with that many small checkpoints, each with the headers of a real one. `first` is
what a daemon that has just started takes; afterwards nothing has changed on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

from tests.bench.report import header, others
from tests.support.checkpoints import CHATML_TEMPLATE, LLAMA, Shapes, header_of, write_checkpoint
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from vllamad.core.model_name import parse_model_name
from vllamad.models.store import model_store

MODELS, QUICK = 500, 20
LAYERS = 32
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "a", "b")


def main() -> None:
    """Measure and print; `--quick` only sees that it works."""
    parser = argparse.ArgumentParser(prog="tests.bench.library", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    count = QUICK if parser.parse_args().quick else MODELS
    began, theirs = time.monotonic(), others()
    print(header(), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        home = fake_home(Path(folder), ())
        names = [f"model{number}" for number in range(count)]
        for name in names:
            install(home, name)
        with daemon(home, config=fake_config()) as there:
            measure(there, names)
    seconds, theirs = time.monotonic() - began, others() - theirs
    share = theirs / seconds / (os.cpu_count() or 1)
    print(f"\n{seconds:.0f} s, {share:.0%} of the machine went to other work")


def install(home: Path, name: str) -> None:
    """A model with the header, the template and the vocabulary's size of one of 8B."""
    folder = write_checkpoint(
        home / "made" / name, LLAMA, tokenizer_config_json={"chat_template": CHATML_TEMPLATE}
    )
    shapes: Shapes = {
        f"model.layers.{layer}.{part}.weight": ("BF16", (4, 1))
        for layer in range(LAYERS)
        for part in PARTS
    }
    entries, size = header_of(shapes)
    head = json.dumps(entries).encode()
    content = len(head).to_bytes(8, "little") + head + bytes(size)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {}}}'.ljust(1 << 20))
    model_store.add_model(home / "state" / "models", parse_model_name(name), folder, source="bench")


def measure(there: Daemon, names: list[str]) -> None:
    def tags() -> None:
        answer = there.http.get("/api/tags")
        assert len(answer.json()["models"]) == len(names)

    def show() -> None:
        name = random.choice(names)
        there.http.post("/api/show", json={"model": name}).raise_for_status()

    def listing() -> None:
        assert len(json.loads(there.ctl("list", "--json"))["models"]) == len(names)

    print(f"\n{len(names)} models, ms{'first':>24}{'p50':>8}{'p95':>8}")
    row("/api/tags", tags, 50)
    row("/api/show", show, 200)
    row("vllamactl list", listing, 10)


def row(what: str, ask: Callable[[], None], times: int) -> None:
    first, *later = (took(ask) for _ in range(times + 1))
    cuts = quantiles(later, n=20)
    print(f"  {what:<28}{first:>8.1f}{cuts[9]:>8.1f}{cuts[18]:>8.1f}", flush=True)


def took(ask: Callable[[], None]) -> float:
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    main()
