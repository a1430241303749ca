"""One pull, in a process of its own: `python -m vllamad.models.pull STORE NAME [ORIGIN]`.

Plans, fetches, verifies, publishes, and prints a line of JSON for each step. Whatever a repository
does to a parser, or the hub to its client, it does here and not in the daemon.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import msgspec

from vllamad.core.model_name import ModelName, parse
from vllamad.errors import BadInput, HostProblem, VllamadError
from vllamad.models import store
from vllamad.models.facts import read_facts
from vllamad.models.files import read_bounded
from vllamad.models.manifests import Manifest, StoredFile
from vllamad.models.origins import Origin, origin_in
from vllamad.models.plan import RemoteFile, check_space, choose
from vllamad.wire.control import Problem, Progress, encode_line

REPORT_INTERVAL = 0.1  # seconds between two lines about one file
SMALL_FILE_LIMIT = 64 << 20  # bytes of a file the hub keeps in git itself

# Set before the hub library is imported, as it reads them once.
ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_SHARED_BLOBS": "1",  # a snapshot's files stay in its repository's folder
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DOWNLOAD_TIMEOUT": "60",  # seconds without a byte
}

Report = Callable[[Progress], None]


def main() -> int:
    """Pull argv's NAME into argv's STORE; 0 done, 1 refused with the reason as the last line.

    ORIGIN is the JSON of one, for a name that does not say itself where it comes from.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    signal.signal(signal.SIGTERM, _leave)
    try:
        origin = msgspec.json.decode(sys.argv[3], type=Origin) if sys.argv[3:] else None
        pull(Path(sys.argv[1]), parse(sys.argv[2]), _print, origin)
    except VllamadError as error:
        problem = Problem(kind=error.kind, message=error.message, hint=error.hint)
        _print(Progress(error=problem, done=True))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def pull(models: Path, name: ModelName, report: Report, origin: Origin | None = None) -> Manifest:
    """Fetch, verify and publish `origin`, else the repository that `name` itself spells.

    Nothing is visible before all of it is. Raises whatever stopped it, each with its own text.
    """
    from vllamad.models import hub

    report(Progress(status="pulling manifest"))
    origin = origin or origin_in(name)
    repository = origin.repository
    hub.be_careful()
    folder = store.repository_folder(*repository.split("/", 1))
    with store.changing(models, folder), store.disk_problems(f"pull {repository}"):
        _sweep(store.hub(models) / folder)
        snapshot = hub.look_up(repository, origin.revision)
        files = choose(repository, snapshot.files)
        place = store.hub(models) / folder / "snapshots" / snapshot.commit
        missing = [file for file in files if not (place / file.path).exists()]
        models.mkdir(parents=True, exist_ok=True)
        check_space(repository, sum(file.size for file in missing), shutil.disk_usage(models).free)
        for file in files:
            report(_step(file, 0))
            hub.fetch(store.hub(models), snapshot, file, _Meter(file, report).moved)
            report(_step(file, file.size))
        report(Progress(status="verifying sha256 digest"))
        stored = tuple(verify(place, file) for file in files)
        _refuse_unusable(models, place)
        report(Progress(status="writing manifest"))
        _note_revision(place, origin.revision)
        manifest = store.publish(
            models, name, place, stored,
            source=repository, revision=snapshot.commit, license=snapshot.license,
            variant=origin.variant,
        )  # fmt: skip
    report(Progress(status="success", done=True))
    return manifest


def verify(place: Path, file: RemoteFile) -> StoredFile:
    """Hash what was fetched and compare it with what the hub said; a file that differs is removed.

    Raises HostProblem for one that differs.
    """
    path = place / file.path
    stored = store.hash_file(place, file.path)
    actual = stored.sha256 if file.large else git_digest(read_bounded(path, SMALL_FILE_LIMIT))
    if actual != file.digest:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise HostProblem(
            f"digest mismatch, file must be downloaded again: want {file.digest}, got {actual}",
            hint=f"{file.path} was removed; pull again",
        )
    return stored


def git_digest(content: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class _Meter:
    """Turns bytes as they come into a line now and then."""

    def __init__(self, file: RemoteFile, report: Report) -> None:
        self._file = file
        self._report = report
        self._completed = 0
        self._told = time.monotonic()

    def moved(self, count: int) -> None:
        # Never past the end, never back: a resumed transfer may count some bytes twice.
        self._completed = min(self._completed + max(0, count), self._file.size)
        if time.monotonic() - self._told >= REPORT_INTERVAL:
            self._told = time.monotonic()
            self._report(_step(self._file, self._completed))


def _step(file: RemoteFile, completed: int) -> Progress:
    if not file.large:  # kilobytes, and the hub gives no SHA-256 of them
        return Progress(status=f"pulling {file.path}")
    return Progress(
        status=f"pulling {file.digest[:12]}",
        digest=f"sha256:{file.digest}",
        total=file.size,
        completed=completed,
    )


def _sweep(repository: Path) -> None:
    """Remove what a killed pull left half written; nobody else is in here."""
    for left in repository.glob("blobs/*.incomplete"):
        left.unlink()


def _refuse_unusable(models: Path, place: Path) -> None:
    """Read the model once before it is visible: here a hostile header can hurt nobody."""
    try:
        read_facts(place)
    except BadInput:
        store.discard(models, str(place.relative_to(models)))
        raise


def _note_revision(place: Path, revision: str) -> None:
    """Tell other tools on this cache which commit the revision is."""
    refs = place.parent.parent / "refs"
    refs.mkdir(exist_ok=True)
    (refs / revision).write_text(place.name)


def _print(progress: Progress) -> None:
    try:
        sys.stdout.buffer.write(encode_line(progress))
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:  # whoever asked has gone
        raise KeyboardInterrupt from error


def _leave(number: int, frame: FrameType | None) -> None:
    """As for Ctrl-C: what is half written is removed on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
