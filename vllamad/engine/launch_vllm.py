"""Start vLLM's API server inside the runtime's own Python: `python -P launch_vllm.py FLAGS...`.

Answers where that server lives in the installed version, and how its children are made. It must
not import anything of ours: the runtime's environment knows nothing of this project. One file,
host/machine/amx.py, is loaded by its path.
"""

from __future__ import annotations

import os
import runpy
from importlib.util import find_spec
from multiprocessing import resource_tracker
from pathlib import Path

MODULES = (
    "vllm.entrypoints.launchers.api_server.entry",  # newer versions
    "vllm.entrypoints.openai.api_server",  # older ones; then a deprecated alias
)


def server_module() -> str:
    """Return the module of the API server in this version of vLLM."""
    for name in MODULES:
        try:
            found = find_spec(name)
        except ModuleNotFoundError:  # a parent package is missing
            continue
        if found is not None:
            return name
    raise SystemExit("cannot find the API server of this vLLM: tried " + ", ".join(MODULES))


def fork_children() -> None:
    """Let the engine's processes be forks of this one, in place of three imports of torch.

    The CPU platform writes `spawn` into the environment while it builds the configuration, and
    `get_mp_context` reads it only when a process is made: writing `fork` in between is enough.
    """
    from vllm.engine.arg_utils import EngineArgs

    original = EngineArgs.create_engine_config

    def create_engine_config(self, *args, **kwargs):
        config = original(self, *args, **kwargs)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        return config

    EngineArgs.create_engine_config = create_engine_config
    # Ours, so that it outlives the engine: one that a forked engine started would be killed with
    # it and leave its segments in /dev/shm.
    resource_tracker.ensure_running()


def main() -> None:
    if os.environ.get("VLLAMAD_FORK") == "1":
        fork_children()
    runpy.run_module(server_module(), run_name="__main__")


# Processes the engine spawns import this file again, and need leave to use AMX as well.
runpy.run_path(str(Path(__file__).resolve().parents[1] / "host" / "machine" / "amx.py"))["settle"]()

# They must not start a second server.
if __name__ == "__main__":
    main()
