"""A spinner until the first token, with the daemon's load phase.

It must not know the request.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager

from vllamactl.chat.conversation import ResponsePiece
from vllamactl.command_context import CommandContext
from vllamactl.progress import Progression
from vllamad.core.model_name import parse_model_name
from vllamad.errors import BadInput, VllamadError
from vllamad.protocol import control

_FIRST_POLL = 0.5  # seconds without a token until the daemon's state is read
_POLL_INTERVAL = 0.5  # seconds between two reads


def with_spinner(
    context: CommandContext, model: str, pieces: Generator[ResponsePiece]
) -> Generator[ResponsePiece]:
    """Yield the same pieces; show a spinner until the first one with text."""
    with ExitStack() as stack:
        stack.enter_context(closing(pieces))
        spinner = stack.enter_context(ExitStack())
        spinner.enter_context(waiting(context, model))
        for piece in pieces:
            if piece.text or piece.thought or piece.done:
                spinner.close()
            yield piece
            if piece.done:
                return
    raise VllamadError(
        "cannot read the reply to its end: the connection closed",
        hint="`vllamactl logs` has the reason",
    )


@contextmanager
def waiting(context: CommandContext, model: str) -> Generator[None]:
    """At a terminal, show a spinner, and the load phase if the control socket is reachable."""
    if context.screen.json or context.screen.quiet or not context.screen.err.isatty():
        yield
        return
    over = threading.Event()
    with Progression(context.screen, "") as progression:
        watcher = threading.Thread(
            target=_watch, args=(context, model, over, progression.report), daemon=True
        )
        watcher.start()
        try:
            yield
        finally:
            over.set()


def _watch(
    context: CommandContext,
    model: str,
    over: threading.Event,
    report: Callable[[control.Progress], None],
) -> None:
    wait = _FIRST_POLL
    while not over.wait(wait):
        wait = _POLL_INTERVAL
        try:
            workers = context.client.get("/v1/workers", control.Workers).workers
        except VllamadError:
            return  # the control socket is not reachable for this user
        if words := _words(model, workers):
            report(control.Progress(status=words))


def _words(model: str, workers: list[control.WorkerInfo]) -> str:
    """Return the load phase of the model, else of the model whose worker it shares."""
    try:
        name = parse_model_name(model).display().lower()
    except BadInput:
        name = model
    starting = [worker for worker in workers if worker.state == "starting"]
    starting.sort(key=lambda worker: worker.model.lower() != name)
    if not starting:
        return ""
    return f"loading {starting[0].model}: {starting[0].load_phase or 'starting'}"
