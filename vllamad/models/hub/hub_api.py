"""The client of a Hugging Face hub: lists the files of a repository and fetches their bytes.

The only module that imports huggingface_hub and handles its errors. Runs in the pull's process.
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

# The library's types are partly unknown.
_headers = cast("Callable[[], dict[str, str]]", build_hf_headers)
_download = cast("Callable[..., None]", http_get)

# The variables that an HTTP client reads.
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
    """List the files of a repository at a revision.

    Raises ModelNotFound with Ollama's text, NotAllowed for a gated repository, and HostProblem
    where the hub does not answer.
    """
    if is_offline_mode():
        raise HostProblem(
            f"cannot pull {repository}: HF_HUB_OFFLINE is set",
            hint="unset HF_HUB_OFFLINE in the daemon's environment",
        )
    with hub_problems(repository):
        found = HfApi().model_info(repository, revision=revision, files_metadata=True)
    if not found.sha or not _COMMIT.fullmatch(found.sha):
        raise HostProblem(
            f"cannot pull {repository}: the hub names no commit",
            hint="see that hub.endpoint is the address of a Hugging Face hub",
        )
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
    """Append the missing bytes of a file to `target`; `moved` is called with each count of bytes.

    A connection that ends early is made again and continues there. Raises as `read_snapshot` does.
    """

    class Bar(tqdm):
        """A progress bar that displays nothing and passes the counts on."""

        monitor_interval = 0  # otherwise tqdm keeps a monitor thread per bar

        def update(self, n: float | None = 1) -> None:
            moved(int(n or 0))

    if file.size > constants.MAX_HTTP_DOWNLOAD_SIZE:  # the hub refuses larger files over HTTP
        raise BadInput(
            f"cannot pull {snapshot.repository}: {file.path} has {file.size} bytes, at most "
            f"{constants.MAX_HTTP_DOWNLOAD_SIZE} can be fetched as one file"
        )
    with hub_problems(snapshot.repository, file):
        _download(
            hf_hub_url(snapshot.repository, file.path, revision=snapshot.commit),
            cast("BinaryIO", target),  # http_get uses only the methods it has
            resume_size=target.start,
            headers=_headers(),
            expected_size=file.size,
            displayed_filename=file.path,
            tqdm_class=Bar,
        )


def configure_hub_client() -> None:
    """Set up the library's HTTP client: check each response, and use small pieces."""

    def client() -> httpx2.Client:
        return httpx2.Client(
            follow_redirects=True, timeout=None, event_hooks={"response": [_check_response]}
        )

    try:
        client().close()
    except (OSError, ValueError, httpx2.InvalidURL) as error:
        raise HostProblem(
            "cannot reach the hub: the proxy or certificates in the environment are invalid:"
            f" {error}",
            hint="correct " + ", ".join(name for name in _CONNECTION if os.environ.get(name)),
        ) from error
    set_client_factory(client)
    # A broken connection loses its unfinished piece, and the library gives up after five that
    # complete none: its default of 10 MiB is too much for slow connections.
    constants.DOWNLOAD_CHUNK_SIZE = _PIECE


def _check_response(response: httpx2.Response) -> None:
    commit = response.headers.get("x-repo-commit")
    if commit is None:
        return
    etag = response.headers.get("x-linked-etag") or response.headers.get("etag") or ""
    if not (_COMMIT.fullmatch(commit) and _ETAG.fullmatch(etag)):
        raise BadInput("cannot read the hub's response: its commit or etag is not a digest")


@contextmanager
def hub_problems(repository: str, file: RemoteFile | None = None) -> Generator[None]:
    """Translate the errors of the hub's library into our own."""
    try:
        yield
    except GatedRepoError as error:
        raise NotAllowed(
            f"cannot pull {repository}: it is gated",
            hint="accept its terms on its page, and give vllamad a token with hub.token_file or"
            " the credential hf_token",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise not_found(repository) from error
    except HfHubHTTPError as error:
        raise _refusal(repository, error.response) from error
    except (LocalEntryNotFoundError, httpx2.HTTPError) as error:
        raise DownloadInterrupted(
            f"cannot pull {repository}: the hub cannot be reached",
            hint="check the network, or set hub.endpoint to a hub that this machine can reach; the "
            "files downloaded so far are kept",
        ) from error
    except OSError as error:
        # The library raises it for a file of another size than announced.
        if error.errno is None:
            assert file is not None
            raise size_mismatch(file) from error
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise HostProblem(
            f"cannot pull {repository}: {error.strerror}",
            hint="free some space and try again; the partial files were removed" if full else "",
        ) from error


def _refusal(repository: str, response: httpx2.Response) -> HostProblem:
    """The error for a status other than 2xx, after the library's own retries."""
    status = response.status_code
    if status == 429:
        after = response.headers.get("retry-after", "")
        return DownloadInterrupted(
            f"cannot pull {repository}: the hub limits the rate of requests",
            hint=(f"try again in {after} s" if after.isdecimal() else "try again later")
            + "; a token (hub.token_file) raises the limit",
        )
    kind = DownloadInterrupted if status >= 500 else HostProblem
    return kind(
        f"cannot pull {repository}: the hub answered with HTTP status {status}",
        hint="try again later" if status >= 500 else "",
    )


def not_found(repository: str) -> ModelNotFound:
    """The error for a name that the hub does not know, with Ollama's text."""
    return ModelNotFound(
        NO_MANIFEST,
        hint=f"the hub has no public repository {repository}; check its name",
    )
