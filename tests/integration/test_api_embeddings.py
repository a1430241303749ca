"""Vectors and scores, request by request, against a running gateway with the scripted engine."""

from __future__ import annotations

import base64
import json
import math
import os
import signal
import struct
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai.types import CreateEmbeddingResponse

from tests.fakes.pooling import SIZE
from tests.support.checkpoints import BERT, write_checkpoint
from tests.support.daemon import Daemon, daemon, fake_config, fake_home, until
from tests.support.sdk_types import faults
from tests.support.vectors import numbered
from vllamad.host.log_events import LogEvent

pytestmark = pytest.mark.integration

JSON = "application/json; charset=utf-8"
NOT_SUPPORTED = "This server does not support embeddings. Start it with `--embeddings`"
TOO_LONG = "the input length exceeds the context length"
SCENARIOS = {
    "broken": {"vector": [1.0, math.nan]},
    "pair": {"vector": [0.6, -0.8]},
    "ranker": {"pools": ["/pooling", "/rerank", "/score"]},
    "slow": {"late": 30.0},
}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    """A daemon with `bert` and its odd relatives, and `test`, which completes text."""
    home = fake_home(tmp_path_factory.mktemp("embed"), ["test"])
    more = ""
    for name in ("bert", *SCENARIOS):
        folder = write_checkpoint(
            home / name, BERT, modules_json="[]", sentence_bert_config_json={"max_seq_length": 256}
        )
        more += f'[model.{name}]\npath = "{folder}"\n'
    config = fake_config(scenarios=SCENARIOS, more=more)
    with daemon(home, config=config) as running:
        yield running


def post(one: Daemon, path: str, body: Any) -> tuple[int, Any]:
    answer = one.http.post(path, content=json.dumps(body))
    return answer.status_code, answer.json()


def embed(one: Daemon, texts: Any, **more: Any) -> Any:
    status, answer = post(one, "/api/embed", {"model": "bert", "input": texts, **more})
    assert status == 200, answer
    return answer


def likeness(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def slow(one: Daemon) -> dict[str, Any]:
    """The worker that takes its time."""
    [worker] = [worker for worker in one.workers() if worker["model"] == "slow:latest"]
    return worker


@pytest.mark.parametrize("asked", [{"input": []}, {"input": ""}, {"input": None}, {}])
@pytest.mark.vector(51)
def test_51_nothing_to_embed_only_loads(one: Daemon, asked: dict[str, Any]) -> None:
    answer = one.http.post("/api/embed", content=json.dumps({"model": "bert", **asked}))
    assert answer.text == '{"model":"bert","embeddings":[]}'
    assert answer.headers["content-type"] == JSON
    assert "bert:latest" in [worker["model"] for worker in one.workers()]


@pytest.mark.vector(52)
def test_52_each_text_has_a_vector_of_length_one_in_its_place(one: Daemon) -> None:
    answer = embed(one, ["a red cat", "the blue sea", "a red cat"])
    assert list(answer) == [
        "model", "embeddings", "total_duration", "load_duration", "prompt_eval_count",
    ]  # fmt: skip
    assert all(isinstance(value, int) for value in list(answer.values())[2:])
    assert answer["prompt_eval_count"] == 15
    first, second, third = answer["embeddings"]
    assert len(first) == SIZE
    assert first == third != second
    assert all(math.isclose(math.hypot(*v), 1, abs_tol=1e-6) for v in answer["embeddings"])


@pytest.mark.parametrize(("dimensions", "length"), [(4, 4), (0, SIZE), (99, SIZE), (-1, SIZE)])
@pytest.mark.vector(52)
def test_52_fewer_dimensions_have_length_one_too(one: Daemon, dimensions: int, length: int) -> None:
    [vector] = embed(one, "a b c d e f g h", dimensions=dimensions)["embeddings"]
    assert len(vector) == length
    assert math.isclose(math.hypot(*vector), 1, abs_tol=1e-6)


def test_an_empty_text_in_a_list_is_a_text(one: Daemon) -> None:
    assert len(embed(one, [""])["embeddings"]) == 1


def test_texts_with_words_in_common_are_alike(one: Daemon) -> None:
    first, near, far = embed(one, ["the red cat", "the red dog", "seven ships sail"])["embeddings"]
    assert likeness(first, near) > likeness(first, far)


def test_more_vectors_than_the_loop_has_time_for_come_back_in_order(one: Daemon) -> None:
    texts = [f"word{number}" for number in range(400)]
    vectors = embed(one, texts)["embeddings"]
    assert len(vectors) == 400
    for index in (0, 199, 399):
        assert vectors[index] == embed(one, texts[index])["embeddings"][0]


@pytest.mark.vector(53)
def test_53_a_text_too_long_is_cut_unless_it_must_not_be(one: Daemon) -> None:
    long = "word " * 300
    assert embed(one, long)["prompt_eval_count"] == 256
    body = {"model": "bert", "input": [long, "short"], "truncate": False}
    assert post(one, "/api/embed", body) == (400, {"error": TOO_LONG})
    assert post(one, "/api/embeddings", {"model": "bert", "prompt": long}) == (
        500,
        {"error": TOO_LONG},
    )


@pytest.mark.vector(54)
def test_54_the_older_form_gives_one_vector_and_no_more(one: Daemon) -> None:
    assert post(one, "/api/embeddings", {"model": "bert", "prompt": ""}) == (200, {"embedding": []})
    status, answer = post(one, "/api/embeddings", {"model": "bert", "prompt": "a a", "input": "x"})
    assert status == 200
    assert list(answer) == ["embedding"]
    assert answer["embedding"] == pytest.approx(embed(one, "a a")["embeddings"][0], abs=1e-7)


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    numbered(
        (0, "/api/embed", {}, 404, "model '' not found"),
        (0, "/api/embed", {"model": "a b"}, 400, "invalid model name"),
        (0, "/api/embed", {"model": "a b", "input": 1}, 400, "invalid model name"),
        # the input's type is looked at before the model is looked for
        (51, "/api/embed", {"model": "nope", "input": [1]}, 400, "invalid input type"),
        (51, "/api/embed", {"model": "bert", "input": {}}, 400, "invalid input type"),
        (51, "/api/embed", {"model": "bert", "input": [1]}, 400, "invalid input type"),
        (22, "/api/embed", {"model": "nope", "input": "a"}, 404,
         'model "nope" not found, try pulling it first'),
        (0, "/api/embed", {"model": "bert:cloud", "input": "a"}, 403,
         "ollama cloud is disabled: remote model is unavailable"),
        (0, "/api/embed", {"model": "bert", "input": "a", "options": {"num_ctx": "8"}}, 500,
         'option "num_ctx" must be of type integer'),
        (0, "/api/embed", {"model": "bert", "truncate": "no"}, 400,
         "json: cannot unmarshal string into Go struct field EmbedRequest.truncate of type bool"),
        (0, "/api/embed", {"model": "bert", "keep_alive": "1d"}, 400,
         'time: unknown unit "d" in duration "1d"'),
        (0, "/api/embed", {"model": "test", "input": "a"}, 501, NOT_SUPPORTED),
        (0, "/api/embed", {"model": "broken", "input": "a"}, 400,
         "embedding contains NaN or Inf values"),
        (0, "/api/embed", {"model": "ranker", "input": "a"}, 400,
         "this model does not support requests of this kind"),
        (23, "/api/embeddings", {}, 400, "model is required"),
        (0, "/api/embeddings", {"model": "a b"}, 400, "invalid model name"),
        (0, "/api/embeddings", {"model": "nope", "prompt": "a"}, 404,
         'model "nope" not found, try pulling it first'),
        (0, "/api/embeddings", {"model": "test", "prompt": "a"}, 500, NOT_SUPPORTED),
        (0, "/api/embeddings", {"model": "broken", "prompt": "a"}, 500,
         "embedding contains NaN or Inf values"),
        (33, "/api/chat", {"model": "bert"}, 400, '"bert" does not support chat'),
        (33, "/api/generate", {"model": "bert"}, 400, '"bert" does not support generate'),
        (33, "/api/chat", {"model": "bert", "messages": [{"role": "user", "content": "a"}]}, 400,
         '"bert" does not support chat'),
        (33, "/api/generate", {"model": "bert", "prompt": "a"}, 400,
         '"bert" does not support generate'),
    ),
)  # fmt: skip
def test_refusals_have_ollamas_status_and_words(
    one: Daemon, path: str, body: object, status: int, text: str
) -> None:
    assert post(one, path, body) == (status, {"error": text})


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    numbered(
        (0, "/v1/embeddings", {"model": "nope", "input": "a"}, 404, "model 'nope' not found"),
        (0, "/v1/embeddings", {"input": "a"}, 400, "model is required"),
        (0, "/v1/embeddings", {"model": "bert"}, 400, "invalid input"),
        (0, "/v1/embeddings", {"model": "bert", "input": 1}, 400, "invalid input type"),
        (68, "/v1/embeddings", {"model": "bert", "input": "a", "encoding_format": "hex"}, 400,
         "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64']."),
        (0, "/v1/embeddings", {"model": "bert", "input": "word " * 300}, 400, TOO_LONG),
        (0, "/v1/embeddings", {"model": "test", "input": "a"}, 400,
         '"test" does not support embeddings'),
        (0, "/v1/embeddings", {"model": "broken", "input": "a"}, 400,
         "embedding contains NaN or Inf values"),
        (0, "/v1/chat/completions", {"model": "bert", "messages": [{"role": "user"}]}, 400,
         '"bert" does not support chat'),
        (0, "/rerank", {"model": "test", "query": "a", "documents": ["b"]}, 400,
         '"test" does not support reranking'),
        (0, "/v2/rerank", {"model": "nope", "query": "a", "documents": ["b"]}, 404,
         "model 'nope' not found"),
        (0, "/v1/rerank", {"model": "bert", "query": "a"}, 400,
         "documents must be a list of texts"),
        (0, "/score", {"model": "test", "text_1": "a", "text_2": "b"}, 400,
         '"test" does not support scoring'),
    ),
)  # fmt: skip
def test_refusals_of_v1_have_its_envelope(
    one: Daemon, path: str, body: object, status: int, text: str
) -> None:
    told, answer = post(one, path, body)
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    assert (told, answer) == (
        status,
        {"error": {"message": text, "type": kind, "param": None, "code": None}},
    )


@pytest.mark.parametrize(
    "neutral",
    [
        {"options": None}, {"options": {}}, {"options": {"temperature": None}},
        {"options": {"bogus": 1}}, {"keep_alive": None}, {"truncate": None}, {"dimensions": None},
        {"prompt": "ignored"},
    ],
)  # fmt: skip
def test_neutral_values_change_nothing(one: Daemon, neutral: dict[str, Any]) -> None:
    assert embed(one, "a", **neutral)["embeddings"] == embed(one, "a")["embeddings"]


def test_the_model_is_echoed_as_it_was_sent(one: Daemon) -> None:
    for name in ("BERT", "bert:latest", "bert:local"):
        assert post(one, "/api/embed", {"model": name, "input": "a"})[1]["model"] == name
        assert post(one, "/v1/embeddings", {"model": name, "input": "a"})[1]["model"] == name


def test_keep_alive_0_lets_the_model_go_after_the_answer(one: Daemon) -> None:
    embed(one, "a", keep_alive=0)
    until(lambda: "bert:latest" not in [worker["model"] for worker in one.workers()])


@pytest.mark.vector(68)
def test_68_openai_gets_floats_or_base64_of_the_same_vectors(one: Daemon) -> None:
    status, plain = post(one, "/v1/embeddings", {"model": "bert", "input": ["a b", "c"]})
    assert status == 200
    assert list(plain) == ["object", "data", "model", "usage"]
    assert [list(entry) for entry in plain["data"]] == [["object", "embedding", "index"]] * 2
    assert plain["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    wanted = {"model": "bert", "input": ["a b", "c"], "encoding_format": "base64"}
    for entry, other in zip(
        plain["data"], post(one, "/v1/embeddings", wanted)[1]["data"], strict=True
    ):
        packed = base64.b64decode(other["embedding"])
        assert struct.unpack(f"<{SIZE}f", packed) == pytest.approx(entry["embedding"], abs=1e-7)
        assert math.isclose(math.hypot(*entry["embedding"]), 1, abs_tol=1e-6)


@pytest.mark.vector(68)
def test_68_base64_is_of_small_floats_little_end_first(one: Daemon) -> None:
    body = {"model": "pair", "input": "x", "encoding_format": "BASE64"}
    [entry] = post(one, "/v1/embeddings", body)[1]["data"]
    assert entry["embedding"] == "mpkZP83MTL8="


TOKENS = [[101, 7592, 102], [101, 102]]


@pytest.mark.case("F10")
@pytest.mark.parametrize("tokens", [TOKENS, TOKENS[0]])
def test_token_ids_are_refused_with_the_clients_setting_to_change(one: Daemon, tokens: Any) -> None:
    status, answer = post(one, "/v1/embeddings", {"model": "bert", "input": tokens})
    assert status == 400
    assert answer["error"]["message"] == (
        "cannot take token ids, which may be of another model's tokenizer: send text "
        "(OpenAIEmbeddings of LangChain: check_embedding_ctx_length=False)"
    )


@pytest.mark.case("F10")
def test_a_setting_allows_token_ids(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "bert", BERT, modules_json="[]")
    config = fake_config(more=f'[server]\ntoken_inputs = true\n[model.bert]\npath = "{folder}"')
    with daemon(fake_home(tmp_path, []), config=config) as free:
        body = {"model": "bert", "input": TOKENS, "dimensions": 4}
        status, answer = post(free, "/v1/embeddings", body)
    assert status == 200
    assert [len(entry["embedding"]) for entry in answer["data"]] == [4, 4]
    assert answer["usage"]["prompt_tokens"] == 5


def test_openai_takes_dimensions(one: Daemon) -> None:
    _, answer = post(one, "/v1/embeddings", {"model": "bert", "input": "a b", "dimensions": 4})
    assert [len(entry["embedding"]) for entry in answer["data"]] == [4]


@pytest.mark.case("B2")
def test_num_ctx_is_the_limit_of_both_routes(one: Daemon) -> None:
    long, options = "a red cat by the sea", {"num_ctx": 5}
    cut = embed(one, long, options=options)
    assert cut["prompt_eval_count"] == 5
    assert embed(one, [long, "a", long], options=options)["prompt_eval_count"] == 5 + 3 + 5
    body = {"model": "bert", "prompt": long, "options": options}
    status, answer = post(one, "/api/embeddings", body)
    assert status == 200
    assert answer["embedding"] == pytest.approx(cut["embeddings"][0], abs=1e-7)
    whole = post(one, "/api/embeddings", body | {"options": {}})[1]["embedding"]
    assert whole != answer["embedding"]


@pytest.mark.case("B2")
@pytest.mark.parametrize(
    ("texts", "fits"),
    [
        ("a b c d e f", True),
        ("a b c d e f g", False),
        (["a", "a b c d e f g"], False),
        (["a b c d e f", "averylongwordofasinglepiece"], True),
    ],
)
def test_truncate_false_refuses_what_num_ctx_does_not_hold(
    one: Daemon, texts: Any, fits: bool
) -> None:
    body = {"model": "bert", "input": texts, "truncate": False, "options": {"num_ctx": 8}}
    status, answer = post(one, "/api/embed", body)
    assert (status == 200) == fits
    if not fits:
        assert (status, answer) == (400, {"error": TOO_LONG})


@pytest.mark.case("B2")
@pytest.mark.parametrize("num_ctx", [0, -1, 256, 100_000, None])
def test_a_num_ctx_that_limits_nothing_changes_nothing(one: Daemon, num_ctx: int | None) -> None:
    options = {"num_ctx": num_ctx}
    assert embed(one, "word " * 300, options=options)["prompt_eval_count"] == 256
    body = {"model": "bert", "input": "word " * 300, "truncate": False, "options": options}
    assert post(one, "/api/embed", body) == (400, {"error": TOO_LONG})


@pytest.mark.case("B2")
def test_a_models_own_num_ctx_is_its_limit_on_each_route(one: Daemon) -> None:
    made = {"model": "short", "from": "bert", "parameters": {"num_ctx": 4}, "stream": False}
    assert post(one, "/api/create", made)[0] == 200
    status, answer = post(one, "/api/embed", {"model": "short", "input": "a b c d"})
    assert (status, answer["prompt_eval_count"]) == (200, 4)
    body = {"model": "short", "input": "a b c d"}
    assert post(one, "/v1/embeddings", body)[1]["error"]["message"] == TOO_LONG
    status, answer = post(one, "/v1/embeddings", body | {"truncate_prompt_tokens": 200})
    assert (status, answer["usage"]["prompt_tokens"]) == (200, 4)


def test_openai_cuts_only_who_asks_for_it(one: Daemon) -> None:
    body = {"model": "bert", "input": "word " * 300, "truncate_prompt_tokens": -1}
    assert post(one, "/v1/embeddings", body)[1]["usage"]["prompt_tokens"] == 256


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize("model", ["bert", "RANKER"])
def test_rerank_puts_the_likest_first(one: Daemon, path: str, model: str) -> None:
    body = {"model": model, "query": "red cat", "documents": ["blue sea", {"text": "a red cat"}]}
    status, answer = post(one, path, body)
    assert status == 200
    assert answer["model"] == model
    assert [result["index"] for result in answer["results"]] == [1, 0]
    assert answer["results"][0]["document"]["text"] == "a red cat"


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_score_compares_texts(one: Daemon, path: str) -> None:
    body = {"model": "bert", "text_1": "red cat", "text_2": ["a red cat", "blue sea"]}
    status, answer = post(one, path, body)
    assert status == 200
    near, far = (entry["score"] for entry in answer["data"])
    assert near > far
    assert answer["model"] == "bert"


def test_a_client_that_leaves_gives_its_lease_back(one: Daemon) -> None:
    post(one, "/api/embed", {"model": "slow", "input": []})
    with pytest.raises(httpx.ReadTimeout):
        one.http.post("/api/embed", json={"model": "slow", "input": "a"}, timeout=0.3)
    until(lambda: slow(one)["leases"] == 0, limit=10)


def test_an_engine_that_dies_over_its_work_is_told(one: Daemon) -> None:
    post(one, "/api/embed", {"model": "slow", "input": []})
    told: list[tuple[int, Any]] = []
    asking = threading.Thread(
        target=lambda: told.append(post(one, "/api/embed", {"model": "slow", "input": "a"}))
    )
    asking.start()
    until(lambda: slow(one)["leases"])
    os.kill(slow(one)["pid"], signal.SIGKILL)
    asking.join(20)
    [(status, answer)] = told
    assert status == 500
    assert "error" in answer
    assert post(one, "/api/embed", {"model": "slow", "input": []})[0] == 200


def test_tokens_are_logged_and_texts_are_not(one: Daemon) -> None:
    embed(one, "averysecretword")
    fields = {"path": "/api/embed", "model": "bert:latest", "status": 200, "prompt_tokens": 3}
    until(lambda: one.logged(LogEvent.REQUEST_DONE, **fields))
    assert "averysecretword" not in one.text()


def test_an_embedding_model_is_shown_as_one(one: Daemon) -> None:
    _, shown = post(one, "/api/show", {"model": "bert"})
    assert shown["capabilities"] == ["embedding"]
    assert shown["model_info"]["bert.context_length"] == 256
    assert "template" not in shown


@pytest.mark.case("F11", "B9")
def test_the_reply_is_of_the_official_sdks_type_and_keys_count_in_any_case(one: Daemon) -> None:
    status, answer = post(one, "/v1/embeddings", {"MODEL": "bert", "Input": ["a", "b"]})
    assert status == 200
    assert faults(answer, CreateEmbeddingResponse) == []
    assert len(answer["data"]) == 2
