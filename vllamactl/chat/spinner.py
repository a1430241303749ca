"""What a person sees while nothing has been said yet: a spinner, and what the daemon is at.

Must not know what is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager

from vllamactl.chat.session import ResponsePiece
from vllamactl.command_context import CommandContext
from vllamactl.progress import Progression
from vllamad.core.model_name import parse_model_name
from vllamad.errors import BadInput, VllamadError
from vllamad.protocol import control

_PATIENCE = 0.5  # seconds without a word before it is asked what the daemon is at
_EVERY = 0.5  # seconds between two such questions


def awaited(
    call: CommandContext, model: str, pieces: Generator[ResponsePiece]
) -> Generator[ResponsePiece]:
    """The same pieces; until the first one that says something, a spinner turns."""
    with ExitStack() as stack:
        stack.enter_context(closing(pieces))
        spinner = stack.enter_context(ExitStack())
        spinner.enter_context(waiting(call, model))
        for piece in pieces:
            if piece.text or piece.thought or piece.done:
                spinner.close()
            yield piece
            if piece.done:
                return
    raise VllamadError("the answer broke off", hint="see `vllamactl logs` for the reason")


@contextmanager
def waiting(call: CommandContext, model: str) -> Generator[None]:
    """At a terminal, show that it goes on, and what the daemon is at where it tells us."""
    if call.screen.json or call.screen.quiet or not call.screen.err.isatty():
        yield
        return
    over = threading.Event()
    with Progression(call.screen, "") as progression:
        watcher = threading.Thread(
            target=_watch, args=(call, model, over, progression.report), daemon=True
        )
        watcher.start()
        try:
            yield
        finally:
            over.set()


def _watch(
    call: CommandContext,
    model: str,
    over: threading.Event,
    report: Callable[[control.Progress], None],
) -> None:
    wait = _PATIENCE
    while not over.wait(wait):
        wait = _EVERY
        try:
            workers = call.client.get("/v1/workers", control.Workers).workers
        except VllamadError:
            return  # it is not for us to know
        if words := _words(model, workers):
            report(control.Progress(status=words))


def _words(model: str, workers: list[control.WorkerInfo]) -> str:
    """What is on its way: the model itself, or the one whose worker it shares."""
    try:
        name = parse_model_name(model).display().lower()
    except BadInput:
        name = model
    coming = [worker for worker in workers if worker.state == "starting"]
    coming.sort(key=lambda worker: worker.model.lower() != name)
    return f"loading {coming[0].model}: {coming[0].load_phase or 'starting'}" if coming else ""
