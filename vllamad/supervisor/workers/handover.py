"""Workers that outlive the daemon: what is written down of one, and what the next daemon finds.

The service manager keeps, for each worker, the end of its shim's control socket that is ours, a
pidfd of the shim, and a note in memory. While it does the worker lives; see docs/decisions/0008.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import stat
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import trio

from vllamad.config.settings import Paths, Settings
from vllamad.core.launch import Plan
from vllamad.errors import HostProblem
from vllamad.host.fd_store import FdStore, close_all, open_store, stored
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.host.log_files import LogPosition, WorkerLog
from vllamad.host.process_group import ProcessGroup, WorkerLink
from vllamad.host.processes import pid_of
from vllamad.supervisor.workers.worker_paths import log_file, run_folder, worker_id

log = logging.getLogger(__name__)

VERSION = 1
_HEAD = 64  # bytes at the front of a note: all that changes
_KINDS = ("control", "shim", "note")


class WorkerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What does not change while a worker serves."""

    version: int = VERSION
    plan: Plan
    leader: int
    context_length: int
    log_began: int
    run: str
    log_file: str


class HandoverRecord:
    """Facts of one worker, and what changes, in memory that lives as long as a descriptor of it."""

    def __init__(
        self, descriptor: int, *, keep_alive: float | None = None, log_read: int = 0
    ) -> None:
        self.descriptor = descriptor
        self._keep_alive = keep_alive
        self._log_read = log_read

    def write(self, facts: WorkerFacts) -> None:
        # Python's own JSON knows Infinity: a model may be kept for ever.
        text = json.dumps(msgspec.to_builtins(facts)).encode()
        os.pwrite(self.descriptor, text, _HEAD)
        self._write_head()

    def keep_alive(self, asked: float | None) -> None:
        """Write down how long the last request that said so wants it to stay."""
        if asked != self._keep_alive:
            self._keep_alive = asked
            self._write_head()

    def log_read(self, offset: int) -> None:
        """Write down how far its log has been read."""
        if offset != self._log_read:
            self._log_read = offset
            self._write_head()

    def read(self) -> tuple[WorkerFacts, LogPosition, float | None]:
        """All of it. Raises ValueError, LookupError or TypeError if it is not what we write."""
        size = os.fstat(self.descriptor).st_size
        head, _, text = os.pread(self.descriptor, size, 0).partition(b"\n")
        told = json.loads(text)
        if told["version"] != VERSION:
            raise ValueError(f"its note is of version {told['version']}")
        facts = msgspec.convert(told, WorkerFacts)
        keep_alive, log_read = msgspec.convert(json.loads(head), tuple[float | None, int])
        return facts, LogPosition(facts.log_began, log_read), keep_alive

    def _write_head(self) -> None:
        """In one write within one page: whoever kills us in it leaves the old or the new."""
        head = json.dumps([self._keep_alive, self._log_read]).encode()
        os.pwrite(self.descriptor, head.ljust(_HEAD - 1) + b"\n", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedWorker:
    """A worker of a daemon that is gone, alive and ready."""

    name: str
    line: WorkerLink
    note: HandoverRecord
    facts: WorkerFacts
    keep_alive: float | None
    mark: LogPosition


@dataclass(frozen=True, slots=True)
class Handover:
    """Where workers are kept from now on, if anywhere, and those that were, by their models."""

    store: FdStore | None
    survivors: dict[str, AdoptedWorker]

    def keeper(self, model: str) -> WorkerHandover:
        """Who keeps the worker of `model`: the one that survived, or else one yet to be started."""
        return WorkerHandover(self.store, worker_id(model), self.survivors.pop(model, None))


class WorkerHandover:
    """Sees to it that one worker can outlive us."""

    def __init__(self, store: FdStore | None, name: str, survivor: AdoptedWorker | None) -> None:
        self.survivor = survivor
        self._store = store
        self._name = name
        self._note = survivor.note if survivor else None
        self._group: ProcessGroup | None = None

    async def keep(
        self, group: ProcessGroup, file: WorkerLog, facts: WorkerFacts, keep_alive: float | None
    ) -> None:
        """Give its life line away, where there is somebody to hold it."""
        if self._store is None:
            return
        if self._note is None:
            memory = os.memfd_create("vllamad-worker")
            self._note = HandoverRecord(memory, keep_alive=keep_alive, log_read=file.mark.read)
            self._note.write(facts)
            try:
                with group.line() as line:
                    await self._store.put(self._name, (*line, self._note.descriptor))
            except (HostProblem, OSError) as problem:
                why = str(problem)
                event(
                    log,
                    logging.WARNING,
                    "worker ends with the daemon",
                    LogEvent.WORKER_NOT_STORED,
                    model=facts.plan.model,
                    why=why,
                )
                return
        self._group, group.survives_restart = group, True
        file.on_read = self._note_log_read

    def record_keep_alive(self, keep_alive: float | None) -> None:
        if self._note:
            self._note.keep_alive(keep_alive)

    def _note_log_read(self, offset: int) -> None:
        if self._note:
            self._note.log_read(offset)

    @contextmanager
    def forgetting(self) -> Generator[None]:
        """Forget the worker at the end of the block, unless that is our own cancellation.

        Before it is ended, not after: if we are killed meanwhile, nobody takes over what is dying.
        """
        try:
            yield
        except Exception:
            self.forget()
            raise
        self.forget()

    def forget(self) -> None:
        """It is to end, or has ended: nobody shall find it. May be said again."""
        if self._store:
            self._store.remove(self._name)
        if self._group:
            self._group.survives_restart = False
        if self._note:
            os.close(self._note.descriptor)
            self._note = None


async def look_for_survivors(settings: Settings, environ: Mapping[str, str]) -> Handover:
    """Take what was stored for us; of that, end what is of no use any more."""
    store = open_store(environ)
    wanted = settings.worker.keep_workers
    if wanted and store is None:
        event(
            log,
            logging.WARNING,
            "workers end with the daemon",
            LogEvent.HANDOVER_UNAVAILABLE,
            why="the daemon was not started by systemd",
        )
    found: list[AdoptedWorker] = []
    for name, descriptors in sorted(stored(environ, os.getpid()).items()):
        try:
            if not wanted:
                raise ValueError("keep_workers is off")
            found.append(_survivor(name, descriptors, settings.paths))
        except (ValueError, LookupError, TypeError, OSError) as problem:
            event(
                log,
                logging.WARNING,
                "ending a worker of a previous daemon",
                LogEvent.WORKER_NOT_ADOPTED,
                id=name,
                why=str(problem),
            )
            if store:
                store.remove(name)
            await _let_go(descriptors, settings.worker.kill_timeout)
    return Handover(store if wanted else None, {one.facts.plan.model: one for one in found})


def _survivor(name: str, descriptors: Sequence[int], paths: Paths) -> AdoptedWorker:
    """Put its life line together. Raises ValueError and its like with the reason."""
    kinds = {_kind(descriptor): descriptor for descriptor in descriptors}
    if len(descriptors) != len(kinds) or len(kinds) != len(_KINDS):
        raise ValueError(f"{len(descriptors)} descriptors are no life line")
    control, shim, note = (kinds[kind] for kind in _KINDS)
    if _has_ended(shim):
        raise ValueError("it has ended meanwhile")
    facts, mark, keep_alive = HandoverRecord(note).read()
    model = facts.plan.model
    here = worker_id(model), str(run_folder(paths.run, model)), str(log_file(paths.logs, model))
    if (name, facts.run, facts.log_file) != here:
        raise ValueError(f"its files are elsewhere: {facts.run}, {facts.log_file}")
    return AdoptedWorker(
        name=name,
        line=WorkerLink(socket.socket(fileno=control), shim, facts.leader),
        note=HandoverRecord(note, keep_alive=keep_alive, log_read=mark.read),
        facts=facts,
        mark=mark,
        keep_alive=keep_alive,
    )


def _kind(descriptor: int) -> str:
    """They share a name, and come in no order."""
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return "control"
    try:
        pid_of(descriptor)
    except ValueError:
        return "note"
    return "shim"


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


async def _let_go(descriptors: Sequence[int], limit: float) -> None:
    """Close them: with nobody left to hold it the worker ends. Wait for that: its memory counts."""
    shims = [one for one in descriptors if _kind(one) == "shim"]
    close_all([one for one in descriptors if one not in shims])
    for pidfd in shims:
        with trio.move_on_after(limit):
            await trio.lowlevel.wait_readable(pidfd)
    close_all(shims)
