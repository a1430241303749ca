"""Where the files of a worker are, by its model."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path


def worker_id(model: str) -> str:
    """What its folder, its cgroup and its stored descriptors are called: short, of any model."""
    return sha256(model.encode()).hexdigest()[:12]


def run_folder(run: Path, model: str) -> Path:
    """The private folder of the worker of `model`, in that of all."""
    return run / "w" / worker_id(model)


def log_file(folder: Path, model: str) -> Path:
    """Where the output of the workers of `model` goes; neither sign occurs in a model's name."""
    return folder / (model.replace("/", "+").replace(":", "@") + ".log")
