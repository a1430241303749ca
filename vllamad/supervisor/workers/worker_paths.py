"""The paths of a worker's files, by its model."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path


def worker_id(model: str) -> str:
    """The name of its folder, its cgroup and its stored descriptors: short for any model."""
    return sha256(model.encode()).hexdigest()[:12]


def run_folder(run: Path, model: str) -> Path:
    """The private folder of the worker of `model`, below `run`."""
    return run / "w" / worker_id(model)


def log_file(folder: Path, model: str) -> Path:
    """The file for the output of `model`'s workers; "+" and "@" never occur in a model's name."""
    return folder / (model.replace("/", "+").replace(":", "@") + ".log")
