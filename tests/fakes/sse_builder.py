"""How vLLM 0.32 spells its answers, byte for byte as in recorded/. Standard library only."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

Json = dict[str, Any]

FINGERPRINT = "vllm-0.32.0-8ccbf71f"
MUST_ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant/..."
CORE_DIED = (
    '{"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root'
    ' cause.", "type": "InternalServerError", "param": null, "code": 500}}'
)


class Answer:
    """One answer of `count` tokens, then the end; the words of the text come round again."""

    failure = (CORE_DIED,)
    closing = ("[DONE]",)

    def __init__(self, *, chat: bool, body: Json, model: str, text: str, tokens: int, rate: float):
        self.chat = chat
        self.words = re.findall(r"\s*\w+|\s*[^\w\s]", text)
        wanted = tokens or len(self.words)
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or (1e9 if chat else 16)
        # The last word comes with the reason to stop; an end of its own accord comes by itself.
        self.count = int(min(wanted, limit - 1))
        self.finish = "stop" if wanted < limit else "length"
        self.last_word = "" if wanted < limit else self.words[self.count % len(self.words)]
        self._end_loops(body.get("repetition_detection"))
        self.want_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self.want_ids = body.get("return_token_ids") is True
        self.prompt_ids = list(range(prompt_tokens(body))) if self.want_ids else None
        made, asked = self.count + 1, prompt_tokens(body)
        cached: Json = {"cached_tokens": 0}
        if chat:
            cached["created_cache_tokens"] = 0
        self.usage: Json = {
            "prompt_tokens": asked,
            "total_tokens": asked + made,
            "completion_tokens": made,
            "prompt_tokens_details": cached,
        }
        self.start: Json = {
            "id": ("chatcmpl-" if chat else "cmpl-") + os.urandom(8).hex(),
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self.metrics: Json = {
            "time_to_first_token_ms": 1.5,
            "generation_time_ms": made * 1e3 / (rate or 1e5),
            "queue_time_ms": 0.01,
            "mean_itl_ms": 1e3 / (rate or 1e5),
            "tokens_per_second": rate or 1e5,
        }

    def _end_loops(self, asked: Json | None) -> None:
        """Stop once the words came round so often, where that is asked for."""
        if asked is None or len(self.words) > asked["max_pattern_size"]:
            return
        made = len(self.words) * asked["min_count"]
        if made <= self.count:
            self.count, self.finish, self.last_word = made - 1, "repetition", self.words[-1]

    def event(self, data: str) -> bytes:
        """One event as one HTTP chunk."""
        return chunk(f"data: {data}\n\n".encode())

    def beginning(self) -> list[str]:
        ids = self.prompt_ids
        if not self.chat:
            first = self._choice("", stop_reason=None, prompt_token_ids=ids, token_ids=[])
            return [self._event([first])] if ids else []
        role = {"delta": {"role": "assistant", "content": ""}}
        return [self._event([self._choice("") | role], prompt_token_ids=ids, prompt_text=None)]

    def token(self, word: str) -> str:
        more: Json = {} if self.chat else {"stop_reason": None, "prompt_token_ids": None}
        return self._event([self._choice(word, **more, token_ids=self._ids(word))])

    def _ids(self, word: str) -> list[int] | None:
        """Words are tokens from 1000 on; the end is 2."""
        known = {text: 1000 + n for n, text in enumerate(self.words)} | {"": 2}
        return [known.get(word, 3)] if self.want_ids else None

    def ending(self) -> list[str]:
        more: Json = {} if self.chat else {"prompt_token_ids": None}
        more["token_ids"] = self._ids(self.last_word)
        last = self._choice(self.last_word, self.finish, stop_reason=None, **more)
        if not self.want_usage:
            return [self._event([last])]
        more = {"system_fingerprint": FINGERPRINT, "metrics": self.metrics}
        return [self._event([last]), self._event([], usage=self.usage, **more)]

    def whole(self) -> bytes:
        text = "".join(self.words[n % len(self.words)] for n in range(self.count)) + self.last_word
        said: Json = (
            {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        )
        if self.chat:
            absent = ("refusal", "annotations", "audio", "function_call", "reasoning")
            said["message"] |= dict.fromkeys(absent)
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": self.finish}
        choice |= {"stop_reason": None, "token_ids": None, "routed_experts": None}
        more = {"service_tier": None, "system_fingerprint": FINGERPRINT}
        metrics = self.metrics | {"speculative_decoding": None}
        return dump(
            self.start | {"choices": [choice], **more, "usage": self.usage, "metrics": metrics}
        )

    def _event(self, choices: list[Json], **more: object) -> str:
        start = self.start | {"object": "chat.completion.chunk"} if self.chat else self.start
        return dump(start | {"choices": choices} | more).decode()

    def _choice(self, text: str, finish: str | None = None, **more: object) -> Json:
        said: Json = {"delta": {"content": text}} if self.chat else {"text": text}
        return {"index": 0, **said, "logprobs": None, "finish_reason": finish, **more}


def prompt_tokens(body: Json) -> int:
    prompt = body.get("prompt") or " ".join(str(m.get("content")) for m in body.get("messages", []))
    return len(prompt.split()) if isinstance(prompt, str) else len(prompt)


def alternates(body: Json) -> bool:
    """Whether a template like Mistral's takes the conversation; calls and results are no turns."""
    turns = [
        message["role"]
        for message in body.get("messages", [])
        if message["role"] in ("user", "assistant") and not message.get("tool_calls")
    ]
    return turns == [("user", "assistant")[at % 2] for at in range(len(turns))]


def models(model: str, root: str, context: int) -> bytes:
    card = {"id": model, "object": "model", "created": 1795406431, "owned_by": "vllm"}
    card |= {"root": root, "parent": None, "max_model_len": context, "permission": []}
    return dump({"object": "list", "data": [card]})


def metrics(model: str, *, running: int, prompt: int, generated: int) -> bytes:
    label = f'{{engine="0",model_name="{model}"}}'
    return (
        f"# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
        f"# TYPE vllm:num_requests_running gauge\n"
        f"vllm:num_requests_running{label} {float(running)}\n"
        f"vllm:num_requests_waiting{label} 0.0\n"
        f"vllm:kv_cache_usage_perc{label} 0.0\n"
        f"vllm:prompt_tokens_total{label} {float(prompt)}\n"
        f"vllm:generation_tokens_total{label} {float(generated)}\n"
    ).encode()


def tokenized(body: Json, context: int) -> bytes:
    tokens = list(range(prompt_tokens(body)))
    more = {"tokens": tokens, "token_strs": None}
    return dump({"count": len(tokens), "max_model_len": context, **more})


def architectures(folder: str) -> str:
    """What config.json in `folder` says the model is; nothing where there is none."""
    try:
        with open(f"{folder}/config.json") as file:
            return " ".join(json.load(file).get("architectures", ()))
    except OSError:
        return ""


def heard(head: str, body: bytes) -> Iterator[bytes]:
    """What a model that hears says: the form it was sent, as text. From vLLM's source."""
    boundary = re.search(r"boundary=(\S+)", head)
    assert boundary
    part = rf'name="([^"]*)"[^\r]*\r\n(?:[^\r]+\r\n)*\r\n(.*?)\r\n--{boundary[1]}'
    parts = dict(re.findall(part, body.decode(errors="replace"), re.DOTALL))
    text = " ".join(f"{name}={value}" for name, value in parts.items())
    if parts.get("stream") != "true":
        yield reply(200, dump({"text": text, "usage": {"type": "duration", "seconds": 1}}))
        return
    start: Json = {"id": "trsc-1", "object": "transcription.chunk", "created": 1}
    start["model"] = parts["model"]
    choice = {"delta": {"content": text}, "finish_reason": "stop", "stop_reason": None}
    yield stream_head()
    yield chunk(b"data: %b\n\n" % dump(start | {"choices": [choice]}))
    yield chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def detokenized(body: Json) -> bytes:
    return dump({"prompt": "".join(f"<{token}>" for token in body["tokens"])})


def dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def head(status: int) -> bytes:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
    phrase = HTTPStatus(status).phrase
    return f"HTTP/1.1 {status} {phrase}\r\ndate: {date}\r\nserver: uvicorn\r\n".encode()


def stream_head() -> bytes:
    kind = b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    return head(200) + kind


def reply(status: int, body: bytes, kind: str = "application/json") -> bytes:
    length = f"content-length: {len(body)}\r\ncontent-type: {kind}\r\n\r\n"
    return head(status) + length.encode() + body


def refusal(status: int, message: str, kind: str, param: str | None = None) -> bytes:
    problem = {"message": message, "type": kind, "param": param, "code": status}
    return reply(status, dump({"error": problem}))
