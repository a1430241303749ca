"""The real engine as a container runs it: any uid, no HOME, a read-only root, a noexec /tmp."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.container import UID, contained, problem
from tests.support.daemon import Daemon, free_port
from tests.support.real_engine import MODEL, QUESTION

pytestmark = pytest.mark.e2e


@pytest.mark.case("F7")
def test_the_demo_s_question_is_answered_in_a_container(prepared: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="vt-", dir="/tmp") as folder:
        home = Path(folder)
        before = [*contained(home), "env", "-u", "HOME", "--chdir", str(home)]
        if why := problem(before):
            pytest.skip(why)
        inside = [
            *before,
            "sh",
            "-c",
            'id -un; touch /x; cp /bin/true /tmp/ && /tmp/true; echo "$HOME"',
        ]
        seen = subprocess.run(inside, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
        assert "cannot find name" in seen.stderr, "the uid has a passwd entry"
        assert "'/x': Read-only file system" in seen.stderr
        assert "/tmp/true: Permission denied" in seen.stderr, "/tmp runs programs"
        assert seen.stdout.split() in ([], [str(UID)]), "there is a HOME"
        (home / "vllamad.toml").write_text(f'[paths]\nstate = "{prepared}/state"\n')
        one = Daemon(home, free_port(), home / "run")
        one.http.timeout = 300.0
        try:
            one.start({}, before=before)
            answer = one.chat(MODEL, QUESTION, options={"temperature": 0, "num_predict": 30})
            assert "Paris" in answer.json()["message"]["content"]
            told = subprocess.run(
                [*before, sys.executable, "-m", "vllamactl", "ps"],
                env=one.environment(),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert MODEL in told.stdout, told.stderr
            assert one.stop() == 0
        except BaseException:
            print(one.text(), *(log.read_text()[-3000:] for log in (home / "logs").glob("*.log")))
            raise
        finally:
            one.http.close()
            if one.process is not None and not one.process_ended():
                one.process.kill()
                one.process.wait()
        assert sorted(os.listdir(home)) == ["cache", "logs", "run", "vllamad.log", "vllamad.toml"]
