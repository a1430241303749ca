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
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

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
_features: dict[str, Feature] = {}


def feature(name: str) -> Callable[[Feature], Feature]:
    """Register a function, async or not, as what shows the feature `name` of the table."""

    def register(run: Feature) -> Feature:
        assert name not in _features, name
        _features[name] = run
        return run

    return register


def drive() -> None:
    """Run everything registered and say how it went."""
    signal.signal(signal.SIGALRM, _too_long)
    for name, run in _features.items():
        signal.alarm(LIMIT)
        problem = _problem(run)
        signal.alarm(0)
        print("\n" + json.dumps({"feature": name, "problem": problem}), flush=True)


def _problem(run: Feature) -> str:
    try:
        if inspect.iscoroutinefunction(run):
            asyncio.run(run())
        else:
            run()
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


def together(ask: Callable[[int], object], count: int = 4) -> list[object]:
    """What `ask` says to each of `count` threads that ask at the same time."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, range(count)))


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
