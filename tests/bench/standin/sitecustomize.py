"""A CPU without bfloat16, as far as an engine can be made to believe it.

Python imports this at its start where the folder is in PYTHONPATH. vLLM takes the build of its
kernels for AVX-512 alone; together with ONEDNN_MAX_CPU_ISA=AVX512_CORE, which oneDNN obeys by
itself, its matrix products and its attention are those of such a CPU.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType


class Finder:
    """Finds torch.cpu as everybody would, and has it say what such a CPU lacks."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "torch.cpu":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            for name in dir(module):
                if name.startswith("_is_amx_") or name == "_is_avx512_bf16_supported":
                    setattr(module, name, lambda: False)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Finder())  # type: ignore[arg-type]
