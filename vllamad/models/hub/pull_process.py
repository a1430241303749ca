"""One pull, in a process of its own.

`python -m vllamad.models.hub.pull_process FD STORE NAME [ORIGIN]`
Plans, fetches, verifies, publishes, and writes a line of JSON for each step to the descriptor FD.
Whatever a repository does to a parser, or the hub to its client, it does here and not in the
daemon.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

import msgspec

from vllamad.core.model_name import ModelName, parse_model_name
from vllamad.errors import HostProblem, VllamadError
from vllamad.models.checkpoint.metadata import read_facts
from vllamad.models.hub.download import Fetching, Interrupted, Report
from vllamad.models.hub.file_selection import RemoteFile, check_space, choose
from vllamad.models.registry.resolve import Origin, origin_in
from vllamad.models.store import model_store
from vllamad.models.store.manifests import Manifest, StoredFile
from vllamad.protocol.control import Progress, encode_line, failed

INTERRUPTED = 130  # exit status, as of a program that Ctrl-C ended

# Set before the hub library is imported, as it reads them once.
ENVIRONMENT = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_SHARED_BLOBS": "1",  # a snapshot's files stay in its repository's folder
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DOWNLOAD_TIMEOUT": "60",  # seconds without a byte
}


# The variables that huggingface_hub reads as numbers, while it is imported.
NUMBERS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")


def main() -> int:
    """Pull argv's NAME into argv's STORE; 0 done, 1 refused with the reason as the last line.

    ORIGIN is the JSON of one, for a name that does not say itself where it comes from.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_leave_with_the_daemon, daemon=True).start()
    descriptor, models, name, *origins = sys.argv[1:]
    os.set_inheritable(int(descriptor), False)
    tell = partial(_tell, int(descriptor))
    try:
        origin = msgspec.json.decode(origins[0], type=Origin) if origins else None
        check_environment(name, os.environ)
        pull(Path(models), parse_model_name(name), tell, origin)
    except VllamadError as error:
        tell(failed(error))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def check_environment(name: str, environ: Mapping[str, str]) -> None:
    """Raise HostProblem for a variable that the hub's library could not read."""
    for variable in NUMBERS:
        text = environ.get(variable, "")
        if text and not re.fullmatch(r"\s*\+?[0-9]{1,9}\s*", text):
            raise HostProblem(
                f"cannot pull {parse_model_name(name).display()}: {variable}: {text!r} is not a"
                " whole number of seconds",
                hint=f"unset {variable} in the daemon's environment, or correct it",
            )


def pull(models: Path, name: ModelName, report: Report, origin: Origin | None = None) -> Manifest:
    """Fetch, verify and publish `origin`, else the repository that `name` itself spells.

    Nothing is visible before all of it is. What another pull or removal does to the repository is
    waited for, and told as if it was ours. Raises whatever stopped it, each with its own text.
    """
    from vllamad.models.hub import hub_api

    report(Progress(status="pulling manifest"))
    origin = origin or origin_in(name)
    repository = origin.repository
    hub_api.be_careful()
    folder = model_store.repository_folder(*repository.split("/", 1))
    with model_store.disk_problems(f"pull {repository}"):
        snapshot = hub_api.look_up(repository, origin.revision)
        files = choose(repository, snapshot.files)
        place = model_store.hub(models) / folder
        fetching = Fetching(place, snapshot.commit, partial(hub_api.fetch, snapshot), report)
        with model_store.changing(models, folder, meanwhile=partial(fetching.tell, files)):
            place /= f"snapshots/{snapshot.commit}"
            stored = _bring(models, repository, place, fetching, files)
            report(Progress(status="writing manifest"))
            _note_revision(place, origin.revision)
            manifest = model_store.publish(
                models, name, place, stored,
                source=repository, revision=snapshot.commit, license=snapshot.license,
                variant=origin.variant,
            )  # fmt: skip
    report(Progress(status="success", done=True))
    return manifest


def _bring(
    models: Path, repository: str, place: Path, fetching: Fetching, files: Sequence[RemoteFile]
) -> tuple[StoredFile, ...]:
    """Have all files in `place`. What could be of no use to another try is removed."""
    fetching.keep_only(files)
    models.mkdir(parents=True, exist_ok=True)
    missing = sum(fetching.missing(file) for file in files)
    check_space(repository, missing, shutil.disk_usage(models).free)
    try:
        stored = fetching.run(files)
        fetching.report(Progress(status="verifying sha256 digest"))
        read_facts(place)  # here a hostile header can hurt nobody
    except Interrupted:
        raise
    except VllamadError:
        model_store.discard(models, str(place.relative_to(models)))
        raise
    return stored


def _note_revision(place: Path, revision: str) -> None:
    """Tell other tools on this cache which commit the revision is."""
    refs = place.parent.parent / "refs"
    refs.mkdir(exist_ok=True)
    (refs / revision).write_text(place.name)


def _tell(descriptor: int, progress: Progress) -> None:
    line = encode_line(progress)
    try:
        while line:
            line = line[os.write(descriptor, line) :]
    except BrokenPipeError:  # whoever asked has gone
        os._exit(INTERRUPTED)


def _leave(number: int, frame: FrameType | None) -> None:
    """At once: the beginnings that are on disk are what the next try goes on from."""
    os._exit(INTERRUPTED)


def _leave_with_the_daemon() -> None:
    """It holds the other end of our standard input as long as it lives, and writes nothing."""
    os.read(0, 1)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    status = main()
    # Threads may still wait for the hub; nobody waits for them.
    os._exit(status)
