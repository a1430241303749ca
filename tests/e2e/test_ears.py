"""A tiny Whisper with random weights on the real engine: it loads, hears, and says no more."""

from __future__ import annotations

import math
import wave
from array import array
from collections.abc import Generator
from io import BytesIO
from pathlib import Path

import ollama
import openai
import pytest

from tests.support.daemon import Daemon, daemon
from tests.support.whisper import write_whisper

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def ears(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with the model `ears`."""
    folder = write_whisper(tmp_path_factory.mktemp("whisper") / "tiny")
    config = (
        f'[paths]\nstate = "{prepared}/state"\ncache = "{prepared}/cache"\n'
        f'[model.ears]\npath = "{folder}"\n'
    )
    with daemon(tmp_path_factory.mktemp("home"), config=config) as one:
        one.http.timeout = 180.0
        yield one


def tone(rate: int) -> bytes:
    """Two seconds of a WAV file."""
    content = BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        samples = (int(8000 * math.sin(2 * math.pi * 440 * n / rate)) for n in range(2 * rate))
        file.writeframes(array("h", samples).tobytes())
    return content.getvalue()


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_it_transcribes_whatever_the_rate(ears: Daemon, rate: int) -> None:
    with openai.OpenAI(base_url=f"{ears.url}/v1", api_key="none", timeout=180) as client:
        file = ("tone.wav", tone(rate))
        heard = client.audio.transcriptions.create(model="EARS", file=file, temperature=0)
        assert isinstance(heard.text, str)
        assert heard.usage is not None
        assert heard.usage.model_dump() == {"type": "duration", "seconds": 2}
        pieces = list(
            client.audio.transcriptions.create(
                model="EARS", file=file, language="en", temperature=0, stream=True
            )
        )
    assert pieces
    [worker] = ears.workers()
    assert (worker["state"], worker["context_length"]) == ("ready", 448)


def test_what_is_no_sound_is_refused(ears: Daemon) -> None:
    file = ("a.wav", b"no sound at all")
    with (
        openai.OpenAI(base_url=f"{ears.url}/v1", api_key="none", timeout=180) as client,
        pytest.raises(openai.BadRequestError, match="audio"),
    ):
        client.audio.transcriptions.create(model="ears", file=file)


def test_it_has_no_words_for_a_chat(ears: Daemon) -> None:
    with ollama.Client(host=ears.url, timeout=180) as client:
        with pytest.raises(ollama.ResponseError, match='"ears" does not support chat') as refused:
            client.chat("ears", [{"role": "user", "content": "hi"}])
        assert refused.value.status_code == 400
        assert client.show("ears").capabilities == ["audio"]
