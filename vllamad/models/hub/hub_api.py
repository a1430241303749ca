"""Speaks to a Hugging Face hub: what a repository holds, and the bytes of its files.

Every other module is spared the hub library and its errors. Runs in the pull's own process.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

import httpx2
from huggingface_hub import (
    HfApi,
    constants,
    hf_hub_url,
    is_offline_mode,
    set_client_factory,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import (
    http_get,  # pyright: ignore[reportUnknownVariableType]
)
from huggingface_hub.utils import (
    build_hf_headers,  # pyright: ignore[reportUnknownVariableType]
    tqdm,
)

from vllamad.errors import BadInput, HostProblem, ModelNotFound, NotAllowed
from vllamad.models.hub.download import CountBytes, DownloadInterrupted, PartialFile, size_mismatch
from vllamad.models.hub.file_selection import RemoteFile
from vllamad.models.registry.resolve import NO_MANIFEST

# The library's own types are partly unknown.
_headers = cast("Callable[[], dict[str, str]]", build_hf_headers)
_download = cast("Callable[..., None]", http_get)

# What a client of HTTP takes from the environment.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_CONNECTION = (*_PROXIES, *map(str.lower, _PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR")

_PIECE = 256 << 10

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r'(W/)?"?([0-9a-f]{40}|[0-9a-f]{64})"?')


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A repository at one commit."""

    repository: str
    commit: str  # 40 hex digits
    license: str
    files: tuple[RemoteFile, ...]


def read_snapshot(repository: str, revision: str) -> Snapshot:
    """Ask the hub what a repository holds.

    Raises ModelNotFound with Ollama's text, NotAllowed for a gated one, HostProblem for no answer.
    """
    if is_offline_mode():
        raise HostProblem(f"cannot pull {repository}: HF_HUB_OFFLINE is set")
    with hub_problems(repository):
        found = HfApi().model_info(repository, revision=revision, files_metadata=True)
    if not found.sha or not _COMMIT.fullmatch(found.sha):
        raise HostProblem(f"cannot pull {repository}: the hub does not say which commit it gives")
    files = [
        RemoteFile(
            path=sibling.rfilename,
            size=-1 if sibling.size is None else sibling.size,
            digest=(sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or "",
            large=sibling.lfs is not None,
        )
        for sibling in found.siblings or ()
    ]
    licenses = [tag.removeprefix("license:") for tag in found.tags or () if "license:" in tag]
    return Snapshot(
        repository=repository,
        commit=found.sha,
        license=next(iter(licenses), ""),
        files=tuple(files),
    )


def fetch_file(
    snapshot: Snapshot, file: RemoteFile, target: PartialFile, moved: CountBytes
) -> None:
    """Append to `target` what it lacks of a file; `moved` hears of bytes as they come.

    A connection that ends early is made again, from where it ended. Raises as `look_up` does.
    """

    class Bar(tqdm):
        """Shows nothing, and passes the bytes on."""

        monitor_interval = 0  # else each file's bar has a thread that wakes it up, for ever

        def update(self, n: float | None = 1) -> None:
            moved(int(n or 0))

    if file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:  # the hub does not send those this way
        raise BadInput(
            f"cannot pull {snapshot.repository}: {file.path} has {file.size} bytes, at most "
            f"{constants.MAX_HTTP_DOWNLOAD_SIZE} can be fetched as one file"
        )
    with hub_problems(snapshot.repository, file):
        _download(
            hf_hub_url(snapshot.repository, file.path, revision=snapshot.commit),
            cast("BinaryIO", target),  # all that is done with it
            resume_size=target.start,
            headers=_headers(),
            expected_size=file.size,
            displayed_filename=file.path,
            tqdm_class=Bar,
        )


def configure_hub_client() -> None:
    """Check every answer of the hub before anything is made of it, and keep more of what comes."""

    def client() -> httpx2.Client:
        return httpx2.Client(
            follow_redirects=True, timeout=None, event_hooks={"response": [_check_answer]}
        )

    try:
        client().close()
    except (OSError, ValueError, httpx2.InvalidURL) as error:
        raise HostProblem(
            "cannot ask the hub: the environment names a proxy or certificates that cannot be"
            f" used: {error}",
            hint="see " + ", ".join(name for name in _CONNECTION if os.environ.get(name)),
        ) from error
    set_client_factory(client)
    # What a connection has brought of a piece is lost with it, and five that bring none are the
    # end: 10 MiB, the library's own measure, is more than some lines bring.
    constants.DOWNLOAD_CHUNK_SIZE = _PIECE


def _check_answer(response: httpx2.Response) -> None:
    commit = response.headers.get("x-repo-commit")
    if commit is None:
        return
    etag = response.headers.get("x-linked-etag") or response.headers.get("etag") or ""
    if not (_COMMIT.fullmatch(commit) and _ETAG.fullmatch(etag)):
        raise BadInput("cannot use the hub's answer: its commit or etag is not a digest")


@contextmanager
def hub_problems(repository: str, file: RemoteFile | None = None) -> Generator[None]:
    """Say what the hub's library raises in words and kinds of our own."""
    try:
        yield
    except GatedRepoError as error:
        raise NotAllowed(
            f"cannot pull {repository}: it is gated",
            hint="accept its terms on its page, and give vllamad a token: hub.token_file, or the "
            "credential hf_token",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise not_found(repository) from error
    except HfHubHTTPError as error:
        raise _refusal(repository, error.response) from error
    except (LocalEntryNotFoundError, httpx2.HTTPError) as error:
        raise DownloadInterrupted(
            f"cannot pull {repository}: the hub cannot be reached",
            hint="see that this machine is online, or set hub.endpoint to a hub it can reach; "
            "what has come already is kept",
        ) from error
    except OSError as error:
        # The library's own, for a file of another size than announced
        if error.errno is None:
            assert file is not None
            raise size_mismatch(file) from error
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise HostProblem(
            f"cannot pull {repository}: {error.strerror}",
            hint="free some space and try again: what had come was removed" if full else "",
        ) from error


def _refusal(repository: str, response: httpx2.Response) -> HostProblem:
    """What an answer other than 2xx means, once the library has tried often enough."""
    status = response.status_code
    if status == 429:
        after = response.headers.get("retry-after", "")
        return DownloadInterrupted(
            f"cannot pull {repository}: the hub is asked too often for now",
            hint=(f"try again in {after} s" if after.isdecimal() else "try again later")
            + "; with a token the hub allows more",
        )
    kind = DownloadInterrupted if status >= 500 else HostProblem
    return kind(f"cannot pull {repository}: the hub answered {status}")


def not_found(repository: str) -> ModelNotFound:
    """What Ollama says of a name no registry knows."""
    return ModelNotFound(
        NO_MANIFEST,
        hint=f"there is no {repository} on the hub, or it is not public",
    )
