"""No text of the engine reaches a client, on any route, whatever the engine and the client say."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fakes.hostile_clients import SEED
from tests.support.api_requests import HI
from tests.support.daemon import Daemon, daemon, fake_config, fake_home, until
from vllamad.host.log_events import LogEvent
from vllamad.translate.engine.refusal_texts import REFUSED
from vllamad.translate.openai import chat_fields

pytestmark = [pytest.mark.integration, pytest.mark.case("B6")]

SECRET = "what the client said"
RAW = (
    "1 validation error:\n  {'type': 'value_error', 'loc': 'body', 'input': '" + SECRET + "'}\n"
    'Traceback (most recent call last): File "/usr/lib/python3/x.py", line 1; set --enable-x of '
    "vllm (pydantic)"
)
ASKED: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": HI},
    "/api/generate": {"prompt": "hi"},
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "hi"},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 5},
}
MARKS = re.compile(
    r"'loc'|validation error|pydantic|Traceback|parameter=|vllm[ _]|VLLM_|--[a-z]|\.py\b"
    r"|body\.|Input should be|/usr/"
)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    home = fake_home(tmp_path_factory.mktemp("texts"), ["test", "raw"])
    with daemon(home, config=fake_config(scenarios={"raw": {"refusal": RAW}})) as running:
        yield running


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ASKED)
def test_an_engines_own_text_is_one_sentence_and_an_outline_in_the_log(
    one: Daemon, path: str, stream: bool
) -> None:
    answer = one.http.post(path, json=ASKED[path] | {"model": "raw", "stream": stream})
    assert answer.status_code == 400
    assert REFUSED in answer.text
    assert not MARKS.search(answer.text)
    outline = '"1 validation error: …"'
    until(lambda: one.logged(LogEvent.ENGINE_REFUSED, status=400, outline=outline))
    assert SECRET not in one.text()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(-5, 5)
    | st.sampled_from(["", "x", "auto", "required", "user", "text", "json_object", 0, 1, 2]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["type", "function", "name", "role", "content", "json_schema", "5"]),
        inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


def bodies(table: Any, start: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(sorted({*table} - {"stream", "messages"}))
    fields = st.dictionaries(names, VALUES, max_size=2)
    return fields.map(lambda some: start | {"model": "test"} | some)


@pytest.mark.parametrize(
    ("path", "table"),
    [("/v1/chat/completions", chat_fields._CHAT), ("/v1/completions", chat_fields._COMPLETION)],
)
def test_whatever_is_asked_no_mark_of_the_engine_comes_back(
    one: Daemon, path: str, table: Any
) -> None:
    seen: Counter[int] = Counter()

    @seed(SEED)
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(bodies(table, ASKED[path]))
    def ask(body: dict[str, Any]) -> None:
        answer = one.http.post(path, content=json.dumps(body).encode())
        seen[answer.status_code] += 1
        assert answer.status_code in (200, 400), answer.text
        assert REFUSED not in answer.text, "the engine was asked what we could have judged"
        assert not re.search(r"invalid value for '", answer.text), answer.text
        assert not MARKS.search(answer.text), answer.text

    ask()
    assert seen[200] > 10
    assert seen[400] > 10
