"""One pull, in a process of its own: `python -m vllamad.models.hub.pull_process FD STORE NAME`.

Plans, fetches, verifies, publishes, and writes a line of JSON for each step to the descriptor FD.
The process isolates the daemon from hostile repositories and from the hub's library. A fourth
argument, ORIGIN, is the JSON of an Origin.
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
from vllamad.models.hub.download import DownloadInterrupted, Report, RepositoryDownload
from vllamad.models.hub.file_selection import RemoteFile, check_space, choose_files
from vllamad.models.registry.resolve import Origin, origin_from_name
from vllamad.models.store import model_store
from vllamad.models.store.manifests import Manifest, StoredFile
from vllamad.protocol.control import Progress, encode_line, failed

INTERRUPTED = 130  # exit status, as after Ctrl-C

# Set before the hub's library is imported, which reads them once.
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
    """Pull argv's NAME into argv's STORE. Returns 0 when done, 1 with the error as the last line.

    ORIGIN is needed for a name that does not contain its repository.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in ENVIRONMENT.items()})
    signal.signal(signal.SIGTERM, _exit_at_once)
    threading.Thread(target=_exit_with_daemon, daemon=True).start()
    descriptor, models, name, *origins = sys.argv[1:]
    os.set_inheritable(int(descriptor), False)
    report = partial(_write_step, int(descriptor))
    try:
        origin = msgspec.json.decode(origins[0], type=Origin) if origins else None
        check_environment(name, os.environ)
        pull_into_store(Path(models), parse_model_name(name), report, origin)
    except VllamadError as error:
        report(failed(error))
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def check_environment(name: str, environ: Mapping[str, str]) -> None:
    """Raise HostProblem for a variable that the hub's library cannot read."""
    for variable in NUMBERS:
        text = environ.get(variable, "")
        if text and not re.fullmatch(r"\s*\+?[0-9]{1,9}\s*", text):
            raise HostProblem(
                f"cannot pull {parse_model_name(name).display()}: {variable} is {text!r}, not a"
                " whole number of seconds",
                hint=f"correct or unset {variable} in the daemon's environment",
            )


def pull_into_store(
    models: Path, name: ModelName, report: Report, origin: Origin | None = None
) -> Manifest:
    """Fetch, verify and publish `origin`, else the repository that `name` itself contains.

    The model becomes visible when it is complete. Waits while another process changes the same
    repository, and reports that one's progress. Raises the error that stopped the pull.
    """
    from vllamad.models.hub import hub_api

    report(Progress(status="pulling manifest"))
    origin = origin or origin_from_name(name)
    repository = origin.repository
    hub_api.configure_hub_client()
    folder = model_store.repository_folder(*repository.split("/", 1))
    with model_store.disk_problems(f"pull {repository}"):
        snapshot = hub_api.read_snapshot(repository, origin.revision)
        files = choose_files(repository, snapshot.files)
        repository_path = model_store.hub_folder(models) / folder
        download = RepositoryDownload(
            repository_path, snapshot.commit, partial(hub_api.fetch_file, snapshot), report
        )
        with model_store.repository_lock(
            models, folder, meanwhile=partial(download.report_sizes, files)
        ):
            path = repository_path / "snapshots" / snapshot.commit
            stored = _download(models, repository, path, download, files)
            report(Progress(status="writing manifest"))
            _write_ref(path, origin.revision)
            manifest = model_store.publish_model(
                models, name, path, stored,
                source=repository, revision=snapshot.commit, license=snapshot.license,
                variant=origin.variant,
            )  # fmt: skip
    report(Progress(status="success", done=True))
    return manifest


def _download(
    models: Path,
    repository: str,
    path: Path,
    download: RepositoryDownload,
    files: Sequence[RemoteFile],
) -> tuple[StoredFile, ...]:
    """Download all files into `path`. Files that another try cannot use are removed."""
    download.keep_only(files)
    models.mkdir(parents=True, exist_ok=True)
    missing = sum(download.missing(file) for file in files)
    check_space(repository, missing, shutil.disk_usage(models).free)
    try:
        stored = download.run(files)
        download.report(Progress(status="verifying sha256 digest"))
        read_facts(path)  # a hostile header can crash only this process
    except DownloadInterrupted:
        raise
    except VllamadError:
        model_store.discard_snapshot(models, str(path.relative_to(models)))
        raise
    return stored


def _write_ref(snapshot: Path, revision: str) -> None:
    """Record the commit of the revision, for other tools that read this cache."""
    refs = snapshot.parent.parent / "refs"
    refs.mkdir(exist_ok=True)
    (refs / revision).write_text(snapshot.name)


def _write_step(descriptor: int, progress: Progress) -> None:
    line = encode_line(progress)
    try:
        while line:
            line = line[os.write(descriptor, line) :]
    except BrokenPipeError:  # the daemon no longer reads
        os._exit(INTERRUPTED)


def _exit_at_once(number: int, frame: FrameType | None) -> None:
    """Exit without cleanup: the next try continues from the partial files on disk."""
    os._exit(INTERRUPTED)


def _exit_with_daemon() -> None:
    """Exit when the daemon does: it holds the other end of standard input and writes nothing."""
    os.read(0, 1)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    status = main()
    # Does not wait for threads that are still connected to the hub.
    os._exit(status)
