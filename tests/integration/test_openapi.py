"""docs/openapi.yaml against a running daemon: what it answers stands there, whatever it is asked.

HOSTILE_SEED in the environment tries other requests than those every run makes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import Any, NamedTuple, cast

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case as AnyCase
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from tests.fakes.family_scripts import ACTS, TOOLS
from tests.fakes.hostile_clients import SEED
from tests.fakes.hub import Hub
from tests.support.checkpoints import BERT, write_checkpoint
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from tests.support.error_events import RATE_LIMITED
from tests.support.family_models import install_family
from tests.support.managed_daemon import HI, NOBODY, digest_of
from tests.support.openapi_document import DOCUMENT, operations, resolved
from tests.support.paths import ROOT
from vllamad.core.model_name import parse_model_name
from vllamad.errors import BadInput
from vllamad.models.store import model_store
from vllamad.translate.go.duration import parse_keep_alive

pytestmark = pytest.mark.integration

Case = AnyCase[Any]

SCHEMA = schemathesis.openapi.from_path(ROOT / "docs" / "openapi.yaml")
OPERATIONS = {f"{method} {path}": SCHEMA[path][method] for method, path in operations()}
PROMISES = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
EXAMPLES = 40  # of requests to each operation
PULLS = 8  # each takes a process of its own
PATIENCE = 20.0  # seconds; what takes longer hangs
# The refusals that Ollama, too, makes with a 5xx.
OLLAMAS_OWN = re.compile(
    r'option \\"\w+\\" must be of |invalid format: |This server does not support embeddings'
    r"|push is not supported|account unavailable|pull model manifest: file does not exist"
)
BLOB = b"a file of a model"
TINY = "org/tiny"
NDJSON = "application/x-ndjson"
SPEECH = {"file": ("a.wav", b"RIFF sound", "audio/wav")}


class Ask(NamedTuple):
    """A request that is answered with `status`; `label` is an operation of the document."""

    label: str
    status: int = 200
    body: dict[str, Any] | bytes | None = None
    at: str = ""  # what stands in the path for its parameter
    form: dict[str, str] | None = None
    headers: dict[str, str] | None = None


GENERATE, CHAT = "POST /api/generate", "POST /api/chat"
CREATE, PULL, PUSH = "POST /api/create", "POST /api/pull", "POST /api/push"
COMPLETE, EMBED = "POST /v1/chat/completions", "POST /api/embed"
RESPOND, MESSAGES = "POST /v1/responses", "POST /v1/messages"
HEAR, TRANSLATE = "POST /v1/audio/transcriptions", "POST /v1/audio/translations"
BLOBS = "POST /api/blobs/{digest}"
USER = {"model": "test", "messages": HI}
TEXT = {"model": "test", "prompt": "hi", "stream": False}
VECTORS = {"model": "bert", "input": ["a b", "c"]}
RANKED = {"model": "bert", "query": "a", "documents": ["a b", {"text": "c"}]}
SCORED = {"model": "bert", "text_1": "a", "text_2": ["a b", "c"]}
MADE = {
    "from": "test", "system": "Be brief.", "license": ["MIT"], "messages": HI,
    "parameters": {"temperature": 0.3, "stop": ["x"]},
}  # fmt: skip
ASKS = [
    Ask("GET /"), Ask("HEAD /"), Ask("GET /health"), Ask("HEAD /health"),
    Ask("GET /api/version"), Ask("HEAD /api/version"), Ask("GET /api/tags"), Ask("HEAD /api/tags"),
    Ask("GET /api/ps"), Ask("GET /api/status"), Ask("GET /v1/models"),
    Ask("GET /api/experimental/model-recommendations"),
    Ask(GENERATE, body={"model": "test", "prompt": "hi"}), Ask(GENERATE, body=TEXT),
    Ask(GENERATE, body={"model": "test"}), Ask(GENERATE, body={"model": "ears", "keep_alive": 0}),
    Ask(GENERATE, body=TEXT | {"raw": True, "logprobs": True, "top_logprobs": 2}),
    Ask(GENERATE, body=TEXT | {"_debug_render_only": True}),
    Ask(GENERATE, body=TEXT | {"context": [1, 2]}),
    Ask(GENERATE, body={"model": "deepseek_r1", "prompt": "hi"}),
    Ask(GENERATE, body={"model": "broken", "prompt": "hi"}),
    Ask(GENERATE, 404, {"model": "nobody"}), Ask(GENERATE, 403, {"model": "a:cloud"}),
    Ask(GENERATE, 500, TEXT | {"options": {"temperature": "hot"}}),
    Ask(GENERATE, 415, TEXT, headers={"Content-Encoding": "br"}),
    Ask(CHAT, body=USER), Ask(CHAT, body=USER | {"stream": False}),
    Ask(CHAT, body={"model": "test"}),
    Ask(CHAT, body=USER | {"stream": False, "_debug_render_only": True}),
    Ask(CHAT, body=USER | {"logprobs": True, "top_logprobs": 2}),
    Ask(CHAT, body=USER | {"model": "qwen3", "tools": TOOLS}),
    Ask(CHAT, body=USER | {"model": "qwen3", "tools": TOOLS, "stream": False}),
    Ask(CHAT, body=USER | {"model": "broken"}), Ask(CHAT, 500, USER | {"format": "xml"}),
    Ask(CHAT, 429, USER | {"model": "busy"}), Ask(CHAT, 500, USER | {"model": "dead"}),
    Ask(EMBED, body=VECTORS), Ask(EMBED, body={"model": "bert"}),
    Ask(EMBED, 501, VECTORS | {"model": "test"}),
    Ask("POST /api/embeddings", body={"model": "bert", "prompt": "a"}),
    Ask("POST /api/embeddings", body={"model": "bert"}),
    Ask("POST /api/embeddings", 500, {"model": "test", "prompt": "a"}),
    Ask("POST /api/show", body={"model": "test"}), Ask("POST /api/show", body={"name": "made"}),
    Ask("POST /api/show", 404, {"model": "nobody"}), Ask("POST /api/show", 400, b"{"),
    Ask("POST /api/copy", body={"source": "test", "destination": "copied"}),
    Ask("POST /api/copy", 404, {"source": "nobody", "destination": "copied"}),
    Ask(CREATE, body={"model": "new", **MADE}),
    Ask(CREATE, body={"model": "newer", "stream": False, **MADE}),
    Ask(CREATE, body={"model": "newest", "from": "org/nobody"}),
    Ask(CREATE, 400, {"model": "newest"}), Ask(CREATE, 403, {"model": "newest", "from": "a:cloud"}),
    Ask("DELETE /api/delete", body={"model": "gone"}),
    Ask("DELETE /api/delete", 404, {"model": "nobody"}),
    Ask(PULL, body={"model": TINY}), Ask(PULL, body={"model": TINY, "stream": False}),
    Ask(PULL, body={"model": "org/nobody"}),
    Ask(PULL, 500, {"model": "org/nobody", "stream": False}), Ask(PULL, 400, {"model": "a b"}),
    Ask(PUSH, body={"model": "test"}), Ask(PUSH, 501, {"model": "test", "stream": False}),
    Ask("HEAD /api/blobs/{digest}", at=digest_of(b"")),
    Ask("HEAD /api/blobs/{digest}", 404, at=NOBODY),
    Ask("HEAD /api/blobs/{digest}", 400, at="sha256:xyz"),
    Ask(BLOBS, 201, BLOB, at=digest_of(BLOB)),
    Ask(BLOBS, 200, b"", at=digest_of(b"")),
    Ask(BLOBS, 400, BLOB, at=NOBODY),
    Ask("POST /api/me", 503), Ask("POST /api/signout", 401),
    Ask("DELETE /api/user/keys/{key}", 401, at="x"),
    Ask("POST /api/experimental/web_search", 403, {"query": "x"}),
    Ask("POST /api/experimental/web_search", 400, b""),
    Ask("POST /api/experimental/web_fetch", 403, {"url": "x"}),
    Ask("GET /v1/models/{name}", at="qwen3"),
    Ask("GET /v1/models/{name}", at="org/two"),
    Ask("GET /v1/models/{name}", 404, at="nobody"),
    Ask(COMPLETE, body=USER), Ask(COMPLETE, body=USER | {"stream": True}),
    Ask(COMPLETE, body=USER | {"model": "qwen3", "tools": TOOLS, "stream": True}),
    Ask(COMPLETE, body=USER | {"model": "broken", "stream": True}),
    Ask(COMPLETE, 429, USER | {"model": "busy", "stream": True}),
    Ask(COMPLETE, 404, USER | {"model": "nobody"}),
    Ask(COMPLETE, 400, {"model": "test", "messages": []}),
    Ask("POST /v1/completions", body=TEXT),
    Ask("POST /v1/completions", body=TEXT | {"stream": True, "logprobs": 2}),
    Ask(RESPOND, body={"model": "test", "input": "hi"}),
    Ask(RESPOND, body={"model": "test", "input": "hi", "stream": True}),
    Ask(RESPOND, body={"model": "broken", "input": "hi", "stream": True}),
    Ask(RESPOND, 400, {"model": "test"}),
    Ask("POST /v1/embeddings", body=VECTORS),
    Ask("POST /v1/embeddings", body=VECTORS | {"encoding_format": "base64"}),
    Ask("POST /v1/embeddings", 400, VECTORS | {"model": "test"}),
    Ask(HEAR, form={"model": "ears"}), Ask(HEAR, form={"model": "ears", "stream": "true"}),
    Ask(HEAR, form={"model": "ears", "response_format": "text"}),
    Ask(HEAR, 400, form={"model": "test"}), Ask(TRANSLATE, form={"model": "ears"}),
    Ask(MESSAGES, body=USER | {"max_tokens": 9}),
    Ask(MESSAGES, body=USER | {"max_tokens": 9, "stream": True}),
    Ask(MESSAGES, body=USER | {"max_tokens": 9, "stream": True, "model": "broken"}),
    Ask(MESSAGES, 400, USER), Ask(MESSAGES, 404, USER | {"max_tokens": 9, "model": "nobody"}),
    Ask("POST /v1/messages/count_tokens", body=USER),
    Ask("POST /v1/messages/count_tokens", 400, {"model": "test"}),
    Ask("POST /rerank", body=RANKED), Ask("POST /v1/rerank", body=RANKED | {"top_n": 1}),
    Ask("POST /v2/rerank", 400, RANKED | {"model": "test"}),
    Ask("POST /score", body=SCORED), Ask("POST /v1/score", 404, SCORED | {"model": "nobody"}),
]  # fmt: skip


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Generator[Daemon]:
    """A daemon with a model of each kind; the hub that it knows has next to nothing."""
    scenarios: dict[str, dict[str, Any]] = {
        "broken": {"error_after": 2}, "dead": {"error_after": 0}, "busy": {"replay": ""},
    }  # fmt: skip
    home = fake_home(tmp_path_factory.mktemp("openapi"), ["test", "gone", "org/two", *scenarios])
    scenarios["busy"]["replay"] = str(home / "limited")
    (home / "limited").write_text(f"data: {RATE_LIMITED % 429}\n\ndata: [DONE]\n\n")
    folder = write_checkpoint(home / "made" / "bert", BERT)
    model_store.add_model(
        home / "state" / "models", parse_model_name("bert"), folder, source="test"
    )
    for act in ACTS:
        install_family(home, act)
        scenarios[act.name] = {"replay": str(act.recorded)}
    environ = {"HF_ENDPOINT": hub.endpoint}
    with daemon(home, config=fake_config(scenarios=scenarios), environ=environ) as started:
        hears = {"info": {"capabilities": ["completion", "audio"]}}
        for name, more in (("ears", {"from": "test", **hears}), ("made", MADE)):
            body = {"model": name, "stream": False, **more}
            assert started.http.post(CREATE[5:], json=body).json() == {"status": "success"}
        assert started.http.post(f"/api/blobs/{digest_of(b'')}").status_code == 201
        started.chat("test")  # so that there is something to list
        yield started


def test_every_operation_is_asked_for() -> None:
    assert {ask.label for ask in ASKS} == set(OPERATIONS)


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: f"{ask.label}-{ask.status}")
def test_an_answer_is_what_the_document_says(one: Daemon, ask: Ask) -> None:
    method, path = ask.label.split(" ")
    answer = one.http.request(
        method,
        re.sub("{.*}", ask.at, path),
        content=json.dumps(ask.body) if isinstance(ask.body, dict) else ask.body,
        data=ask.form,
        files=SPEECH if ask.form else None,
        headers=ask.headers,
    )
    assert answer.status_code == ask.status, answer.text
    answer.request.read()
    parameters = dict.fromkeys(re.findall("{(.*)}", path), ask.at)
    check(OPERATIONS[ask.label].Case(path_parameters=parameters), answer)


@pytest.mark.parametrize(
    ("method", "origin", "status", "length"),
    [("OPTIONS", "http://localhost", 204, None), ("GET", "http://example.com", 403, "0")],
)
def test_who_is_judged_before_any_route_is_told_nothing_of_no_type(
    one: Daemon, method: str, origin: str, status: int, length: str | None
) -> None:
    answer = one.http.request(method, "/api/tags", headers={"Origin": origin})
    assert (answer.status_code, answer.content) == (status, b"")
    assert answer.headers.get("content-length") == length
    assert not content_type(answer)


@pytest.mark.parametrize("method", ["PATCH", "PROPFIND"])
@pytest.mark.parametrize("path", sorted({path for _, path in operations()}))
def test_another_method_is_told_which_ones_there_are(one: Daemon, path: str, method: str) -> None:
    answer = one.http.request(method, re.sub("{.*}", "x", path))
    assert (answer.status_code, answer.text) == (405, "405 method not allowed")
    allowed = [
        known for known in ("HEAD", "GET", "POST", "DELETE") if (known, path) in operations()
    ]
    assert answer.headers["allow"] == ", ".join(allowed)


@pytest.mark.parametrize("label", OPERATIONS)
def test_no_request_makes_an_answer_that_is_not_in_the_document(one: Daemon, label: str) -> None:
    @seed(SEED)
    @settings(
        max_examples=PULLS if label == PULL else EXAMPLES,
        database=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
    @given(case=requests_to(label))
    def ask(case: Case) -> None:
        answer = case.call(base_url=one.url, timeout=PATIENCE)
        assert answer.status_code < 500 or OLLAMAS_OWN.search(answer.text), answer.text
        check(case, answer)

    print(f"HOSTILE_SEED={SEED}")  # shown if it fails
    ask()


def requests_to(label: str) -> st.SearchStrategy[Case]:
    """Requests as the document has them, and such that are wrong somewhere."""
    kinds = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    drawn = [OPERATIONS[label].as_strategy(kind) for kind in kinds]
    return st.builds(aimed, st.one_of(drawn), st.sampled_from([*models_for(label), ""]))


def models_for(label: str) -> list[str]:
    """Of those that are installed, some that fit the route, and one that does not."""
    if re.search("embed|rerank|score", label):
        return ["bert", "BERT:latest", "test"]
    if "/audio/" in label:
        return ["ears", "EARS:latest", "test"]
    # Recorded answers of chats are played again, whatever the route.
    return ["test", "TEST:latest", "bert", *(["qwen3"] if "chat" in label else [])]


def aimed(case: Case, model: str) -> Case:
    """Name an installed model, or leave the request as it was drawn for none.

    Nothing is deleted that others need, and nothing unloaded, which would only take time.
    """
    body = cast("object", case.body)
    if not isinstance(body, dict) or not model or "delete" in case.path:
        return case
    key = {"/api/copy": "source", "/api/create": "from"}.get(case.path, "model")
    body[key] = model
    try:
        if parse_keep_alive(body.get("keep_alive")) is not None:
            body["keep_alive"] = "5m"
    except BadInput:
        pass
    return case


def check(case: Case, answer: httpx.Response | schemathesis.Response) -> None:
    """Check an answer against the document; of a stream each line, or each event."""
    case.validate_response(answer, checks=PROMISES)
    operation = operations()[case.method, case.path]
    content = resolved(operation["responses"][str(answer.status_code)]).get("content", {})
    assert content or not answer.content
    if not content and case.method != "HEAD":
        assert not content_type(answer), "nothing is of no type"
    if (lines := content.get(NDJSON)) and NDJSON in content_type(answer):
        judge = jsonschema.Draft202012Validator({**DOCUMENT, **lines["schema"]})
        for line in answer.text.splitlines():
            judge.validate(json.loads(line))


def content_type(answer: httpx.Response | schemathesis.Response) -> str:
    """The same for either client."""
    told = answer.headers.get("content-type", "")
    return told if isinstance(told, str) else told[0]
