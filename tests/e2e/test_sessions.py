"""Sessions of Codex and Claude Code go on, by the official SDKs, on real vLLM."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import openai.types.responses
import pytest

from tests.support.agent_sessions import CLAUDE, CODEX
from tests.support.daemon import Daemon
from tests.support.real_engine import MODEL
from tests.support.sdk_types import faults

pytestmark = pytest.mark.e2e


@pytest.mark.case("F5", "F11", "B8")
def test_a_session_of_codex_goes_on(real: Daemon) -> None:
    client = openai.OpenAI(base_url=f"{real.url}/v1", api_key="x", max_retries=0, timeout=300)
    body: dict[str, Any] = CODEX | {"model": MODEL, "max_output_tokens": 8}
    whole: Any = client.responses.create(**body)
    assert faults(whole.to_dict(mode="json"), openai.types.responses.Response) == []
    stream: Any = client.responses.create(**body, stream=True)
    events = [event.to_dict(mode="json") for event in stream]
    wanted = openai.types.responses.ResponseStreamEvent
    assert [one for event in events for one in faults(event, wanted)] == []
    assert events[-1]["response"]["usage"]["output_tokens"] == 8


@pytest.mark.case("F5", "F11", "B5", "K2")
def test_a_session_of_claude_code_goes_on(real: Daemon) -> None:
    client = anthropic.Anthropic(base_url=real.url, api_key="x", max_retries=0, timeout=300)
    body: dict[str, Any] = CLAUDE | {"model": MODEL, "max_tokens": 8}
    whole: Any = client.messages.create(**body)
    assert faults(whole.to_dict(mode="json"), anthropic.types.Message) == []
    stream: Any = client.messages.create(**body, stream=True)
    events = [event.to_dict(mode="json") for event in stream]
    wanted = anthropic.types.RawMessageStreamEvent
    assert [one for event in events for one in faults(event, wanted)] == []
    assert events[-1]["type"] == "message_stop"
    counted = client.messages.count_tokens(
        model=MODEL, messages=CLAUDE["messages"], system=CLAUDE["system"]
    )
    assert counted.input_tokens == whole.usage.input_tokens
