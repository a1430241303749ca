"""The command `run`: `run MODEL` starts a chat, `run MODEL PROMPT` prints one reply."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import msgspec

from vllamactl.chat.answer import Answer, write_lines
from vllamactl.chat.chat_commands import show
from vllamactl.chat.conversation import ChatSession, ResponsePiece, Shown, Think, summary
from vllamactl.chat.formats import read_format
from vllamactl.chat.image_paths import take_images
from vllamactl.command_context import CommandContext
from vllamactl.ollama_client import OllamaClient, find_api
from vllamactl.progress import Progression
from vllamad.errors import BadInput, ModelNotFound
from vllamad.protocol.control import Progress
from vllamad.translate.go.duration import parse_duration

# vllamactl.chat.repl is imported late: prompt_toolkit is slow, and a single reply needs no editing.


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `run`."""

    format: str = ""
    think: str | None = None
    hide_thinking: bool = False
    keep_alive: str = ""
    verbose: bool = False
    wrap: bool = True


def run(context: CommandContext, model: str, prompt: Sequence[str], options: RunOptions) -> None:
    """Start a chat, or print one reply to a prompt, to piped input, or to both."""
    session = _session(model, options)
    typing = _is_terminal(sys.stdin)
    piped = "" if typing else _piped()
    text = " ".join([piped, *prompt] if piped else prompt)
    api = OllamaClient(find_api(context.client, context.environ), context.environ)
    if prompt or not (typing and _is_terminal(sys.stdout)):
        session.shown = _shown(context, api, model)
        _reply(context, api, session, text)
        return
    if context.screen.json:
        raise BadInput("cannot chat in JSON", hint="give a prompt: vllamactl run MODEL PROMPT")
    session.shown = _shown(context, api, model)
    if session.can("embedding"):
        raise BadInput(
            f"cannot chat with {model}: it only makes embeddings",
            hint="give it a text: vllamactl run MODEL TEXT",
        )
    from vllamactl.chat.repl import chat

    chat(context, api, session)


def normalize_think(argv: Sequence[str]) -> list[str]:
    """Replace `--think` alone by `--think=true`, so that argparse leaves the next word alone."""
    end = argv.index("--") if "--" in argv else len(argv)
    return ["--think=true" if word == "--think" else word for word in argv[:end]] + [*argv[end:]]


def _session(model: str, options: RunOptions) -> ChatSession:
    if options.keep_alive:
        parse_duration(options.keep_alive)
    return ChatSession(
        model=model,
        format=read_format(options.format) if options.format else None,
        think=_think(options.think),
        keep_alive=options.keep_alive,
        verbose=options.verbose,
        wrap=options.wrap,
        hide_thinking=options.hide_thinking,
    )


def _think(word: str | None) -> Think:
    return {"true": True, "false": False, None: None}.get(word, word)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _piped() -> str:
    """Return standard input as text; empty if it is closed."""
    stream: TextIO | None = sys.stdin
    return "" if stream is None else stream.buffer.read().decode(errors="replace")


def _shown(context: CommandContext, api: OllamaClient, model: str) -> Shown:
    """Return the details of the model; pull it first if it is not installed."""
    try:
        return show(api, model)
    except ModelNotFound:
        with Progression(context.screen, f"pulling {model}") as progression:
            for step in api.follow("/api/pull", {"model": model}, Progress):
                progression.report(step)
        return show(api, model)


def _reply(context: CommandContext, api: OllamaClient, session: ChatSession, text: str) -> None:
    if session.can("embedding"):
        _embed(context, api, session, text)
        return
    images: list[str] = []
    if session.can("vision"):
        text, images = take_images(text)
    body = session.generate(text, images)
    if context.screen.json:
        reply = api.post("/api/generate", body | {"stream": False}, msgspec.Raw)
        context.screen.answer(reply, "")
        return
    from vllamactl.chat.spinner import with_spinner

    answer = Answer(context.screen, wrap=session.wrap, hide_thinking=session.hide_thinking)
    try:
        for piece in with_spinner(
            context, session.model, api.follow("/api/generate", body, ResponsePiece)
        ):
            answer.add(piece)
    finally:
        answer.end()
    if session.verbose:
        write_lines(context.screen.err, summary(answer.last))


class _Embedded(msgspec.Struct, frozen=True):
    embeddings: list[list[float]]


def _embed(context: CommandContext, api: OllamaClient, session: ChatSession, text: str) -> None:
    """Print the vector of a text, as one line of JSON."""
    if not text:
        raise BadInput(
            f"cannot embed an empty text: {session.model} only makes embeddings",
            hint="give it a text: vllamactl run MODEL TEXT",
        )
    body: dict[str, object] = {"model": session.model, "input": text}
    if session.keep_alive:
        body["keep_alive"] = session.keep_alive
    for vector in api.post("/api/embed", body, _Embedded).embeddings:
        print(msgspec.json.encode(vector).decode(), file=context.screen.out)
