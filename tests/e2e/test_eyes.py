"""A tiny model that sees, with random weights, on the real engine: pictures on every route."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest

from tests.support.daemon import Daemon, daemon
from tests.support.idefics import write_idefics

pytestmark = pytest.mark.e2e

SHORT: Any = {"temperature": 0, "num_predict": 4}


@pytest.fixture(scope="module")
def eyes(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with the model `eyes`."""
    folder = write_idefics(tmp_path_factory.mktemp("idefics") / "tiny")
    config = (
        f'[paths]\nstate = "{prepared}/state"\ncache = "{prepared}/cache"\n'
        f'[model.eyes]\npath = "{folder}"\n'
    )
    with daemon(tmp_path_factory.mktemp("home"), config=config) as one:
        one.http.timeout = 180.0
        yield one


def png(side: int) -> bytes:
    """A picture of a slope of colours."""
    rows = b"".join(
        b"\0" + b"".join(bytes((x * 5 % 256, y * 7 % 256, 128)) for x in range(side))
        for y in range(side)
    )
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_picture_is_part_of_what_the_model_reads(eyes: Daemon) -> None:
    with ollama.Client(host=eyes.url, timeout=180) as client:
        assert client.show("eyes").capabilities == ["completion", "vision"]

        def read(*pictures: bytes) -> int:
            said = {"role": "user", "content": "What is it?", "images": pictures}
            answer = client.chat("eyes", [said], options=SHORT)
            assert answer.eval_count
            return answer.prompt_eval_count or 0

        plain, one, two = read(), read(png(64)), read(png(64), png(64))
        assert one > plain + 4, "tokens of the picture and around it"
        assert two - one == one - plain
        generated = client.generate("eyes", "What is it?", images=[png(64)], options=SHORT)
        assert generated.prompt_eval_count == one


def test_it_comes_inline_on_v1_too(eyes: Daemon) -> None:
    url = f"data:image/png;base64,{base64.b64encode(png(64)).decode()}"
    parts: Any = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    with openai.OpenAI(base_url=f"{eyes.url}/v1", api_key="none", timeout=180) as client:

        def read(content: Any) -> int:
            said: Any = [{"role": "user", "content": content}]
            answer = client.chat.completions.create(model="eyes", messages=said, max_tokens=4)
            assert answer.usage is not None
            return answer.usage.prompt_tokens

        assert read(parts) > read(parts[:1]) + 4
