"""Speech into text, against the scripted engine: it says back the form that reached it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import httpx
import openai
import pytest

from tests.support.daemon import Daemon, daemon, fake_config, fake_home

pytestmark = pytest.mark.integration

PATHS = ["/v1/audio/transcriptions", "/v1/audio/translations"]
SOUND = {"file": ("../a\r\nb.wav", b"RIFF sound \r\n-- end", "audio/wav")}
paths = pytest.mark.parametrize("path", PATHS)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with the model `test`, and with `ears`, which is said to hear."""
    home = fake_home(tmp_path_factory.mktemp("speech"), ["test"])
    with daemon(home, config=fake_config()) as running:
        info = {"capabilities": ["completion", "audio"]}
        body = {"model": "ears", "from": "test", "info": info, "stream": False}
        assert running.http.post("/api/create", json=body).json() == {"status": "success"}
        yield running


def post(one: Daemon, path: str, files: Any = SOUND, **fields: Any) -> httpx.Response:
    return one.http.post(path, data=fields, files=files)


def refusal_of(answer: httpx.Response) -> str:
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error["message"]


@paths
def test_a_form_reaches_the_engine_without_what_is_not_allowed(one: Daemon, path: str) -> None:
    answer = post(one, path, model="EARS", language="de", temperature="0", vllm_xargs="{}", n="9")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    said = "model=test:latest language=de temperature=0 file=RIFF sound \r\n-- end"
    assert answer.json()["text"] == said


@paths
def test_text_is_asked_for_as_json_and_given_as_text(one: Daemon, path: str) -> None:
    answer = post(one, path, model="ears", response_format="text")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith("model=test:latest file=RIFF")


@paths
def test_a_stream_has_the_name_asked_for(one: Daemon, path: str) -> None:
    answer = post(one, path, model="EARS", stream="true")
    assert answer.headers["content-type"] == "text/event-stream"
    first, done, rest = answer.text.split("\n\n")
    assert '"model":"EARS"' in first
    assert (done, rest) == ("data: [DONE]", "")


@pytest.mark.parametrize("word", ["yes", "on", "t", "TRUE"])
def test_what_only_the_engine_takes_for_true_is_no_stream(one: Daemon, word: str) -> None:
    answer = post(one, PATHS[0], model="ears", stream=word)
    assert answer.json()["text"] == "model=test:latest file=RIFF sound \r\n-- end"


def test_the_official_client_hears(one: Daemon) -> None:
    with openai.OpenAI(base_url=f"{one.url}/v1", api_key="none", max_retries=0) as client:
        heard = client.audio.transcriptions.create(model="ears", file=b"RIFF", language="de")
    assert heard.text == "model=test:latest language=de file=RIFF"


@paths
def test_what_is_missing_is_named_in_order(one: Daemon, path: str) -> None:
    plain = one.http.post(path, json={"model": "ears"})
    assert refusal_of(plain).startswith("failed to parse multipart form: ")
    assert refusal_of(post(one, path)) == "model is required"
    no_file = post(one, path, {"x": b""}, model="ears")
    assert refusal_of(no_file) == "file is required: http: no such file"
    assert refusal_of(post(one, path, {"file": b""}, model="ears")) == "audio file is empty"


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"--x\r\n", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--"],
)
def test_a_broken_form_is_400(one: Daemon, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = one.http.post(PATHS[0], content=body, headers=headers)
    assert refusal_of(answer)


@paths
def test_a_model_that_does_not_hear_is_not_loaded_for_it(one: Daemon, path: str) -> None:
    refused = post(one, path, model="test")
    assert refusal_of(refused) == '"test" does not support audio transcription'
    unknown = post(one, path, model="nope")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"] == "model 'nope' not found"
