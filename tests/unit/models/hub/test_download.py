"""Several files are brought at once; when one is stopped, the others change nothing any more."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from vllamad.errors import HostProblem
from vllamad.models.hub.download import CountBytes, PartialFile, RepositoryDownload
from vllamad.models.hub.file_selection import RemoteFile

LATE = b"comes when all is over"


def remote(path: str, content: bytes) -> RemoteFile:
    return RemoteFile(
        path=path, size=len(content), digest=hashlib.sha256(content).hexdigest(), large=True
    )


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("moment", ["before its file", "after its last byte"])
def test_once_a_file_has_stopped_the_pull_no_other_changes_the_folder(
    tmp_path: Path, moment: str
) -> None:
    """Whoever asked for them removes the folder: "Directory not empty" was what it was told."""
    over, ended = threading.Event(), threading.Event()
    late, bad = remote("late", LATE), remote("bad", b"bad")

    def fetch(file: RemoteFile, growing: PartialFile, moved: CountBytes) -> None:
        if file == bad:
            raise HostProblem("no such file")
        growing.write(LATE)
        assert over.wait(30)

    class Observed(RepositoryDownload):
        """Holds one file back until the pull is over, and says when that file has ended."""

        def _store(self, file: RemoteFile):
            try:
                if file == late and moment == "before its file":
                    assert over.wait(30)
                return super()._store(file)
            finally:
                if file == late:
                    ended.set()

    fetching = Observed(tmp_path, "commit", fetch, lambda _: None)
    with pytest.raises(HostProblem, match="no such file"):
        fetching.run([late, bad])
    before = everything(tmp_path)
    over.set()
    assert ended.wait(30)
    assert everything(tmp_path) == before
