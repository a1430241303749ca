"""The main job on real vLLM with a real model, through the clients people use."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ollama
import openai
import pytest

from tests.fakes.hub import running
from tests.support.daemon import Daemon, daemon, is_alive, until
from tests.support.real_engine import MODEL, QUESTION

pytestmark = pytest.mark.e2e

MESSAGES = [{"role": "user", "content": QUESTION}]
GREEDY: dict[str, Any] = {"temperature": 0}


@pytest.fixture
def client(real: Daemon) -> Generator[ollama.Client]:
    with ollama.Client(host=real.url, timeout=180) as one:
        yield one


@pytest.fixture
def openai_client(real: Daemon) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="none", timeout=180) as one:
        yield one


def curl(real: Daemon, path: str, body: dict[str, Any]) -> str:
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", "-N", f"{real.url}{path}", "-d", json.dumps(body)],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ollama_python_chats(client: ollama.Client) -> None:
    answer = client.chat(MODEL, MESSAGES, options=GREEDY)
    assert "Paris" in (answer.message.content or "")
    assert answer.done_reason == "stop"
    assert answer.prompt_eval_count == 42
    assert answer.eval_count
    assert answer.eval_duration
    assert answer.total_duration


def test_ollama_python_streams_a_chat(client: ollama.Client) -> None:
    chunks = list(client.chat(MODEL, MESSAGES, options=GREEDY, stream=True))
    assert "Paris" in "".join(chunk.message.content or "" for chunk in chunks)
    assert [chunk.done for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_ollama_python_generates(client: ollama.Client) -> None:
    answer = client.generate(MODEL, QUESTION, options=GREEDY)
    assert "Paris" in (answer.response or "")


def test_ollama_python_streams_a_generation(client: ollama.Client) -> None:
    chunks = list(client.generate(MODEL, QUESTION, options=GREEDY, stream=True))
    assert "Paris" in "".join(chunk.response or "" for chunk in chunks)


def test_ollama_python_lists_shows_and_sees_what_is_loaded(client: ollama.Client) -> None:
    client.generate(MODEL)
    assert MODEL in [model.model for model in client.list().models]
    shown = client.show(MODEL)
    assert shown.details is not None
    assert shown.details.family == "llama"
    assert (shown.modelinfo or {})["general.parameter_count"] == 134_515_008
    [loaded] = client.ps().models
    assert loaded.model == MODEL
    assert loaded.size
    assert loaded.size > 1 << 28


def test_ollama_python_is_told_what_does_not_exist(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'nope' not found") as raised:
        client.chat("nope", MESSAGES)
    assert raised.value.status_code == 404


def test_the_system_message_and_stop_strings_reach_the_model(client: ollama.Client) -> None:
    counted = client.generate(
        MODEL, "Count from 1 to 9: 1, 2,", raw=True, options={**GREEDY, "stop": ["5"]}
    )
    assert "4" in (counted.response or "")
    assert "5" not in (counted.response or "")
    without = client.chat(MODEL, MESSAGES, options={**GREEDY, "num_predict": 1})
    system = {"role": "system", "content": "You speak like a pirate, always and at length."}
    told = client.chat(MODEL, [system, *MESSAGES], options={**GREEDY, "num_predict": 1})
    assert told.prompt_eval_count != without.prompt_eval_count


def test_num_predict_ends_the_answer_with_length(client: ollama.Client) -> None:
    answer = client.chat(MODEL, MESSAGES, options={**GREEDY, "num_predict": 3})
    assert answer.done_reason == "length"
    assert answer.eval_count == 3


def test_format_json_gives_json(client: ollama.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
        "required": ["city", "country"],
        "additionalProperties": False,
    }
    answer = client.chat(MODEL, MESSAGES, format=schema, options={**GREEDY, "num_predict": 100})
    assert set(json.loads(answer.message.content or "")) == {"city", "country"}


def test_the_same_seed_gives_the_same_answer(client: ollama.Client) -> None:
    options = {"seed": 7, "temperature": 1.5, "num_predict": 20}
    first, second = (client.generate(MODEL, QUESTION, options=options) for _ in range(2))
    assert first.response == second.response


@pytest.mark.parametrize("stream", [False, True])
def test_curl_chats(real: Daemon, stream: bool) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "options": GREEDY, "stream": stream}
    lines = [json.loads(line) for line in curl(real, "/api/chat", body).splitlines()]
    assert (len(lines) > 1) == stream
    assert "Paris" in "".join(line["message"]["content"] for line in lines)
    assert lines[-1]["done"] is True


@pytest.mark.parametrize("stream", [False, True])
def test_curl_generates(real: Daemon, stream: bool) -> None:
    body = {"model": MODEL, "prompt": QUESTION, "options": GREEDY, "stream": stream}
    lines = [json.loads(line) for line in curl(real, "/api/generate", body).splitlines()]
    assert "Paris" in "".join(line["response"] for line in lines)


def test_openai_chats(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,  # type: ignore[arg-type]
        temperature=0,
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 42
    assert answer.model == MODEL


def test_openai_streams_a_chat(openai_client: openai.OpenAI) -> None:
    stream = openai_client.chat.completions.create(
        model="SmolLM2:135M",
        messages=MESSAGES,  # type: ignore[arg-type]
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Paris" in text
    assert chunks[-1].usage is not None
    assert {chunk.model for chunk in chunks} == {"SmolLM2:135M"}, "the name that was asked for"


@pytest.mark.parametrize("stream", [False, True])
def test_openai_completes(openai_client: openai.OpenAI, stream: bool) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "prompt": "The capital of France is",
        "temperature": 0,
        "max_tokens": 8,
    }
    if stream:
        chunks = openai_client.completions.create(**asked, stream=True)
        text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    else:
        text = openai_client.completions.create(**asked).choices[0].text
    assert "Paris" in text


def test_openai_lists_and_is_told_what_does_not_exist(openai_client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in openai_client.models.list()]
    assert openai_client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
        openai_client.chat.completions.create(
            model="nope",
            messages=MESSAGES,  # type: ignore[arg-type]
        )


def test_a_prompt_longer_than_the_context_is_told_so(real: Daemon) -> None:
    refused = real.chat(MODEL, "word " * 9000, truncate=False)
    assert refused.status_code == 400
    assert "longer than the context length" in refused.json()["error"]


def test_vllamactl_loads_shows_and_unloads(real: Daemon) -> None:
    real.ctl("model", "load", MODEL)
    assert MODEL in real.ctl("ps")
    assert "ready" in real.ctl("status")
    assert "Application startup complete" in real.ctl("logs", MODEL)
    real.ctl("model", "unload", MODEL)
    assert real.workers() == []


def test_asking_for_the_second_model_evicts_the_first(real: Daemon) -> None:
    real.chat(MODEL, options={"num_predict": 1})
    first = [process.pid for process in real.processes()]
    answer = real.chat("second", QUESTION, options=GREEDY)
    assert "Paris" in answer.json()["message"]["content"]
    assert not [pid for pid in first if is_alive(pid)], "no process of the first is left"
    assert [worker["model"] for worker in real.workers()] == ["second:latest"]


def test_the_death_of_the_core_ends_the_stream_within_5_seconds_and_the_next_is_answered(
    real: Daemon,
) -> None:
    options = {**GREEDY, "num_predict": 4000, "repeat_penalty": 1.3}
    with real.streaming(MODEL, "Tell a very long story.", options=options) as response:
        stream = response.iter_lines()
        next(stream)
        group = real.processes()
        [core] = [process for process in group if process.comm == "VLLM::EngineCor"]
        os.kill(core.pid, signal.SIGKILL)
        lines: list[str] = []
        assert until(lambda: not lines.extend(stream)) < 5  # type: ignore[func-returns-value]
    assert "error" in json.loads(lines[-1])
    until(lambda: not [process for process in group if is_alive(process.pid)], limit=15)
    answer = real.chat(MODEL, QUESTION, options=GREEDY)
    assert "Paris" in answer.json()["message"]["content"]


def test_a_killed_gateway_is_replaced_its_leases_free_and_workers_untouched(
    real: Daemon,
) -> None:
    options = {**GREEDY, "num_predict": 4000, "repeat_penalty": 1.3}
    with real.streaming(MODEL, "Tell a very long story.", options=options) as response:
        stream = response.iter_lines()
        next(stream)
        workers = [process.pid for process in real.processes()]
        [gateway] = real.gateways()
        os.kill(gateway, signal.SIGKILL)
        until(lambda: real.workers()[0]["leases"] == 0)
    assert [process.pid for process in real.processes()] == workers
    answer = real.chat(MODEL, QUESTION, options=GREEDY)
    assert "Paris" in answer.json()["message"]["content"]


def test_a_killed_supervisor_leaves_no_engine_process(config: str, tmp_path: Path) -> None:
    with daemon(tmp_path, config=config) as one:
        one.http.timeout = 180.0
        one.chat(MODEL, options={"num_predict": 1})
        everything = [*(process.pid for process in one.processes()), *one.gateways()]
        assert len(everything) >= 5
        one.stop(signal.SIGKILL)
        assert until(lambda: not [pid for pid in everything if is_alive(pid)]) < 10


def test_a_conversation_longer_than_num_ctx_loses_its_oldest_messages(real: Daemon) -> None:
    old = [{"role": "user", "content": "word " * 300}, {"role": "assistant", "content": "ok"}] * 4
    body = {
        "model": MODEL,
        "messages": [{"role": "system", "content": "Be brief."}, *old, *MESSAGES],
        "options": {**GREEDY, "num_ctx": 512},
        "stream": False,
    }
    answer = real.http.post("/api/chat", json=body).json()
    assert 300 < answer["prompt_eval_count"] < 512, "one long message still fits"
    whole = real.http.post("/api/chat", json=body | {"truncate": False}).json()
    assert whole["prompt_eval_count"] > 1000


def test_a_conversation_goes_on_from_the_token_ids_it_ended_with(real: Daemon) -> None:
    def generate(**more: Any) -> dict[str, Any]:
        options = {**GREEDY, "num_predict": 12}
        body = {"model": MODEL, "stream": False, "options": options, **more}
        return real.http.post("/api/generate", json=body).json()

    def prompt(**more: Any) -> str:
        return generate(**more, _debug_render_only=True)["_debug_info"]["rendered_template"]

    first = generate(prompt=QUESTION)
    assert QUESTION in prompt(prompt=QUESTION)
    before = prompt(prompt=QUESTION) + first["response"]
    again = prompt(prompt="And of Italy?", context=first["context"])
    assert again.startswith(before)
    assert "And of Italy?" in again[len(before) :]
    second = generate(prompt="And of Italy?", context=first["context"])
    assert second["context"][: len(first["context"])] == first["context"]


def test_a_pull_that_is_cut_ten_times_and_killed_comes_to_its_end_and_answers(
    prepared: Path, checkpoint: Path, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    python = (prepared / "state" / "runtimes" / "current" / "bin" / "python").absolute()
    config = f'[engine]\npython = "{python}"\n[paths]\ncache = "{prepared}/cache"\n'
    large = "model.safetensors"
    with running(files) as hub:
        environ = {"HF_ENDPOINT": hub.endpoint}
        with daemon(tmp_path, config=config, environ=environ) as one, ThreadPoolExecutor(1) as pool:
            one.http.timeout = 180.0
            lengths = [random.randrange(1, len(files[large]) // 10) for _ in range(10)]
            hub.cut[large] = list(lengths)
            asking = pool.submit(one.http.post, "/api/pull", json={"model": "org/tiny"})
            until(lambda: len(hub.cut[large]) <= 5)
            one.stop(signal.SIGKILL)
            asking.exception(60)
            one.log.unlink()
            one.start(environ)
            assert one.http.get("/api/tags").json() == {"models": []}
            one.ctl("pull", "org/tiny")
            assert hub.cut[large] == []
            begun = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in hub.ranges]
            assert begun == sorted(begun), lengths
            assert "✓ org/tiny verified" in one.ctl("verify", "org/tiny")
            answer = one.chat("org/tiny", QUESTION, options=GREEDY)
            assert "Paris" in answer.json()["message"]["content"]
