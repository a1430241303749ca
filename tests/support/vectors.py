"""What an Ollama server says, as 79 numbered questions, and which tests ask them of a running one.

A test shows the questions its marks name: `@pytest.mark.vector(5, 22)`.
`python -m tests.support.vectors` prints which test shows what; with `--run` those tests run first,
and the table says how they ended.
"""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Any

import pytest

VECTORS = {
    1: "the root answers GET and HEAD",
    2: "the version",
    3: "the list of models where there are none",
    4: "what is loaded when nothing is",
    5: "the cloud's status: off",
    6: "405 for another method, with the right ones, as text",
    7: "404 for an unknown path, as text",
    8: "a slash too many is led to the route: 301 to read, 307 to write",
    9: "no body, on each of the ten routes that want one",
    10: "a body cut short",
    11: "a field of the wrong type, in the decoder's words",
    12: "a body that is no object",
    13: "a body of null is one without fields",
    14: "keys in any case, and something behind the body",
    15: "content in parts, as OpenAI has it",
    16: "arguments of a call as a string, as OpenAI has them",
    17: "a picture as a data URI",
    18: "no model's name: 404 on generate, 400 on chat",
    19: "a name that is none",
    20: "a model nobody has, on generate",
    21: "the same on show, with the whole name",
    22: "the same on embed, in other quotes",
    23: "embeddings without a name",
    24: "a name marked both ways, local and cloud",
    25: "a model of the cloud",
    26: "a name in other case comes back as it was sent",
    27: "generate without a prompt loads, in one object though it streams",
    28: "and with a keep-alive of nought unloads, loading nothing for it",
    29: "chat without messages loads; with nought it unloads",
    30: "durations: what is refused, in which words, and what is taken",
    31: "a negative one is for ever, and sticks",
    32: "a full queue",
    33: "chat and generate on a model that only embeds",
    34: "a suffix for a model that cannot fill in",
    35: "tools for a model that has none",
    36: "think for a model that does not",
    37: "think that is no level, think of another type",
    38: "top_logprobs out of range, before the model is looked for",
    39: "raw together with a system",
    40: "options of a wrong type are a 500; unknown ones nothing",
    41: "a format that is none is a 500; an empty one nothing",
    42: "the lines of a streamed chat",
    43: "a chat in one object",
    44: "generate in one object, with its context; raw without",
    45: "a tool call in one object",
    46: "the line of a thought, in chat and generate",
    47: "the shape and the place of log probabilities",
    48: "an engine's 429 and 503 before the first word",
    49: "an engine's error after it",
    50: "the prompt shown in place of an answer",
    51: "nothing to embed, and what is no text",
    52: "vectors in order, of length one, also when cut",
    53: "a text too long that must not be cut",
    54: "the older route with nothing to embed",
    55: "copy: bad names, no such model, done, onto itself",
    56: "delete: no such model, a bad name, none, done",
    57: "blobs: unknown, no digest, stored, stored before, other bytes",
    58: "pull of what no hub has, streamed or not, and of no name",
    59: "create: without a source, a path that leads out, done",
    60: "show: parameters in columns, and always model_info",
    61: "web pages let in and turned away",
    62: "a preflight",
    63: "hosts let in and turned away; all of them where we listen to the world",
    64: "OpenAI: no messages",
    65: "OpenAI: a model nobody has",
    66: "OpenAI: an answer in one object",
    67: "OpenAI: the frames of a stream, with usage",
    68: "OpenAI: vectors as base64, and a format that is none",
    69: "OpenAI: the list of models, and one of them",
    70: "Anthropic: a message without a limit",
    71: "five minutes from the end of an answer, and gone when they are over",
    72: "a keep-alive sticks, and counts anew from each answer's end",
    73: "nought with a prompt: the whole answer, then gone",
    74: "an unload while a stream runs: at once, and the stream ends as it should",
    75: "an unload of what is not loaded, and of what nobody has",
    76: "room for one: the idle one goes, the busy one is waited for",
    77: "room for two: who stays for ever stays",
    78: "the server's own keep-alive: nought, and for ever",
    79: "a queue for one: the next is refused at once, the loaded one answers",
}

# Where the answer here is another one, and why.
CHANGED = {
    62: "five header names more, those of Anthropic's clients: else no web page reaches"
    " /v1/messages",
    66: "id, system_fingerprint and further keys are vLLM's own",
    67: "vLLM's frames: the role comes first, in one of its own",
    68: "other numbers: our vectors always have length one",
}


def numbered(*cases: tuple[Any, ...]) -> list[Any]:
    """Cases for parametrize, each after the number of the vector it shows; 0 is none."""
    return [
        pytest.param(*case, marks=[pytest.mark.vector(number)] if number else [])
        for number, *case in cases
    ]


class Shown:
    """A plugin of pytest: the tests of each vector, and those that did not pass."""

    def __init__(self) -> None:
        self.tests: dict[int, list[str]] = {number: [] for number in VECTORS}
        self.bad: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        showing = [item for item in items if numbers_of(item)]
        for item in showing:
            assert item.get_closest_marker("integration"), f"{item.nodeid} asks no running gateway"
            for number in numbers_of(item):
                self.tests[number].append(item.nodeid)
        items[:] = showing

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.bad.add(report.nodeid)

    def table(self) -> list[str]:
        """A line for each vector: its number, the tests that show it, and what it is about."""
        return [
            f"{number:>3} {self.verdict(number):>14}  {text}"
            + (f"\n{'':>20}changed: {CHANGED[number]}" if number in CHANGED else "")
            + "".join(f"\n{'':>20}{name}" for name in self.functions(number))
            for number, text in VECTORS.items()
        ]

    def verdict(self, number: int) -> str:
        tests = self.tests[number]
        bad = len(self.bad.intersection(tests))
        return f"{bad} BAD of {len(tests)}" if bad else f"{len(tests)} tests" if tests else "NONE"

    def functions(self, number: int) -> list[str]:
        """The tests without their cases."""
        return list(dict.fromkeys(name.partition("[")[0] for name in sorted(self.tests[number])))


def numbers_of(item: pytest.Item) -> list[int]:
    """The vectors a test shows."""
    return [number for mark in item.iter_markers("vector") for number in mark.args]


def collected(*, run: bool) -> Shown:
    """Collect all tests that show a vector, and perhaps run them."""
    shown = Shown()
    words = ["tests/integration", "-q", "-m", "integration", "-p", "no:cacheprovider"]
    with contextlib.nullcontext() if run else contextlib.redirect_stdout(io.StringIO()) as said:
        status = pytest.main([*words, *([] if run else ["--collect-only"])], plugins=[shown])
    if status not in (0, 1):
        raise SystemExit(said.getvalue() if said else f"pytest ended with {status}")
    return shown


def main(words: list[str]) -> int:
    shown = collected(run="--run" in words)
    missing = [number for number, tests in shown.tests.items() if not tests]
    total = {test for tests in shown.tests.values() for test in tests}
    print(*shown.table(), sep="\n")
    print(
        f"{len(VECTORS)} vectors, {len(VECTORS) - len(missing)} shown by {len(total)} tests,"
        f" {len(shown.bad)} of them bad; {len(CHANGED)} changed; not shown: {missing or 'none'}"
    )
    return 1 if missing or shown.bad else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
