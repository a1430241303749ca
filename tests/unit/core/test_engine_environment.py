"""The environment that workers and runtime probes share."""

from __future__ import annotations

import pytest

from vllamad.core.engine_environment import gpu_sampler, runtime_path


@pytest.mark.parametrize(
    ("inherited", "path"),
    [
        ("/opt/bin:/usr/bin", "/r/bin:/opt/bin:/usr/bin"),
        ("", "/r/bin:/usr/local/bin:/usr/bin:/bin"),
    ],
)
def test_programs_of_the_runtime_come_first(inherited: str, path: str) -> None:
    assert runtime_path("/r/bin/python", inherited) == path


def test_flashinfer_samples_only_with_compiled_kernels() -> None:
    assert gpu_sampler(compiled=True) == {}
    assert gpu_sampler(compiled=False) == {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
