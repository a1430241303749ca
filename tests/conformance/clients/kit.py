"""What every driver shares: its features by name, run one after another, one JSON line each.

Runs in the environment of the clients, beside no code of vllamad's. A driver is started with the
URL of a server; each feature is a function that raises when its promise is not kept.
"""

from __future__ import annotations

import asyncio
import http.client
import inspect
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

URL = sys.argv[1]
MODEL = "smollm2:135m"
EMBEDDER = "all-minilm:l6-v2"
MISSING = "no-such-model:1b"
QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]
PIRATE = {"role": "system", "content": "You speak like a pirate, always and at length."}
ASK_JSON = 'Answer with the JSON object {"city": "Paris"} and nothing else.'
ENDLESS = "Write a very long story about a cat, a dog and a bird who travel around the world."
TEXTS = ["a cat sits on the mat", "a kitten rests on the rug", "the stock market fell today"]
DIMENSIONS = 384
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
PATIENCE = 5.0  # seconds until it is known that a client has come or gone
LIMIT = 120  # seconds for one feature: a hang is a failure with a name

Feature = Callable[[], object]
Judge = Callable[[Any], None]
_features: dict[str, tuple[Feature, Judge | None]] = {}


def feature(name: str, *, shows: Judge | None = None) -> Callable[[Feature], Feature]:
    """Register a call of the client, async or not, as the feature `name` of the table.

    What the call returns is judged by `shows`, else by the judge of that feature in `JUDGES`. A
    call that is the only one of its feature asserts for itself and returns nothing.
    """

    def register(run: Feature) -> Feature:
        assert name not in _features, name
        _features[name] = run, shows or JUDGES.get(name)
        return run

    return register


def drive() -> None:
    """Run everything registered and say how it went."""
    signal.signal(signal.SIGALRM, _too_long)
    for name, (run, judge) in _features.items():
        signal.alarm(LIMIT)
        problem = _problem(run, judge)
        signal.alarm(0)
        print("\n" + json.dumps({"feature": name, "problem": problem}), flush=True)


def _problem(run: Feature, judge: Judge | None) -> str:
    try:
        result = asyncio.run(run()) if inspect.iscoroutinefunction(run) else run()
        if judge is not None:
            judge(result)
    except Exception as error:  # noqa: BLE001 whatever it is, the table tells it
        frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
        ours = [frame.lineno for frame in frames if frame.filename == run.__code__.co_filename]
        where = f"line {ours[-1]}: " if ours else ""
        return f"{where}{type(error).__name__}: {error}"
    return ""


def _too_long(*_: object) -> None:
    raise TimeoutError(f"not over after {LIMIT} s")


@contextmanager
def refused(kind: type[Exception], *words: str, status: int | None = None) -> Generator[None]:
    """What is inside must raise `kind`, with `words` in its text and `status` as its status."""
    try:
        yield
    except kind as error:
        text = str(error)
        missing = [word for word in words if word not in text]
        assert not missing, f"{text!r} does not say {missing}"
        told = getattr(error, "status_code", status)
        assert status is None or told == status, f"status {told}, not {status}: {text}"
    else:
        raise AssertionError(f"no {kind.__name__} was raised")


def is_served() -> None:
    """An answer is being made, or soon will be."""
    _wait(lambda: _leases() > 0, "nothing is being answered")


def is_let_go() -> None:
    """No answer is being made any more: the engine works for nobody who has left."""
    _wait(lambda: _leases() == 0, "the engine goes on without a client")


def _wait(condition: Callable[[], bool], problem: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit, f"{problem}, {PATIENCE:.0f} s later"
        time.sleep(0.05)


def _leases() -> int:
    """How many requests the workers are serving, as vllamad's own control socket tells."""
    connection = http.client.HTTPConnection("control")
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.connect(os.environ["VLLAMAD_CONTROL"])
        connection.request("GET", "/v1/workers")
        workers = json.load(connection.getresponse())["workers"]
    return sum(worker["leases"] for worker in workers)


def all_together(result: object, count: int = 4) -> Judge:
    """The call gives `result` in each of `count` threads that make it at the same time."""

    def judge(call: Callable[[], object]) -> None:
        with ThreadPoolExecutor(count) as pool:
            results = list(pool.map(lambda _: call(), range(count)))
        assert results == [result] * count, results

    return judge


def lets_go(shows: Judge) -> Judge:
    """Steps: a stream has begun, it is closed, and the answer to the next request."""

    def judge(steps: Iterator[object]) -> None:
        next(steps)
        is_served()
        next(steps)
        is_let_go()
        shows(next(steps))

    return judge


def lacks(word: str) -> Judge:
    """The text was stopped before `word`."""

    def judge(text: str) -> None:
        assert word not in text, repr(text)

    return judge


def are_the_same(texts: Sequence[str]) -> None:
    one, other = texts
    assert one == other, texts


def is_vector(vector: Sequence[float]) -> None:
    assert len(vector) == DIMENSIONS, len(vector)


def names_paris(text: str | None) -> None:
    """The one thing this model knows: shows that it saw the question, in its chat template."""
    assert "Paris" in (text or ""), repr(text)


def is_json(text: str | None) -> None:
    """An object, though perhaps one that the limit of tokens cut short."""
    whole = (text or "").strip()
    assert whole.startswith("{"), repr(text)
    if whole.endswith("}"):
        json.loads(whole)


def are_alike(vectors: Sequence[Sequence[float]]) -> None:
    """The vectors of TEXTS: unit length, and the two about cats nearer than the third."""
    assert [len(vector) for vector in vectors] == [DIMENSIONS] * len(TEXTS)
    cat, kitten, market = vectors
    for vector in vectors:
        assert abs(_product(vector, vector) - 1) < 1e-3, _product(vector, vector)
    assert _product(cat, kitten) > _product(cat, market) + 0.2


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


JUDGES: dict[str, Judge] = {
    **dict.fromkeys(("chat", "chat, streamed", "generate", "generate, streamed"), names_paris),
    **dict.fromkeys(("responses", "responses, streamed", "async", "async, streamed"), names_paris),
    **dict.fromkeys(("embed many", "async, embed"), are_alike),
    "embed one": is_vector,
    "JSON mode": is_json,
    "seed": are_the_same,
    "stop strings": lacks("Paris"),
    "cancel": lets_go(names_paris),
    "in parallel": all_together(5),
}
