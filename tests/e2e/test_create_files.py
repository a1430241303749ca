"""A real model's own files, uploaded as blobs and created under a new name, on the real engine."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.support.daemon import Daemon, daemon
from tests.support.real_engine import QUESTION

pytestmark = pytest.mark.e2e

MESSAGES = [{"role": "user", "content": QUESTION}]
GREEDY: dict[str, Any] = {"temperature": 0, "num_predict": 16}


@pytest.fixture(scope="module")
def own(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with an empty store of its own."""
    home = tmp_path_factory.mktemp("files")
    (home / "state").mkdir()
    (home / "state" / "runtimes").symlink_to(prepared / "state" / "runtimes")
    with daemon(home, config=f'[paths]\ncache = "{prepared}/cache"\n') as one:
        one.http.timeout = 180.0
        yield one


def test_what_was_uploaded_answers(own: Daemon, checkpoint: Path) -> None:
    with ollama.Client(host=own.url, timeout=300) as client:
        assert client.list().models == []
        files = {path.name: client.create_blob(path) for path in checkpoint.iterdir()}
        made = client.create("mine", files=files, system="Be brief.", license="Apache-2.0")
        assert made.status == "success"

        told = client.show("mine")
        assert told.details is not None
        assert (told.details.parameter_size, told.details.quantization_level) == ("134.52M", "BF16")
        assert told.modelinfo is not None
        assert told.modelinfo["llama.context_length"] == 8192
        assert "Apache-2.0" in (told.license or "")

        answer = client.chat("mine", MESSAGES, options=GREEDY)
        assert "Paris" in (answer.message.content or "")
        plain = client.chat("mine", [{"role": "system", "content": ""}, *MESSAGES], options=GREEDY)
        assert answer.prompt_eval_count != plain.prompt_eval_count, "the system message counts"

        client.delete("mine")
        assert client.list().models == []
        assert list((own.home / "state/models/blobs").iterdir()) == []
