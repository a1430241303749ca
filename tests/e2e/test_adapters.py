"""A LoRA, uploaded and created as Ollama's clients do it, on the real engine beside its base."""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Generator
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.support.daemon import Daemon, daemon
from tests.support.real_engine import MODEL, QUESTION

pytestmark = pytest.mark.e2e

RANK = 8
LAYERS, HIDDEN, VALUES = 30, 576, 192  # of SmolLM2-135M
MESSAGES = [{"role": "user", "content": QUESTION}]
GREEDY: dict[str, Any] = {"temperature": 0, "num_predict": 16}


@pytest.fixture(scope="module")
def own(
    prepared: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Daemon]:
    """A daemon with a store of its own, in which things may be made."""
    home = tmp_path_factory.mktemp("adapters")
    (home / "state").mkdir()
    (home / "state" / "runtimes").symlink_to(prepared / "state" / "runtimes")
    config = f'[paths]\ncache = "{prepared}/cache"\n[model."{MODEL}"]\npath = "{checkpoint}"\n'
    with daemon(home, config=config) as one:
        one.http.timeout = 180.0
        yield one


def adapter(folder: Path, *, values: int = VALUES, rank: int = RANK) -> dict[str, Path]:
    """A LoRA in PEFT's layout whose weights are noise, loud enough to be heard."""
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "v_proj"], "bias": "none", "lora_dropout": 0.0,
        "base_model_name_or_path": "smollm2", "inference_mode": True,
    }  # fmt: skip
    noise = random.Random(7)
    entries: dict[str, object] = {}
    data = bytearray()
    for layer in range(LAYERS):
        for module, out in (("q_proj", HIDDEN), ("v_proj", values)):
            for part, shape in (("A", (rank, HIDDEN)), ("B", (out, rank))):
                name = (
                    f"base_model.model.model.layers.{layer}.self_attn.{module}.lora_{part}.weight"
                )
                floats = array("f", (noise.gauss(0, 0.2) for _ in range(shape[0] * shape[1])))
                end = len(data) + len(floats) * 4
                entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), end]}
                data += floats.tobytes()
    header = json.dumps(entries).encode()
    folder.mkdir(exist_ok=True)
    files = {name: folder / name for name in ("adapter_config.json", "adapter_model.safetensors")}
    files["adapter_config.json"].write_text(json.dumps(config))
    files["adapter_model.safetensors"].write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(data)
    )
    return files


def answer(client: ollama.Client, model: str) -> str:
    return client.chat(model, MESSAGES, options=GREEDY).message.content or ""


def uploaded(client: ollama.Client, files: dict[str, Path]) -> dict[str, str]:
    return {name: client.create_blob(path) for name, path in files.items()}


def test_an_adapter_answers_in_its_own_way_on_the_worker_of_its_base(
    own: Daemon, tmp_path: Path
) -> None:
    with ollama.Client(host=own.url, timeout=300) as client:
        plain = answer(client, MODEL)
        assert "Paris" in plain
        digests = uploaded(client, adapter(tmp_path / "lora"))
        client.create("tuned", from_=MODEL, adapters=digests, system="Be brief.")
        assert own.workers()[0]["state"] == "ready", "nothing is stopped before it must be"

        tuned = answer(client, "tuned")
        assert tuned != plain
        [worker] = own.workers()
        assert worker["model"] == MODEL
        assert answer(client, MODEL) == plain
        assert answer(client, "tuned") == tuned
        assert own.workers()[0]["pid"] == worker["pid"]

        shown = client.show("tuned")
        assert f"ADAPTER {digests['adapter_model.safetensors']}" in (shown.modelfile or "")
        sizes = {model.model: model.size or 0 for model in client.list().models}
        assert sizes["tuned:latest"] > sizes[MODEL]

        client.delete("tuned")
        assert answer(client, MODEL) == plain


def test_an_adapter_of_another_model_is_refused(own: Daemon, tmp_path: Path) -> None:
    with ollama.Client(host=own.url, timeout=60) as client:
        digests = uploaded(client, adapter(tmp_path / "lora", values=256, rank=1))
        with pytest.raises(ollama.ResponseError, match="has width 256, in the model 192") as raised:
            client.create("wrong", from_=MODEL, adapters=digests)
        assert raised.value.status_code == 400


def test_a_template_of_its_own_is_what_the_model_is_asked_through(own: Daemon) -> None:
    with ollama.Client(host=own.url, timeout=300) as client:
        template = "{% for message in messages %}{{ message.content }}{% endfor %}"
        client.create("bare", from_=MODEL, template=template)
        told = client.chat("bare", [{"role": "user", "content": "one two"}], options=GREEDY)
        assert told.prompt_eval_count == 2
        client.generate("bare", keep_alive=0)
