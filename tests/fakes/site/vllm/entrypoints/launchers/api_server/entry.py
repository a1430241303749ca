"""The scripted engine in the place of vLLM's API server, reached by the real launcher."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[5] / "engine.py"), run_name="__main__")
