"""Copy, delete, create, blobs, pull and push against a running gateway with the scripted engine.

The numbers in names are those of the contract's test vectors.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from tests.daemon import Daemon, daemon, fake_config, fake_home, until
from tests.fakes.hub import Hub, running

pytestmark = pytest.mark.integration

JSON = "application/json; charset=utf-8"
HI = [{"role": "user", "content": "hi"}]
NOBODY = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def hub() -> Generator[Hub]:
    """A hub that has `org/tiny` and nothing else."""
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    files = {
        "config.json": b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}',
        "model.safetensors": len(header).to_bytes(8, "little") + header + bytes(8),
    }
    with running(files) as one:
        yield one


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Generator[Daemon]:
    """A daemon with the models `test` and `slow`, and `local` out of the configuration."""
    home = fake_home(tmp_path_factory.mktemp("management"), ["test", "slow", "kept"])
    local = home / "made-local"
    local.mkdir()
    source = next((home / "state/models/hub/models--library--kept/snapshots").iterdir())
    for file in source.iterdir():
        (local / file.name).write_bytes(file.read_bytes())
    config = fake_config(
        scenarios={"slow": {"rate": 20.0, "tokens": 30}, "kept": {"load": 1.0}},
        more=f'[model.local]\npath = "{local}"',
    )
    with daemon(home, config=config, environ={"HF_ENDPOINT": hub.endpoint}) as running_daemon:
        yield running_daemon


@pytest.fixture
def client(one: Daemon) -> Generator[ollama.Client]:
    with ollama.Client(host=one.url, timeout=60) as made:
        yield made


def ask(one: Daemon, path: str, body: Any, method: str = "POST") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return one.http.request(method, path, content=content)


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.splitlines()]


def names(one: Daemon) -> set[str]:
    return {model["name"] for model in one.http.get("/api/tags").json()["models"]}


def shown(one: Daemon, model: str) -> dict[str, Any]:
    return ask(one, "/api/show", {"model": model}).json()


def make(one: Daemon, model: str, base: str = "test", **more: Any) -> None:
    answer = ask(one, "/api/create", {"model": model, "from": base, "stream": False, **more})
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def in_store(one: Daemon, pattern: str) -> list[Path]:
    return [path for path in (one.home / "state/models").glob(pattern) if path.is_file()]


# Copy


@pytest.mark.parametrize(
    ("source", "destination", "status", "text"),
    [
        ("a b", "c", 400, 'source "a b" is invalid'),
        ("", "c", 400, 'source "" is invalid'),
        ("test", "", 400, 'destination "" is invalid'),
        ("test", "c d", 400, 'destination "c d" is invalid'),
        ("nope", "c", 404, 'model "nope" not found'),
        ("test", "local", 400, "cannot change local:latest: the configuration says what it is"),
    ],
)
def test_55_what_cannot_be_copied(
    one: Daemon, source: str, destination: str, status: int, text: str
) -> None:
    answer = ask(one, "/api/copy", {"source": source, "destination": destination})
    assert (answer.status_code, answer.json()) == (status, {"error": text})
    assert answer.headers["content-type"] == JSON


def test_55_a_copy_is_the_same_model_under_another_name(one: Daemon) -> None:
    answer = ask(one, "/api/copy", {"source": "test", "destination": "twin:x"})
    assert (answer.status_code, answer.content) == (200, b"")
    tags = {model["name"]: model for model in one.http.get("/api/tags").json()["models"]}
    assert tags["twin:x"]["digest"] == tags["test:latest"]["digest"]
    assert tags["twin:x"]["size"] == tags["test:latest"]["size"]
    assert one.chat("twin:x").json()["model"] == "twin:x"


def test_55_a_copy_onto_itself_is_nothing_even_where_nothing_is(one: Daemon) -> None:
    for name in ("ghost", "test"):
        answer = ask(one, "/api/copy", {"source": name, "destination": f"{name.upper()}:latest"})
        assert (answer.status_code, answer.content) == (200, b"")
    assert "ghost:latest" not in names(one)


def test_a_copy_runs_on_the_worker_of_its_original(one: Daemon) -> None:
    ask(one, "/api/copy", {"source": "test", "destination": "shared"})
    one.chat("test")
    pid = worker(one, "test:latest")["pid"]
    one.chat("shared")
    assert worker(one, "test:latest")["pid"] == pid
    assert "shared:latest" not in {worker["model"] for worker in one.workers()}
    unload = {"model": "shared", "keep_alive": 0}
    assert ask(one, "/api/generate", unload).json()["done_reason"] == "unload"
    until(lambda: worker(one, "test:latest") == {})


def worker(one: Daemon, model: str) -> dict[str, Any]:
    return next((found for found in one.workers() if found["model"] == model), {})


def test_a_copy_overwrites_what_was_there(one: Daemon) -> None:
    make(one, "over", system="first")
    ask(one, "/api/copy", {"source": "test", "destination": "OVER"})
    assert "system" not in shown(one, "over")


def test_a_copy_of_a_configured_folder_uses_that_folder(one: Daemon) -> None:
    ask(one, "/api/copy", {"source": "local", "destination": "away"})
    assert one.chat("away").status_code == 200
    assert worker(one, "local:latest")["state"] == "ready"
    assert shown(one, "away")["details"]["parent_model"] == "local:latest"


# Delete


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"model": "nope"}, 404, "model 'nope' not found"),
        ({"name": "nope"}, 404, "model 'nope' not found"),
        ({"model": "a b"}, 400, 'name "a b" is invalid'),
        ({}, 400, "model is required"),
        ({"model": "", "name": ""}, 400, "model is required"),
        (b"", 400, "missing request body"),
        ({"model": "nope:cloud"}, 404, "model 'nope:cloud' not found"),
        ({"model": "local"}, 400,
         "cannot change local:latest: the configuration says what it is"),
    ],
)  # fmt: skip
def test_56_what_cannot_be_deleted(one: Daemon, body: Any, status: int, text: str) -> None:
    answer = ask(one, "/api/delete", body, "DELETE")
    assert (answer.status_code, answer.json()) == (status, {"error": text})


def test_56_a_deleted_model_is_gone_with_its_files(one: Daemon, tmp_path: Path) -> None:
    install(one, "gone")
    assert in_store(one, "hub/models--library--gone/**/*")
    answer = ask(one, "/api/delete", {"name": "gone"}, "DELETE")
    assert (answer.status_code, answer.content) == (200, b"")
    assert "gone:latest" not in names(one)
    assert in_store(one, "hub/models--library--gone/**/*") == []
    assert one.chat("gone").status_code == 404


def install(one: Daemon, name: str) -> None:
    """A model with files of its own."""
    fake_home(one.home / "more" / name, [name])
    made = one.home / "more" / name / "state/models"
    for path in made.glob("**/*"):
        target = one.home / "state/models" / path.relative_to(made)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
    files = sorted((p for p in made.glob("**/*") if p.is_file()), key=lambda p: p.suffix == ".json")
    for path in sorted(files, key=lambda p: "manifests" in p.parts):
        path.replace(one.home / "state/models" / path.relative_to(made))


def test_the_files_stay_until_the_last_name_goes(one: Daemon) -> None:
    install(one, "first")
    ask(one, "/api/copy", {"source": "first", "destination": "second"})
    ask(one, "/api/copy", {"source": "first", "destination": "third"})
    ask(one, "/api/delete", {"model": "first"}, "DELETE")
    one.chat("second")
    one.chat("third")
    loaded = {found["model"] for found in one.workers()}
    assert len(loaded & {"second:latest", "third:latest"}) == 1, "they still share a worker"
    ask(one, "/api/delete", {"model": "second"}, "DELETE")
    assert one.chat("third").status_code == 200
    ask(one, "/api/delete", {"model": "third"}, "DELETE")
    assert in_store(one, "hub/models--library--first/**/*") == []


def test_deleting_a_model_in_use_lets_its_streams_end_and_takes_nobody_new(one: Daemon) -> None:
    make(one, "stays", "slow")  # so that its files stay for the other tests
    with one.streaming("slow") as response:
        answer = response.iter_lines()
        next(answer)
        with ThreadPoolExecutor(1) as pool:
            deleted = pool.submit(ask, one, "/api/delete", {"model": "slow"}, "DELETE")
            until(lambda: one.chat("slow").status_code == 404)
            rest = [json.loads(line) for line in answer]
            assert deleted.result(60).status_code == 200
    assert rest[-1]["done"] is True
    assert worker(one, "slow:latest") == {}
    ask(one, "/api/copy", {"source": "stays", "destination": "slow"})


def test_deleting_a_model_that_loads_refuses_who_waits_for_it(one: Daemon) -> None:
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(one.chat, "kept")
        until(lambda: worker(one, "kept:latest").get("state") == "starting")
        assert ask(one, "/api/delete", {"model": "kept"}, "DELETE").status_code == 200
        answer = waiting.result(60)
    assert (answer.status_code, answer.json()) == (404, {"error": "model 'kept:latest' not found"})
    assert worker(one, "kept:latest") == {}


# Create


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"model": "x"}, "neither 'from' or 'files' was specified"),
        ({"model": "x", "files": {}}, "neither 'from' or 'files' was specified"),
        ({"model": "x", "files": {"/a": NOBODY}}, "file path must be relative"),
        ({"model": "x", "files": {"../a": NOBODY}}, "file path must be relative"),
        ({"model": "x", "files": {"a": ""}}, "invalid digest format"),
        ({"model": "x", "files": {"a.gguf": NOBODY}}, "unknown type"),
        ({"model": "", "from": "test"}, "invalid model name"),
        ({"model": "a b", "from": "test"}, "invalid model name"),
        ({"model": "x", "from": "a b"}, "invalid model name"),
        ({"model": "x", "from": "test", "template": "{{ .Prompt }}"},
         "template error: only Jinja chat templates are supported"),
        ({"model": "x", "from": "test", "template": "{% if %}"}, None),
        ({"model": "x", "from": "test", "quantize": "q4_K_M"}, "quantization is not supported"),
        ({"model": "x", "from": "test", "quantization": "q4"}, "quantization is not supported"),
        ({"model": "x", "from": "test", "renderer": "r"}, "renderer is not supported"),
        ({"model": "x", "from": "test", "remote_host": "h"}, "bad remote"),
        ({"model": "x", "from": "test", "draft_quantize": "q"},
         "--draft-quantize requires a DRAFT model"),
        ({"model": "x", "from": "test", "parameters": {"temperature": "hot"}},
         'option "temperature" must be of type float32'),
        ({"model": "x", "from": "test", "info": {"context_length": -1}},
         'info field "context_length" must be a non-negative integer'),
        ({"model": "x", "from": "test", "adapters": {"a.gguf": NOBODY}},
         "only one adapter is currently supported"),
        ({"model": "x", "from": "test", "adapters": {
            "adapter_config.json": NOBODY, "adapter_model.safetensors": NOBODY}},
         f'blob "{NOBODY}" not found'),
        ({"model": "x", "from": "test", "parameters": []},
         "json: cannot unmarshal array into Go struct field CreateRequest.parameters of type"
         " map[string]interface {}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [True, False])
def test_59_what_cannot_be_created(
    one: Daemon, body: dict[str, Any], text: str | None, stream: bool
) -> None:
    answer = ask(one, "/api/create", body | {"stream": stream})
    assert answer.status_code == 400
    assert text in (None, answer.json()["error"])
    assert "x:latest" not in names(one)


def test_59_create_tells_its_steps(one: Daemon) -> None:
    told = lines(ask(one, "/api/create", {"model": "steps", "from": "test", "system": "Be kind."}))
    digest = shown_digest(one, "test:latest")
    assert told[0] == {"status": f"using existing layer sha256:{digest}"}
    assert [line["status"].split(" sha256:")[0] for line in told[1:]] == [
        "creating new layer", "writing manifest", "success",
    ]  # fmt: skip


def shown_digest(one: Daemon, name: str) -> str:
    tags = one.http.get("/api/tags").json()["models"]
    return next(model["digest"] for model in tags if model["name"] == name)


def test_59_without_a_stream_only_the_end_is_told(one: Daemon) -> None:
    answer = ask(one, "/api/create", {"model": "still", "from": "test", "stream": False})
    assert (answer.text, answer.headers["content-type"]) == (
        '{"status":"success"}', "application/json",
    )  # fmt: skip


def test_60_what_was_created_is_shown(one: Daemon) -> None:
    make(
        one, "shown", parameters={"temperature": 0.7, "stop": ["a"], "my_own": 1},
        system="Be kind.", license=["MIT", "and more"], template="{{ messages }}",
        messages=[{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}],
    )  # fmt: skip
    told = shown(one, "shown")
    assert set(told["parameters"].splitlines()) == {
        "temperature                    0.7",
        'stop                           "a"',
        "my_own                         1",
    }
    assert told["system"] == "Be kind."
    assert told["template"] == "{{ messages }}"
    assert told["license"] == "MIT\nand more"
    assert told["messages"] == [
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "two"},
    ]  # fmt: skip
    assert told["details"]["parent_model"] == "test:latest"
    assert told["model_info"]["general.architecture"] == "llama"
    assert told["modelfile"].splitlines() == [
        '# Modelfile generated by "ollama show"',
        "FROM test:latest",
        "TEMPLATE {{ messages }}",
        "SYSTEM Be kind.",
        "PARAMETER my_own 1",
        'PARAMETER stop "a"',
        "PARAMETER temperature 0.7",
        "MESSAGE user one",
        "MESSAGE assistant two",
        'LICENSE "MIT',
        'and more"',
    ]


def test_what_is_made_of_what_was_made_adds_to_it(one: Daemon) -> None:
    make(one, "one", parameters={"temperature": 0.1, "top_k": 5}, system="A", license="MIT")
    make(one, "two", "one", parameters={"temperature": 0.2}, license="BSD")
    told = shown(one, "two")
    assert told["system"] == "A"
    assert told["license"] == "MIT\nBSD"
    assert [line.split()[1] for line in told["parameters"].splitlines()] == ["0.2", "5"]
    digests = {shown_digest(one, name) for name in ("one:latest", "two:latest", "test:latest")}
    assert len(digests) == 3


def test_the_digest_of_a_made_model_is_stable(one: Daemon) -> None:
    make(one, "fixed", system="x", parameters={"a": 1, "top_k": 2})
    before = shown_digest(one, "fixed:latest")
    make(one, "fixed", system="x", parameters={"top_k": 2, "a": 1})
    assert shown_digest(one, "fixed:latest") == before
    make(one, "fixed", system="y")
    assert shown_digest(one, "fixed:latest") != before


def test_system_history_and_parameters_reach_the_model(one: Daemon) -> None:
    make(
        one, "told", system="You are Mario.", parameters={"num_predict": 3},
        messages=[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    )  # fmt: skip
    answer = one.chat("told", "hi").json()
    assert (answer["done_reason"], answer["eval_count"]) == ("length", 3)
    # The scripted engine counts words: the system message, two of history, and ours.
    assert answer["prompt_eval_count"] == 6
    own = [{"role": "system", "content": "other"}, {"role": "user", "content": "hi"}]
    body = {"model": "told", "messages": own, "stream": False}
    assert one.http.post("/api/chat", json=body).json()["prompt_eval_count"] == 4
    generated = {"model": "told", "prompt": "hi", "stream": False}
    assert one.http.post("/api/generate", json=generated).json()["prompt_eval_count"] == 6
    asked = {"model": "told", "messages": HI}
    usage = one.http.post("/v1/chat/completions", json=asked).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (6, 3)


def test_a_template_of_its_own_takes_a_worker_of_its_own(one: Daemon) -> None:
    make(one, "styled", template="{{ messages[0].content }}")
    one.chat("styled")
    assert worker(one, "styled:latest")["state"] == "ready"
    run = next(path for path in (one.run / "w").glob("*/template.jinja"))
    assert run.read_text() == "{{ messages[0].content }}"


def test_a_model_made_over_its_own_base_is_that_model(one: Daemon) -> None:
    install(one, "self")
    make(one, "self", "self", system="I am me.")
    assert shown(one, "self")["details"]["parent_model"] == ""
    assert shown(one, "self")["system"] == "I am me."
    assert one.chat("self").status_code == 200
    assert ask(one, "/api/delete", {"model": "self"}, "DELETE").status_code == 200
    assert in_store(one, "hub/models--library--self/**/*") == []


def test_two_who_create_the_same_model_at_once_both_succeed(one: Daemon) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(make, one, "race", system=f"number {n}") for n in range(8)]
        for future in made:
            future.result(60)
    assert shown(one, "race")["system"].startswith("number ")


def remove(one: Daemon, *models: str) -> None:
    for model in models:
        answer = ask(one, "/api/delete", {"model": model}, "DELETE")
        assert answer.status_code in (200, 404), answer.text


def test_an_unknown_base_is_pulled(one: Daemon) -> None:
    remove(one, "org/tiny", "mine")
    told = lines(ask(one, "/api/create", {"model": "mine", "from": "org/tiny", "system": "x"}))
    assert told[0] == {"status": "pulling manifest"}
    assert told[-1] == {"status": "success"}
    assert [line["status"] for line in told].count("success") == 1
    assert shown(one, "mine")["details"]["parent_model"] == "org/tiny:latest"


def test_a_base_that_no_hub_has_fails_as_a_pull_does(one: Daemon) -> None:
    body = {"model": "x", "from": "nope-xyz"}
    assert lines(ask(one, "/api/create", body)) == [
        {"status": "pulling manifest"},
        {"error": "pull model manifest: file does not exist"},
    ]
    answer = ask(one, "/api/create", body | {"stream": False})
    assert answer.status_code == 500


# Blobs


def test_57_blobs_are_stored_under_what_they_hash_to(one: Daemon) -> None:
    content = b"a blob" * 1000
    path = f"/api/blobs/{digest_of(content)}"
    assert one.http.head(path).status_code == 404
    first = one.http.post(path, content=content)
    assert (first.status_code, first.content) == (201, b"")
    assert one.http.head(path).status_code == 200
    again = one.http.post(path, content=content)
    assert (again.status_code, again.content) == (200, b"")
    assert one.http.get(path).headers["allow"] == "HEAD, POST"


@pytest.mark.parametrize(
    "digest", ["sha256:xyz", "sha256", "md5:" + "0" * 64, "sha256:" + "0" * 63, "..%2f..%2fx"]
)
def test_57_what_is_no_digest_is_refused(one: Daemon, digest: str) -> None:
    answer = one.http.post(f"/api/blobs/{digest}", content=b"x")
    assert answer.status_code in (400, 404)
    assert one.http.head(f"/api/blobs/{digest}").status_code in (400, 404)
    if "%" not in digest:
        assert answer.json() == {"error": "invalid digest format"}


def test_57_other_bytes_than_announced_leave_nothing(one: Daemon) -> None:
    answer = one.http.post(f"/api/blobs/{NOBODY}", content=b"x")
    assert answer.status_code == 400
    assert answer.json()["error"] == (
        f'digest mismatch, expected "{NOBODY}", got "{digest_of(b"x")}"'
    )
    assert one.http.head(f"/api/blobs/{NOBODY}").status_code == 404
    assert in_store(one, "blobs/.*") == []


def test_a_blob_larger_than_any_other_body_goes_straight_to_the_disk(one: Daemon) -> None:
    piece = bytes(1 << 20)
    whole = hashlib.sha256()
    for _ in range(48):
        whole.update(piece)

    def pieces() -> Iterator[bytes]:
        for _ in range(48):
            yield piece

    before = peak_of(one)
    answer = one.http.post(f"/api/blobs/sha256:{whole.hexdigest()}", content=pieces())
    assert answer.status_code == 201
    assert peak_of(one) - before < 24 << 20
    [path] = in_store(one, f"blobs/sha256-{whole.hexdigest()}")
    assert path.stat().st_size == 48 << 20
    path.unlink()


def peak_of(one: Daemon) -> int:
    """Most memory the gateway ever had, in bytes."""
    [gateway] = one.gateways()
    status = Path(f"/proc/{gateway}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_a_client_that_leaves_in_the_middle_of_a_blob_leaves_nothing(one: Daemon) -> None:
    stuck = threading.Event()

    def endless() -> Iterator[bytes]:
        while not stuck.is_set():
            yield bytes(1 << 16)
        raise ConnectionAbortedError

    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(one.http.post, f"/api/blobs/{NOBODY}", content=endless())
        until(lambda: in_store(one, "blobs/.*"))
        stuck.set()
        with pytest.raises(ConnectionAbortedError):
            sent.result(60)
    until(lambda: in_store(one, "blobs/.*") == [])


# Pull and push


def test_58_what_no_hub_has(one: Daemon) -> None:
    missing = {"error": "pull model manifest: file does not exist"}
    for name in ("nope-xyz", "org/nothing"):
        told = lines(ask(one, "/api/pull", {"model": name}))
        assert told == [{"status": "pulling manifest"}, missing]
        answer = ask(one, "/api/pull", {"name": name, "stream": False})
        assert (answer.status_code, answer.json()) == (500, missing)
        assert answer.headers["content-type"] == "application/json"
    assert lines(ask(one, "/api/pull", {"model": "nope:cloud"}))[1:] == [missing]
    for body in ({}, {"model": "a b"}):
        answer = ask(one, "/api/pull", body)
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid model name"})


def test_a_pull_tells_how_far_it_is(one: Daemon, hub: Hub) -> None:
    remove(one, "org/tiny", "mine")
    told = lines(ask(one, "/api/pull", {"model": "org/tiny", "insecure": True}))
    assert told[0] == {"status": "pulling manifest"}
    assert told[-3:] == [
        {"status": "verifying sha256 digest"}, {"status": "writing manifest"},
        {"status": "success"},
    ]  # fmt: skip
    digest = digest_of(hub.files["model.safetensors"])
    total = len(hub.files["model.safetensors"])
    layer = [line for line in told if line.get("digest") == digest]
    assert layer[0] == {"status": f"pulling {digest[7:19]}", "digest": digest, "total": total}
    assert layer[-1] == layer[0] | {"completed": total}
    assert "org/tiny:latest" in names(one)


def test_a_client_that_leaves_calls_its_pull_off(one: Daemon, hub: Hub) -> None:
    remove(one, "org/tiny", "mine")
    hub.stall = "model.safetensors"
    try:
        with one.http.stream("POST", "/api/pull", json={"model": "org/tiny"}) as response:
            answer = response.iter_lines()
            assert json.loads(next(answer)) == {"status": "pulling manifest"}
            assert hub.stalled.wait(30)
        until(lambda: not [p for p in one.processes() if "models.pull" in command(p.pid)])
    finally:
        hub.stall = ""
        hub.go_on.set()
    assert "org/tiny:latest" not in names(one)
    assert lines(ask(one, "/api/pull", {"model": "org/tiny"}))[-1] == {"status": "success"}


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except OSError:
        return ""


def test_push_has_nowhere_to_go(one: Daemon) -> None:
    assert lines(ask(one, "/api/push", {"model": "test"})) == [
        {"status": "retrieving manifest"}, {"error": "push is not supported"},
    ]  # fmt: skip
    answer = ask(one, "/api/push", {"name": "test", "stream": False})
    assert (answer.status_code, answer.json()) == (501, {"error": "push is not supported"})
    assert ask(one, "/api/push", {}).json() == {"error": "model is required"}


# Ollama's cloud


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/api/status", 200, {"cloud": {"disabled": True, "source": "config"}}),
        ("POST", "/api/me", 503, {"error": "account unavailable"}),
        ("POST", "/api/signout", 401, {"error": "you are not currently signed in"}),
        ("DELETE", "/api/user/keys/abc", 401, {"error": "you are not currently signed in"}),
        ("GET", "/api/experimental/model-recommendations", 200, {"recommendations": []}),
        ("POST", "/api/experimental/web_search", 400, {"error": "missing request body"}),
    ],
)
def test_5_routes_of_the_cloud_say_that_there_is_none(
    one: Daemon, method: str, path: str, status: int, body: Any
) -> None:
    answer = one.http.request(method, path)
    assert (answer.status_code, answer.json()) == (status, body)


@pytest.mark.parametrize(("what", "name"), [("web_search", "search"), ("web_fetch", "fetch")])
def test_the_web_is_not_searched(one: Daemon, what: str, name: str) -> None:
    answer = ask(one, f"/api/experimental/{what}", {"query": "x", "url": "x"})
    assert answer.status_code == 403
    assert answer.json()["error"] == f"ollama cloud is disabled: web {name} is unavailable"


@pytest.mark.parametrize("path", ["pull", "push", "create", "copy", "delete"])
def test_9_every_one_of_them_wants_a_body(one: Daemon, path: str) -> None:
    answer = ask(one, f"/api/{path}", b"", "DELETE" if path == "delete" else "POST")
    assert (answer.status_code, answer.json()) == (400, {"error": "missing request body"})


# The official client


def test_ollama_python_makes_copies_shows_and_deletes(client: ollama.Client) -> None:
    made = client.create("pet", from_="test", system="You are a cat.", parameters={"top_k": 3})
    assert made.status == "success"
    assert [step.status for step in client.create("pet", from_="pet", stream=True)][-1] == "success"
    assert client.copy("pet", "cat").status == "success"
    assert (client.show("cat").parameters or "").split() == ["top_k", "3"]
    assert client.chat("cat", HI).message.content
    assert client.delete("cat").status == "success"
    with pytest.raises(ollama.ResponseError) as raised:
        client.delete("cat")
    assert raised.value.status_code == 404


def test_ollama_python_uploads_pulls_and_pushes(client: ollama.Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert client.create_blob(tmp_path / "file") == digest_of(b"content")
    assert client.pull("org/tiny").status == "success"
    steps = list(client.pull("org/tiny", stream=True))
    assert steps[0].status == "pulling manifest"
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        client.pull("nope-xyz")
    with pytest.raises(ollama.ResponseError, match="push is not supported"):
        list(client.push("pet", stream=True))
