#!/usr/bin/env python3
"""A scripted vLLM: its routes, log lines, processes and bad habits, without a model.

Started like vLLM (`--uds PATH --served-model-name NAME`, other words are ignored); FAKE_ENGINE in
the environment is a JSON object of what differs from SCENARIO. Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import signal
import socket
import sys
import time
from math import inf
from typing import Any

sys.path.insert(0, os.path.abspath(__file__).rsplit("/", 3)[0])

from tests.fakes import named_answers, pooling, refusing, sse_builder
from tests.fakes.clock_steps import Loop, Steps
from tests.fakes.named_answers import NamedAnswer
from tests.fakes.sse_builder import Answer, Json, refusal, reply

SCENARIO: Json = {
    "load": 0.0,  # seconds until it is ready
    "log": [],  # lines it writes at the end of the load
    "exit": None,  # exit status instead of getting ready
    "admits": 0,  # tokens: a longer --max-model-len is refused, as vLLM does
    "ignore_term": False,
    "children": [],  # names of processes it forks; the death of any of them ends it
    "orphan": False,  # leave a process in a session of its own
    "shared": False,  # map shared memory, and never remove it
    "flood": 0.0,  # seconds of writing its log as fast as it can
    "text": "The capital of France is Paris.",
    "echoes": False,  # its text is the request that it received
    "tokens": 0,  # tokens of an answer; 0: the words of the text
    "ends_loops": False,  # hears repetition_detection; elsewhere tokens that come round go on
    "rate": 0.0,  # tokens a second for each stream; 0: flat out
    "stamped": False,  # each token is the time of its making (monotonic, ns); streams go in step
    "late": 0.0,  # seconds before an answer begins
    "hold": "",  # while this file exists, a stream waits before its last token
    "status": 200,  # refuse generation with this status
    "strict": False,  # its template insists on turns of user and assistant, the user's first
    "refusal": "",  # refuse each request with this text
    "pools": pooling.PATHS,  # routes of an embedding model; one that ranks lacks some
    "vector": None,  # of every text, in place of its own
    "replay": "",  # answer streams with the events of this recorded file
    # What happens instead of, or with, token number N of a stream, counted from 0:
    "stall_after": None,  # nothing more comes
    "cut_after": None,  # the connection closes
    "die_after": None,  # the leader is gone
    "kill_core_after": None,  # the first child is gone, and the leader follows in its own time
    "error_after": None,  # an error object, and the end
    "bad_utf8_after": None,  # the token has a byte that is no UTF-8
    "core_notice": 4.5,  # seconds that streams stay silent after the core's death
}
TICK = 0.01  # seconds between two looks at the file that holds a stream
BATCH = 16  # stamped tokens a write, flat out
PLAN: Json = SCENARIO | json.loads(os.environ.get("FAKE_ENGINE", "{}"))
LOADING = (
    "vLLM server version 0.32.0",
    "Resolved architecture: LlamaForCausalLM",
    "Starting to load model MODEL...",
    "Loading weights took 0.17 seconds",
    "CPU KV cache size: 93,184 tokens, Maximum concurrency for 2,048 tokens per request: 45.50x",
    "init engine (profile, create kv cache, warmup model) took 0.38 s",
)


# vLLM's own words.
NOT_ADMITTED = (
    "(EngineCore pid=7) ERROR 11-23 04:00:05 [core.py:402] ValueError: To serve at least one"
    " request with the model's max seq len (%d), (1.00 GiB KV cache is needed, which is larger than"
    " the available KV cache memory (0.99 GiB). Based on the available memory, the estimated"
    " maximum model length is %d. Try increasing `gpu_memory_utilization` (which also controls CPU"
    " memory on the CPU backend) or decreasing `max_model_len` when initializing the engine."
)


def flag(name: str, default: str = "") -> str:
    words = " ".join(sys.argv)
    found = re.search(rf"--{name}[ =](\S+)", words)
    return found[1] if found else default


MODEL = flag("served-model-name", "fake")
POOLING = flag("runner") == "pooling"
ONLY_HEARS = "Whisper" in sse_builder.architectures(flag("model"))
CONTEXT = int(flag("max-model-len", "256" if POOLING else "2048"))


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def log(message: str, level: str = "INFO") -> None:
    stamp = time.strftime("%m-%d %H:%M:%S")
    say(f"(APIServer pid={os.getpid()}) {level} {stamp} [fake.py:1] {message}")


class Family:
    """The processes of this engine."""

    def __init__(self) -> None:
        self.died_at = inf  # when the first child did
        self.pids = [self.fork(name) for name in PLAN["children"]]
        if PLAN["orphan"]:
            os.waitpid(self.fork("VLLM::Stray", escape=True), 0)
        if PLAN["flood"]:
            self.fork("VLLM::Flood", flood=PLAN["flood"])

    def fork(self, name: str, *, escape: bool = False, flood: float = 0.0) -> int:
        pid = os.fork()
        if pid:
            return pid
        if escape:
            os.setsid()
            if os.fork():
                os._exit(0)
        ctypes.CDLL(None).prctl(15, name.encode())  # PR_SET_NAME
        until = time.monotonic() + flood
        while time.monotonic() < until:
            os.write(1, b"x" * 199 + b"\n")
        while True:
            signal.pause()

    def leave(self, *_: object) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        say("INFO:     Application shutdown complete.")
        os._exit(0)

    def bury(self) -> None:
        for pid in self.pids:
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.pids.remove(pid)
                self.died_at = min(self.died_at, time.monotonic())
                log("AsyncLLM output_handler failed.", "ERROR")
                return self.bury()

    def end(self) -> float:
        """When the leader leaves because of them."""
        return self.died_at + PLAN["core_notice"] + 0.4


class Engine:
    """What it answers."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.running = self.asked = self.made = 0

    def answer(self, head: str, body: bytes) -> Steps:
        method, path, _ = head.split(" ", 2)
        match path:
            case "/health":
                yield reply(200 if self.family.died_at == inf else 503, b"")
            case "/version":
                yield reply(200, b'{"version":"0.32.0"}')
            case "/v1/models":
                yield reply(200, sse_builder.models(MODEL, flag("model"), CONTEXT))
            case "/metrics":
                counts = {"running": self.running, "prompt": self.asked, "generated": self.made}
                yield reply(200, sse_builder.metrics(MODEL, **counts), "text/plain; version=0.0.4")
            case _ if POOLING and path in (*PLAN["pools"], "/tokenize"):
                yield from self.model_answer(method, path, head, body)
            case _ if POOLING:
                yield reply(404, b'{"detail":"Not Found"}')
            case "/v1/audio/transcriptions" | "/v1/audio/translations":
                yield from sse_builder.heard(head, body)
            case _ if ONLY_HEARS:
                yield reply(404, b'{"detail":"Not Found"}')
            case "/detokenize":
                yield from self.model_answer(method, path, head, body)
            case "/tokenize" | "/v1/chat/completions" | "/v1/completions" | "/v1/responses":
                yield from self.model_answer(method, path, head, body)
            case "/v1/messages" | "/v1/messages/count_tokens":
                yield from self.model_answer(method, path, head, body)
            case _:
                yield reply(404, b'{"detail":"Not Found"}')

    def model_answer(self, method: str, path: str, head: str, body: bytes) -> Steps:
        request: Any = {}
        if method != "POST":
            yield reply(405, b'{"detail":"Method Not Allowed"}')
        elif not re.search(r"(?i)\ncontent-type: *application/json", head):
            why = (
                "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
            )
            yield refusal(400, why, "Bad Request")
        elif (request := json.loads(body)).get("model", MODEL) not in (MODEL, ""):
            why = f"The model `{request['model']}` does not exist. Valid aliases: {MODEL}."
            yield refusal(404, why, "NotFoundError", "model")
        elif request.get("suffix"):
            why = "suffix is only supported for models with FIM completion rendering"
            yield refusal(400, why, "BadRequestError")
        elif PLAN["strict"] and not sse_builder.alternates(request):
            yield refusal(400, sse_builder.MUST_ALTERNATE, "BadRequestError")
        elif path == "/tokenize":
            tokenized = pooling.tokenized if POOLING else sse_builder.tokenized
            yield reply(200, tokenized(request, CONTEXT))
        elif path == "/detokenize":
            yield reply(200, sse_builder.detokenized(request))
        elif path == "/v1/messages/count_tokens":
            yield reply(200, named_answers.count(request))
        elif PLAN["status"] != 200:
            why = "The engine is currently busy and cannot accept new requests."
            yield refusal(PLAN["status"], why, "Service Unavailable")
        elif POOLING:
            if PLAN["late"] and path != "/pooling":  # where it is asked whether it is ready
                yield time.monotonic() + PLAN["late"]
            yield pooled(path, request)
        else:
            yield from self.generation(path, request)
            say(f'INFO:      - "POST {path} HTTP/1.1" 200 OK')

    def generation(self, path: str, request: Json) -> Steps:
        why = (PLAN["refusal"], None) if PLAN["refusal"] else refusing.refused(path, request)
        if why and request.get("prompt") != "ready?":
            yield refusal(400, why[0], "BadRequestError", why[1])
            return
        wishes = {name: PLAN[name] for name in ("text", "tokens", "rate")}
        if PLAN["echoes"]:
            wishes["text"] = sse_builder.dump(request).decode()
        try:
            self.asked += sse_builder.prompt_tokens(request)
            if path in named_answers.PATHS:
                answer = NamedAnswer(path, body=request, model=MODEL, text=wishes["text"])
            else:
                chat = path == "/v1/chat/completions"
                if not PLAN["ends_loops"]:
                    request.pop("repetition_detection", None)
                answer = Answer(chat=chat, body=request, model=MODEL, **wishes)
        except (TypeError, ValueError, AttributeError):  # pydantic says it better
            yield refusal(400, "1 validation error", "Bad Request")
            return
        self.running += 1
        try:
            if PLAN["late"]:
                yield time.monotonic() + PLAN["late"]
            if request.get("stream"):
                yield sse_builder.stream_head()
                yield from recorded() if PLAN["replay"] else self.events(answer)
                yield b"0\r\n\r\n"
            else:
                yield from self.whole(answer)
        finally:
            self.running -= 1

    def whole(self, answer: Answer | NamedAnswer) -> Steps:
        if PLAN["rate"]:
            yield time.monotonic() + answer.count / PLAN["rate"]
        self.made += answer.count + 1
        dead = self.family.died_at < inf
        yield reply(500, sse_builder.CORE_DIED.encode()) if dead else reply(200, answer.whole())

    def events(self, answer: Answer | NamedAnswer) -> Steps:
        yield from map(answer.event, answer.beginning())
        if PLAN["stamped"]:
            yield from self.stamped(answer)
            yield from map(answer.event, [*answer.ending(), *answer.closing])
            return
        words = [answer.event(answer.token(word)) for word in answer.words]
        faults = {PLAN[name]: name for name in PLAN if name.endswith("_after")}
        due = time.monotonic()
        for number in range(answer.count):
            step = words[number % len(words)]
            while number == answer.count - 1 and PLAN["hold"] and os.path.exists(PLAN["hold"]):
                yield time.monotonic() + TICK
            if number in faults:
                yield from self.misbehave(faults[number])
                if faults[number] == "bad_utf8_after":
                    step = sse_builder.chunk(
                        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n'
                    )
            if self.family.died_at < inf:
                yield self.family.died_at + PLAN["core_notice"]
            if self.family.died_at < inf or faults.get(number) == "error_after":
                yield from map(answer.event, answer.failure)
                if not answer.failure:
                    yield None
                break
            self.made += 1
            yield step
            if PLAN["rate"]:
                due += 1 / PLAN["rate"]
                yield due
        else:
            self.made += 1
            yield from map(answer.event, answer.ending())
        yield from map(answer.event, answer.closing)

    def stamped(self, answer: Answer | NamedAnswer) -> Steps:
        """All streams at once, as with the steps of a real engine; flat out many a write."""
        hole = "@" * 20
        before, _, after = answer.event(answer.token(hole)).partition(hole.encode())
        rate, left = PLAN["rate"], answer.count
        step = int(time.monotonic() * rate)
        while left:
            tokens = 1 if rate else min(left, BATCH)
            left -= tokens
            self.made += tokens
            yield (before + b"t%019d" % time.monotonic_ns() + after) * tokens
            if rate:
                step += 1
                yield step / rate

    def misbehave(self, fault: str) -> Steps:
        match fault:
            case "stall_after":
                yield inf
            case "cut_after":
                yield None
            case "die_after":
                os._exit(1)
            case "kill_core_after":
                os.kill(self.family.pids[0], signal.SIGKILL)
                os.waitid(os.P_PID, self.family.pids[0], os.WEXITED | os.WNOWAIT)
                self.family.bury()
            case _:
                pass


def pooled(path: str, request: Json) -> bytes:
    vector: list[float] | None = PLAN["vector"]
    try:
        return pooling.answer(path, request, model=MODEL, context=CONTEXT, vector=vector)
    except (TypeError, ValueError, AttributeError):  # pydantic says it better
        return refusal(400, "1 validation error", "Bad Request")


def recorded() -> Steps:
    with open(PLAN["replay"], "rb") as file:
        events = file.read().strip().split(b"\n\n")
    yield from (sse_builder.chunk(event + b"\n\n") for event in events)


def share() -> mmap.mmap:
    run = flag("uds").split("/")[-4]  # tells whose it is
    with open(f"/dev/shm/psm_{run}_{os.getpid()}", "w+b") as file:
        file.truncate(4096)
        return mmap.mmap(file.fileno(), 4096)


def main() -> None:
    if PLAN["ignore_term"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(flag("uds"))  # refused until it listens, as vLLM's is while it loads
    family = Family()
    _shared = share() if PLAN["shared"] else None
    if not PLAN["ignore_term"]:
        signal.signal(signal.SIGTERM, family.leave)
    for line in LOADING:
        log(line.replace("MODEL", MODEL))
        time.sleep(PLAN["load"] / len(LOADING))
    for line in PLAN["log"]:
        say(line)
    if ONLY_HEARS and '"audio":1' not in flag("limit-mm-per-prompt"):
        say("AssertionError: Encoder-decoder models are expected to implement the multimodal")
        raise SystemExit(1)
    if 0 < PLAN["admits"] < CONTEXT:
        say(NOT_ADMITTED % (CONTEXT, PLAN["admits"]))
        raise SystemExit(1)
    if PLAN["exit"] is not None:
        raise SystemExit(PLAN["exit"])
    listener.listen(4096)
    say("INFO:     Application startup complete.")
    loop = Loop(listener, Engine(family).answer)
    wake, tell = socket.socketpair()
    tell.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell.fileno())
    loop.when_readable(wake, lambda: (wake.recv(64), family.bury()))
    family.bury()
    loop.run_until(family.end)
    os._exit(0)  # its core is dead: vLLM leaves with this status too


if __name__ == "__main__":
    main()
