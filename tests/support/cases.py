"""Reports of the field: each name stands for a kind of fault, and the right value is its test.

A test names the cases it shows: `@pytest.mark.case("F1")`. `python -m tests.support.cases`
prints which test shows which case.
"""

from __future__ import annotations

import ast

from tests.support.paths import ROOT

CASES = {
    "F1": "a long valid chat on a template that insists on alternation is cut and answered",
    "F2": "two system messages, and one later on, on each route",
    "F3": "two user turns in a row, an assistant first, a system message where there is none",
    "F4": "tool_choice without tools is ignored",
    "F5": "hosted tools and items of history that cannot be served are left out",
    "F6": "an option out of range is brought into range on /v1 as on /api",
    "F7": "a random uid without passwd entry and without HOME",
    "F8": "each OLLAMA_ variable is honoured, or named as without effect",
    "F9": "OLLAMA_HOST has no effect beside inherited sockets, and a line says so",
    "F10": "token ids on /v1/embeddings are refused with the client's setting to change",
    "F11": "every required key of the official SDKs' types is there",
    "F12": "what a child prints is not its protocol",
    "F13": "a stop of the whole process group is quiet",
    "F14": "a CPU with AMX, and one that lists it without leave to use it",
    "B1": "every request has an end: ten contexts at most, and repetition ends a loop",
    "B2": "num_ctx on embeddings",
    "B3": "/v1 with temperature 3, top_p 0, max_tokens 0, n 2 with temperature 0",
    "B4": "tool_choice auto without tools on /v1 and /v1/messages",
    "B5": "a document block on /v1/messages",
    "B6": "no text of the engine reaches a client raw",
    "B7": "replies of /v1 have the API's own keys and no others",
    "B8": "/v1/responses has completed_at, error, metadata, and nothing internal",
    "B9": "keys in any case on /v1",
    "B10": "a wrong body on /v1/messages is told in Anthropic's types",
    "B11": "/v1/responses names a missing model before a missing input",
    "B12": "show with verbose lists the tensors",
    "B14": "num_predict 0 has an eval_count",
    "K1": "the demo asks what the model knows by a wide margin, and bounds the answer",
    "K2": "/v1/messages without temperature samples with Ollama's defaults",
}


def places_of_cases() -> dict[str, list[str]]:
    """The places whose marks name a case, as `file:line`, by case; read, not collected."""
    places: dict[str, list[str]] = {name: [] for name in CASES}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.case":
                for name in node.args:
                    places[ast.literal_eval(name)].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return places


def main() -> int:
    """Print each case with its tests; 1 if one has none."""
    tests = places_of_cases()
    for name, places in tests.items():
        print(f"{name:>4}  {CASES[name]}")
        print(*(f"{'':>10}{place}" for place in places or ["NONE"]), sep="\n")
    return 0 if all(tests.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
