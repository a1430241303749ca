"""Talk to a model: `run MODEL` at the terminal, `run MODEL PROMPT` for one answer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import msgspec

from vllamactl.chat.answer import Answer, write_lines
from vllamactl.chat.chat_commands import show
from vllamactl.chat.formats import read_format
from vllamactl.chat.images import take_images
from vllamactl.chat.session import ResponsePiece, Session, Shown, Think, summary
from vllamactl.command_context import CommandContext
from vllamactl.ollama_client import OllamaClient, find_api
from vllamactl.progress import Progression
from vllamad.errors import BadInput, ModelNotFound
from vllamad.protocol.control import Progress
from vllamad.translate.go.duration import parse_duration

# vllamactl.chat.repl is imported where it is used: prompt_toolkit is slow, and one answer needs
# no line editing.


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The options of `run`."""

    format: str = ""
    think: str | None = None
    hide_thinking: bool = False
    keep_alive: str = ""
    verbose: bool = False
    wrap: bool = True


def run(call: CommandContext, model: str, prompt: Sequence[str], wishes: Wishes) -> None:
    """Talk until the person leaves, or answer once: a prompt, what is piped in, or both."""
    session = _session(model, wishes)
    typing = _is_terminal(sys.stdin)
    piped = "" if typing else _piped()
    text = " ".join([piped, *prompt] if piped else prompt)
    api = OllamaClient(find_api(call.client, call.environ), call.environ)
    if prompt or not (typing and _is_terminal(sys.stdout)):
        session.shown = _shown(call, api, model)
        _answer(call, api, session, text)
        return
    if call.screen.json:
        raise BadInput("cannot talk in JSON", hint="give a prompt: vllamactl run MODEL PROMPT")
    session.shown = _shown(call, api, model)
    if session.can("embedding"):
        raise BadInput(
            f"cannot talk to {model}: it only makes embeddings",
            hint="give it a text: vllamactl run MODEL TEXT",
        )
    from vllamactl.chat.repl import talk

    talk(call, api, session)


def spell_think(argv: Sequence[str]) -> list[str]:
    """`--think` alone is `--think=true`, so that the word behind it stays a word."""
    end = argv.index("--") if "--" in argv else len(argv)
    return ["--think=true" if word == "--think" else word for word in argv[:end]] + [*argv[end:]]


def _session(model: str, wishes: Wishes) -> Session:
    if wishes.keep_alive:
        parse_duration(wishes.keep_alive)
    return Session(
        model=model,
        format=read_format(wishes.format) if wishes.format else None,
        think=_think(wishes.think),
        keep_alive=wishes.keep_alive,
        verbose=wishes.verbose,
        wrap=wishes.wrap,
        hide_thinking=wishes.hide_thinking,
    )


def _think(word: str | None) -> Think:
    return {"true": True, "false": False, None: None}.get(word, word)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _piped() -> str:
    """What comes on standard input, whatever its bytes; nothing where that is closed."""
    stream: TextIO | None = sys.stdin
    return "" if stream is None else stream.buffer.read().decode(errors="replace")


def _shown(call: CommandContext, api: OllamaClient, model: str) -> Shown:
    """What is known of the model; pulled first where it is not installed."""
    try:
        return show(api, model)
    except ModelNotFound:
        with Progression(call.screen, f"pulling {model}") as progression:
            for step in api.follow("/api/pull", {"model": model}, Progress):
                progression.report(step)
        return show(api, model)


def _answer(call: CommandContext, api: OllamaClient, session: Session, text: str) -> None:
    if session.can("embedding"):
        _embed(call, api, session, text)
        return
    images: list[str] = []
    if session.can("vision"):
        text, images = take_images(text)
    body = session.generate(text, images)
    if call.screen.json:
        reply = api.post("/api/generate", body | {"stream": False}, msgspec.Raw)
        call.screen.answer(reply, "")
        return
    from vllamactl.chat.spinner import awaited

    answer = Answer(call.screen, wrap=session.wrap, hide_thinking=session.hide_thinking)
    try:
        for piece in awaited(call, session.model, api.follow("/api/generate", body, ResponsePiece)):
            answer.add(piece)
    finally:
        answer.end()
    if session.verbose:
        write_lines(call.screen.err, summary(answer.last))


class _Embedded(msgspec.Struct, frozen=True):
    embeddings: list[list[float]]


def _embed(call: CommandContext, api: OllamaClient, session: Session, text: str) -> None:
    """The vector of a text, as one line of JSON."""
    if not text:
        raise BadInput(
            f"cannot make an embedding of nothing: {session.model} only makes embeddings",
            hint="give it a text: vllamactl run MODEL TEXT",
        )
    body: dict[str, object] = {"model": session.model, "input": text}
    if session.keep_alive:
        body["keep_alive"] = session.keep_alive
    for vector in api.post("/api/embed", body, _Embedded).embeddings:
        print(msgspec.json.encode(vector).decode(), file=call.screen.out)
