"""A daemon with API keys and a hub token: who is answered, and where neither of them shows up."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import httpx
import pytest

from tests.fakes.hub import Hub
from tests.support.daemon import Daemon, daemon, fake_config, fake_home

pytestmark = pytest.mark.integration

INFERS = "infers-0123456789"
MANAGES = "manages-0123456789"
TOKEN = "hf_secret0123456789"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Generator[Daemon]:
    home = fake_home(tmp_path_factory.mktemp("keyed"), ["test"])
    credentials = home / "credentials"
    credentials.mkdir()
    (credentials / "api_keys").write_text(f"{INFERS} infer\n{MANAGES}\n")
    (credentials / "hf_token").write_text(f"{TOKEN}\n")
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    config = fake_config(more=f'[hub]\nendpoint = "{hub.endpoint}"')
    with daemon(home, config=config, environ=environ) as one:
        yield one


def ask(one: Daemon, method: str, path: str, key: str = "", body: object = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return one.http.request(method, path, headers=headers, json=body)


CHAT = {"model": "test", "messages": [{"role": "user", "content": "hi"}], "stream": False}


def test_without_a_key_each_api_refuses_in_its_own_form(keyed: Daemon) -> None:
    answers = [
        ask(keyed, "POST", path, body=CHAT)
        for path in ("/api/chat", "/v1/chat/completions", "/v1/messages")
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    ollama, openai, anthropic = (answer.json()["error"] for answer in answers)
    assert "without a valid API key" in ollama
    assert openai["type"] == "authentication_error"
    assert anthropic["type"] == "authentication_error"


@pytest.mark.parametrize("path", ["/", "/api/version"])
def test_who_answers_here_is_no_secret(keyed: Daemon, path: str) -> None:
    assert ask(keyed, "GET", path).status_code == 200


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {INFERS}"}, {"X-Api-Key": MANAGES}])
def test_with_a_key_a_request_is_answered(keyed: Daemon, headers: dict[str, str]) -> None:
    answer = keyed.http.post("/api/chat", json=CHAT, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["done"] is True


def test_a_key_for_inference_cannot_pull(keyed: Daemon) -> None:
    answer = ask(keyed, "POST", "/api/pull", INFERS, {"model": "org/tiny"})
    assert answer.status_code == 403
    assert "inference only" in answer.json()["error"]


def test_a_pull_shows_the_token_to_the_hub_and_to_nobody_else(keyed: Daemon, hub: Hub) -> None:
    hub.requests.clear()
    answer = ask(keyed, "POST", "/api/pull", MANAGES, {"model": "org/tiny", "stream": False})
    assert answer.json() == {"status": "success"}
    assert {shown for _, path, shown in hub.requests if path.startswith("/api/")} == {True}
    assert not [path for _, path, shown in hub.requests if shown and path.startswith("/cdn/")]
    assert ask(keyed, "POST", "/api/chat", INFERS, CHAT).status_code == 200  # a worker is up
    assert keyed.workers()
    seen = keyed.text()
    for process in keyed.processes():
        command = Path(f"/proc/{process.pid}/cmdline").read_text(errors="replace")
        seen += command
        # A pull, perhaps at its end, has the token.
        if "vllamad.models.hub.pull_process" not in command:
            seen += Path(f"/proc/{process.pid}/environ").read_text(errors="replace")
    assert not [secret for secret in (TOKEN, INFERS, MANAGES) if secret in seen]
