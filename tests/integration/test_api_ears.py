"""A model that only transcribes: known by its files, loaded with a moment of silence.

The scripted engine has no route for words then, and does not start with sound switched off.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from tests.support.whisper import write_whisper
from vllamad.core.model_name import parse_model_name
from vllamad.models.store import model_store

pytestmark = pytest.mark.integration

SOUND = {"file": ("a.wav", b"RIFF sound", "audio/wav")}
HI = [{"role": "user", "content": "hi"}]


def home_of(folder: Any, **more: Any) -> Any:
    home = fake_home(folder, ["test"], **more)
    made = write_whisper(home / "made/ears")
    model_store.add_model(home / "state/models", parse_model_name("ears"), made, source="test")
    return home


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with `test`, which talks, and `ears`, a Whisper."""
    with daemon(home_of(tmp_path_factory.mktemp("ears")), config=fake_config()) as running:
        yield running


def heard(one: Daemon) -> Any:
    path = "/v1/audio/transcriptions"
    return one.http.post(path, data={"model": "ears"}, files=SOUND)


def test_what_it_can_is_known_by_its_files(one: Daemon) -> None:
    told = one.http.post("/api/show", json={"model": "ears"}).json()
    assert told["capabilities"] == ["audio"]
    assert told["details"]["family"] == "whisper"
    assert told["model_info"]["whisper.context_length"] == 448


def test_it_loads_and_transcribes(one: Daemon) -> None:
    answer = heard(one)
    assert (answer.status_code, answer.json()["text"]) == (
        200, "model=ears:latest file=RIFF sound",
    )  # fmt: skip
    [worker] = [found for found in one.workers() if found["model"] == "ears:latest"]
    assert worker["state"] == "ready"


@pytest.mark.parametrize(
    ("path", "body", "wanted"),
    [
        ("/api/chat", {"messages": HI}, "chat"),
        ("/api/chat", {}, "chat"),
        ("/api/generate", {"prompt": "x"}, "generate"),
        ("/v1/chat/completions", {"messages": HI}, "chat"),
        ("/v1/completions", {"prompt": "x"}, "generate"),
    ],
)
def test_it_does_not_talk(one: Daemon, path: str, body: dict[str, Any], wanted: str) -> None:
    answer = one.http.post(path, json={"model": "ears", **body})
    assert answer.status_code == 400
    error = answer.json()["error"]
    said = error if path.startswith("/api") else error["message"]
    assert said == f'"ears" does not support {wanted}'


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
def test_it_does_not_embed(one: Daemon, path: str) -> None:
    answer = one.http.post(path, json={"model": "ears", "input": "x"})
    assert answer.status_code in (400, 501)
    assert "does not support" in answer.text


def test_an_engine_that_cannot_read_sound_is_not_asked_to(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = home_of(tmp_path_factory.mktemp("deaf"), sound=("av",))
    with daemon(home, config=fake_config()) as one:
        assert one.http.post("/api/show", json={"model": "ears"}).json().get("capabilities") == []
        answer = heard(one)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == (
            '"ears" does not support audio transcription: the engine\'s runtime lacks soundfile'
        )
        loaded = one.http.post("/api/generate", json={"model": "ears"})
        assert loaded.json() == {"error": '"ears" does not support generate'}
        assert one.workers() == []
