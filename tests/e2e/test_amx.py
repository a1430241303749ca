"""The real engine on a CPU that lists AMX and may not use it: stand-ins for the CPU and the kernel.

What the engine does where AMX may be used, every other test here shows on such a machine.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vllamad.host.machine import amx

pytestmark = pytest.mark.e2e

CHOOSING = """
import runpy, sys, torch
real = torch.cpu.get_capabilities()
torch.cpu.get_capabilities = lambda: {**real, "amx_tile": True}
settle = runpy.run_path(sys.argv[1])["settle"]
from vllm.v1.attention.backends.cpu_attn import _get_attn_isa
print(_get_attn_isa(torch.bfloat16, 128, 64))
settle(lambda: "asked and refused")
print(_get_attn_isa(torch.bfloat16, 128, 64))
"""


@pytest.mark.case("F14")
def test_attention_goes_by_vectors_where_amx_is_refused(prepared: Path) -> None:
    done = subprocess.run(
        [prepared / "state/runtimes/current/bin/python", "-P", "-c", CHOOSING, amx.__file__],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split()[-2:] == ["amx", "vec"], done.stderr
