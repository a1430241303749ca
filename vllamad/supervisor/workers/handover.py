"""Workers that survive a restart of the daemon: how one hands them over and the next adopts them.

For each worker systemd's descriptor store holds our end of its shim's control socket, a pidfd of
the shim, and a record in memory. As long as it does, the worker runs; see docs/decisions/0008.
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
from vllamad.host.log import event
from vllamad.host.log_events import LogEvent
from vllamad.host.log_files import LogPosition, WorkerLog
from vllamad.host.processes.process_group import ProcessGroup, WorkerLink
from vllamad.host.processes.process_tree import pid_of
from vllamad.host.systemd.fd_store import FdStore, close_all, open_store, stored
from vllamad.supervisor.workers.worker_paths import log_file, run_folder, worker_id

log = logging.getLogger(__name__)

VERSION = 1
_HEAD = 64  # bytes at the start of a record: the fields that change
_KINDS = ("control", "shim", "record")


class WorkerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a record that do not change while the worker is ready."""

    version: int = VERSION
    plan: Plan
    leader: int
    context_length: int
    log_began: int
    run: str
    log_file: str


class HandoverRecord:
    """The record of one worker, in memory that lives as long as a descriptor of it is open."""

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

    def keep_alive(self, seconds: float | None) -> None:
        """Record the keep-alive of the last request that set one."""
        if seconds != self._keep_alive:
            self._keep_alive = seconds
            self._write_head()

    def log_read(self, offset: int) -> None:
        """Record how far its log has been read."""
        if offset != self._log_read:
            self._log_read = offset
            self._write_head()

    def read(self) -> tuple[WorkerFacts, LogPosition, float | None]:
        """Read the record. Raises ValueError, LookupError or TypeError if it is invalid."""
        size = os.fstat(self.descriptor).st_size
        head, _, text = os.pread(self.descriptor, size, 0).partition(b"\n")
        content = json.loads(text)
        if content["version"] != VERSION:
            raise ValueError(f"its record has version {content['version']}")
        facts = msgspec.convert(content, WorkerFacts)
        keep_alive, log_read = msgspec.convert(json.loads(head), tuple[float | None, int])
        return facts, LogPosition(facts.log_began, log_read), keep_alive

    def _write_head(self) -> None:
        """Write the header in one write within a page: a crash leaves the old or the new value."""
        head = json.dumps([self._keep_alive, self._log_read]).encode()
        os.pwrite(self.descriptor, head.ljust(_HEAD - 1) + b"\n", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedWorker:
    """A running worker that a previous daemon has started."""

    name: str
    link: WorkerLink
    record: HandoverRecord
    facts: WorkerFacts
    keep_alive: float | None
    log_position: LogPosition


@dataclass(frozen=True, slots=True)
class Handover:
    """The store that workers are handed to, if there is one, and those it held, by model."""

    store: FdStore | None
    survivors: dict[str, AdoptedWorker]

    def of(self, model: str) -> WorkerHandover:
        """The handover of `model`'s worker, be it adopted or yet to be started."""
        return WorkerHandover(self.store, worker_id(model), self.survivors.pop(model, None))


class WorkerHandover:
    """Hands one worker to the store, and takes it back when the worker is to end."""

    def __init__(self, store: FdStore | None, name: str, survivor: AdoptedWorker | None) -> None:
        self.survivor = survivor
        self._store = store
        self._name = name
        self._record = survivor.record if survivor else None
        self._group: ProcessGroup | None = None

    async def store(
        self, group: ProcessGroup, file: WorkerLog, facts: WorkerFacts, keep_alive: float | None
    ) -> None:
        """Store the worker's descriptors, if there is a store."""
        if self._store is None:
            return
        if self._record is None:
            memory = os.memfd_create("vllamad-worker")
            self._record = HandoverRecord(memory, keep_alive=keep_alive, log_read=file.mark.read)
            self._record.write(facts)
            try:
                with group.link() as link:
                    await self._store.put(self._name, (*link, self._record.descriptor))
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
        if self._record:
            self._record.keep_alive(keep_alive)

    def _note_log_read(self, offset: int) -> None:
        if self._record:
            self._record.log_read(offset)

    @contextmanager
    def forgotten_at_end(self) -> Generator[None]:
        """Forget the worker at the end of the block, unless it is left by cancellation.

        That comes before the worker is ended: if the daemon is killed in between, the next one must
        not adopt a dying worker.
        """
        try:
            yield
        except Exception:
            self.forget()
            raise
        self.forget()

    def forget(self) -> None:
        """Remove the worker from the store; a second call has no effect."""
        if self._store:
            self._store.remove(self._name)
        if self._group:
            self._group.survives_restart = False
        if self._record:
            os.close(self._record.descriptor)
            self._record = None


async def look_for_survivors(settings: Settings, environ: Mapping[str, str]) -> Handover:
    """Find the stored workers of the previous daemon; end those that cannot be used."""
    store = open_store(environ)
    enabled = settings.worker.keep_workers
    if enabled and store is None:
        event(
            log,
            logging.WARNING,
            "workers end with the daemon",
            LogEvent.HANDOVER_UNAVAILABLE,
            why="the daemon was not started by systemd",
        )
    workers: list[AdoptedWorker] = []
    for name, descriptors in sorted(stored(environ, os.getpid()).items()):
        try:
            if not enabled:
                raise ValueError("keep_workers is off")
            workers.append(_survivor(name, descriptors, settings.paths))
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
            await _end_worker(descriptors, settings.worker.kill_timeout)
    return Handover(
        store if enabled else None, {worker.facts.plan.model: worker for worker in workers}
    )


def _survivor(name: str, descriptors: Sequence[int], paths: Paths) -> AdoptedWorker:
    """The worker of these descriptors. Raises ValueError and the like with the reason."""
    kinds = {_kind(descriptor): descriptor for descriptor in descriptors}
    if len(descriptors) != len(kinds) or len(kinds) != len(_KINDS):
        raise ValueError(f"{len(descriptors)} descriptors do not make a worker")
    control, shim, record = (kinds[kind] for kind in _KINDS)
    if _has_ended(shim):
        raise ValueError("it has ended since")
    facts, position, keep_alive = HandoverRecord(record).read()
    model = facts.plan.model
    here = worker_id(model), str(run_folder(paths.run, model)), str(log_file(paths.logs, model))
    if (name, facts.run, facts.log_file) != here:
        raise ValueError(f"its files are elsewhere: {facts.run}, {facts.log_file}")
    return AdoptedWorker(
        name=name,
        link=WorkerLink(socket.socket(fileno=control), shim, facts.leader),
        record=HandoverRecord(record, keep_alive=keep_alive, log_read=position.read),
        facts=facts,
        log_position=position,
        keep_alive=keep_alive,
    )


def _kind(descriptor: int) -> str:
    """The kind of a descriptor: those of a worker share a name and have no order."""
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return "control"
    try:
        pid_of(descriptor)
    except ValueError:
        return "record"
    return "shim"


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


async def _end_worker(descriptors: Sequence[int], limit: float) -> None:
    """End a worker by closing its descriptors, and wait for its end: its memory counts."""
    shims = [fd for fd in descriptors if _kind(fd) == "shim"]
    close_all([fd for fd in descriptors if fd not in shims])
    for pidfd in shims:
        with trio.move_on_after(limit):
            await trio.lowlevel.wait_readable(pidfd)
    close_all(shims)
