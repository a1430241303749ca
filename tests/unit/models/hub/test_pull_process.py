"""A pull against a real hub client and a little hub: whole and verified, or not there at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.fakes import hub as fake
from tests.support.checkpoints import CHATML_TEMPLATE, SMOLLM2, header_of
from tests.support.daemon import ROOT, until
from vllamad.core.model_name import parse_model_name
from vllamad.errors import BadInput, HostProblem, ModelNotFound, NotAllowed
from vllamad.host.processes.shim import descendants
from vllamad.models.hub.download import AT_ONCE
from vllamad.models.hub.pull_runner import run_pull
from vllamad.models.installed import InstalledModels
from vllamad.models.registry.resolve import Origin
from vllamad.models.store import model_store
from vllamad.models.store.manifests import list_manifests
from vllamad.protocol.control import Progress

pytestmark = pytest.mark.integration

NAME = parse_model_name("org/tiny")
ELEMENTS = 500_000


def safetensors(elements: int) -> bytes:
    entries, size = header_of({"w": ("BF16", (elements,))})
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + bytes(range(250)) * (size // 250)


FILES = {
    "config.json": json.dumps(SMOLLM2).encode(),
    "tokenizer_config.json": json.dumps({"chat_template": CHATML_TEMPLATE}).encode(),
    "README.md": b"# tiny",
    "model.safetensors": safetensors(ELEMENTS),
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with fake.running(dict(FILES)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


async def pulled(
    models: Path, name: str = "org/tiny", origin: Origin | None = None
) -> list[Progress]:
    steps: list[Progress] = []

    async def report(step: Progress) -> None:
        steps.append(step)

    with trio.fail_after(60):
        await run_pull(models, parse_model_name(name), report, origin, environ=os.environ)
    return steps


async def started(models: Path) -> trio.Process:
    """A pull as a process that the test itself holds."""
    command = [
        sys.executable,
        "-m",
        "vllamad.models.hub.pull_process",
        "1",
        str(models),
        "org/tiny",
    ]
    return await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def parts(models: Path) -> list[Path]:
    return list((models / "hub").rglob("*.incomplete"))


def left_over(models: Path) -> list[str]:
    """What is on disk beside whole blobs and the links to them."""
    return [str(path) for path in parts(models)]


async def test_a_pulled_model_is_whole_verified_and_found(hub, models):
    steps = await pulled(models)
    found = InstalledModels(models, {}).find("Org/Tiny")
    assert found is not None
    assert found.facts.parameter_count == ELEMENTS
    assert found.license == "apache-2.0"
    manifest = list_manifests(models).manifests[0]
    assert (manifest.source, manifest.revision) == ("org/tiny", fake.COMMIT)
    paths = ["README.md", "config.json", "tokenizer_config.json", "model.safetensors"]
    assert [file.path for file in manifest.files] == paths
    assert steps[-1] == Progress(status="success", done=True)


async def test_progress_is_told_as_ollama_does(hub, models):
    steps = await pulled(models)
    weights = [step for step in steps if step.digest]
    size = len(FILES["model.safetensors"])
    assert steps[0].status == "pulling manifest"
    assert {step.status for step in weights} == {f"pulling {hub.etag('model.safetensors')[:12]}"}
    assert {(step.digest, step.total) for step in weights} == {
        (f"sha256:{hub.etag('model.safetensors')}", size)
    }
    completed = [step.completed for step in weights]
    assert completed == sorted(completed)
    assert completed[-1] == size
    assert [step.status for step in steps[-3:]] == [
        "verifying sha256 digest", "writing manifest", "success",
    ]  # fmt: skip


async def test_other_tools_find_the_files_in_the_cache(hub, models):
    await pulled(models)
    command = [
        sys.executable, "-c",
        "import sys, huggingface_hub as h; print(h.hf_hub_download('org/tiny', 'config.json',"
        " cache_dir=sys.argv[1], local_files_only=True))",
        str(model_store.hub_folder(models)),
    ]  # fmt: skip
    found = await trio.run_process(command, capture_stdout=True)
    path = trio.Path(found.stdout.decode().strip())
    assert await path.read_bytes() == FILES["config.json"]


async def test_neither_code_nor_pickles_are_fetched(hub, models):
    await pulled(models)
    assert sorted(hub.fetched()) == [
        "README.md", "config.json", "model.safetensors", "tokenizer_config.json",
    ]  # fmt: skip


async def test_a_second_pull_fetches_nothing(hub, models):
    await pulled(models)
    before = len(hub.fetched())
    await pulled(models)
    assert len(hub.fetched()) == before


async def test_a_new_commit_takes_the_place_of_the_old_one(hub, models):
    await pulled(models)
    hub.commit = "f" * 40
    hub.files["README.md"] = b"# new"
    await pulled(models)
    repository = models / "hub/models--org--tiny"
    assert [path.name for path in (repository / "snapshots").iterdir()] == ["f" * 40]
    assert fake.git_digest(b"# tiny") not in os.listdir(repository / "blobs")
    assert hub.fetched().count("model.safetensors") == 1


async def test_the_token_goes_to_the_hub_and_nowhere_else(hub, models, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    await pulled(models)
    told = {path.startswith("/cdn/"): token for _, path, token in hub.requests}
    assert told == {True: False, False: True}


async def test_a_cut_connection_is_taken_up_again(hub, models):
    hub.cut["model.safetensors"] = [1000, 50_000]
    await pulled(models)
    assert InstalledModels(models, {}).find("org/tiny") is not None


@pytest.mark.parametrize(
    ("name", "refusal", "error", "text"),
    [
        ("org/tiny", (401, "RepoNotFound"), ModelNotFound, "file does not exist"),
        ("org/tiny:v9", (404, "RevisionNotFound"), ModelNotFound, "file does not exist"),
        ("org/tiny", (403, "GatedRepo"), NotAllowed, "cannot pull org/tiny: it is gated"),
        (
            "org/tiny",
            (501, "x"),
            HostProblem,
            "cannot pull org/tiny: the hub answered with HTTP status 501",
        ),
        ("other/repo", None, ModelNotFound, "pull model manifest: file does not exist"),
        ("smollm2:135m", None, ModelNotFound, "pull model manifest: file does not exist"),
        ("evil.example/org/tiny", None, ModelNotFound, "file does not exist"),
    ],
)
async def test_a_refusal_says_what_it_is(hub, models, name, refusal, error, text):
    hub.refuse = refusal
    with pytest.raises(error, match=text):
        await pulled(models, name)
    assert list_manifests(models).manifests == ()


async def test_a_hub_that_cannot_be_reached_is_said_so(hub, models, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HostProblem, match="cannot pull org/tiny: the hub cannot be reached"):
        await pulled(models)


async def test_no_question_is_asked_offline(hub, models, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HostProblem, match="HF_HUB_OFFLINE is set"):
        await pulled(models)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
async def test_a_flipped_byte_is_found_and_the_file_fetched_again(hub, models, name):
    true = hub.files[name]
    hub.serve[name] = true[:-2] + bytes([true[-2] ^ 1]) + true[-1:]
    with pytest.raises(HostProblem, match="digest mismatch, file must be downloaded again: want"):
        await pulled(models)
    assert hub.fetched().count(name) == 2
    assert not (models / "hub/models--org--tiny").exists()
    del hub.serve[name]
    await pulled(models)
    assert InstalledModels(models, {}).find("org/tiny") is not None


async def test_a_shorter_file_than_announced_is_refused(hub, models):
    hub.serve["model.safetensors"] = FILES["model.safetensors"][:-500]
    with pytest.raises(HostProblem, match="its size differs from the 1"):
        await pulled(models)
    assert list_manifests(models).manifests == ()
    assert left_over(models) == []


@pytest.mark.parametrize("etag", ["../../../../escaped", "/tmp/escaped", "0" * 39])
async def test_an_etag_that_is_no_digest_never_becomes_a_path(hub, models, etag):
    hub.etags["config.json"] = etag
    with pytest.raises(BadInput, match="its commit or etag is not a digest"):
        await pulled(models)
    assert list(models.parent.rglob("escaped*")) == []


async def test_a_repository_without_safetensors_is_refused(hub, models):
    del hub.files["model.safetensors"]
    with pytest.raises(BadInput, match="it has no safetensors weights"):
        await pulled(models)
    assert hub.fetched() == []


async def test_a_hostile_header_is_refused_before_the_model_is_visible(hub, models):
    hub.files["model.safetensors"] = (2**62).to_bytes(8, "little") + b"{}"
    with pytest.raises(BadInput, match="its header does not fit"):
        await pulled(models)
    assert not (models / "hub/models--org--tiny").exists()


async def test_a_cancelled_pull_goes_on_later_from_where_it_was(hub, models):
    hub.stall = "model.safetensors"
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pulled, models)
            await trio.to_thread.run_sync(hub.stalled.wait, 30)
            nursery.cancel_scope.cancel()
    assert list_manifests(models).manifests == ()
    hub.stall = ""
    await pulled(models)
    assert InstalledModels(models, {}).find("org/tiny") is not None
    assert left_over(models) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_killed_pull_goes_on_from_what_it_had(hub, models, number):
    large = FILES["model.safetensors"]
    hub.files["model.safetensors"] = hub.serve["model.safetensors"] = big = safetensors(12_000_000)
    hub.stall = "model.safetensors"
    process = await started(models)
    await trio.to_thread.run_sync(hub.stalled.wait, 30)
    await trio.to_thread.run_sync(
        until, lambda: any(part.stat().st_size > len(large) for part in parts(models))
    )
    process.send_signal(number)
    await process.wait()
    (had,) = (part.stat().st_size for part in parts(models) if part.stat().st_size > len(large))
    hub.stall = ""
    hub.ranges.clear()
    await pulled(models)
    assert hub.ranges == [f"bytes={had}-"]
    assert had < len(big)
    assert left_over(models) == []


async def test_a_beginning_that_is_none_of_this_file_is_found_out_and_replaced(hub, models):
    blobs = models / "hub/models--org--tiny/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hub.etag('model.safetensors')}.incomplete").write_bytes(b"x" * 5000)
    (blobs / f"{'0' * 64}.incomplete").write_bytes(b"of another commit")
    await pulled(models)
    assert left_over(models) == []
    assert InstalledModels(models, {}).find("org/tiny") is not None


async def test_files_of_the_same_content_are_fetched_once_and_are_all_there(hub, models):
    same = safetensors(2000)
    names = [f"{number}_Dense/model.safetensors" for number in range(16)]
    hub.files |= dict.fromkeys(names, same)
    await pulled(models)
    (manifest,) = list_manifests(models).manifests
    assert {file.path for file in manifest.files} >= set(names)
    assert len([path for _, path, _ in hub.requests if "_Dense" in path and "/cdn/" in path]) == 1


async def test_a_hub_that_begins_anew_is_followed(hub, models):
    blobs = models / "hub/models--org--tiny/blobs"
    blobs.mkdir(parents=True)
    part = blobs / f"{hub.etag('model.safetensors')}.incomplete"
    part.write_bytes(FILES["model.safetensors"][:5000])
    hub.whole = True
    steps = await pulled(models)
    completed = [step.completed for step in steps if step.digest]
    assert completed == sorted(completed)
    assert InstalledModels(models, {}).find("org/tiny") is not None


async def test_who_is_asked_too_often_is_heard(hub, models):
    hub.busy = [1, 1]
    await pulled(models)
    assert hub.busy == []
    assert InstalledModels(models, {}).find("org/tiny") is not None


async def test_a_pull_waits_for_who_changes_its_repository_and_tells_of_what_comes(hub, models):
    size = len(FILES["model.safetensors"])
    part = models / f"hub/models--org--tiny/blobs/{hub.etag('model.safetensors')}.incomplete"
    part.parent.mkdir(parents=True)
    with model_store.repository_lock(models, model_store.repository_folder("org", "tiny")):
        waiting = await started(models)
        assert waiting.stdout is not None
        heard = await waiting.stdout.receive_some()
        part.write_bytes(FILES["model.safetensors"][: size // 2])
        with trio.fail_after(30):
            while f'"completed":{size // 2}'.encode() not in heard:
                heard += await waiting.stdout.receive_some()
        assert hub.fetched() == []
    with trio.fail_after(30):
        while more := await waiting.stdout.receive_some():
            heard += more
        assert await waiting.wait() == 0
    assert list_manifests(models).manifests != ()


async def test_of_two_names_for_one_repository_the_second_finds_what_the_first_brought(hub, models):
    hub.stall = "model.safetensors"
    origin = Origin(repository="org/tiny", variant="bf16")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pulled, models)
        await trio.to_thread.run_sync(hub.stalled.wait, 30)
        nursery.start_soon(pulled, models, "tiny:1b", origin)
        await trio.to_thread.run_sync(until, lambda: len(looked_up(hub)) == 2)
        hub.go_on.set()
    first, second = list_manifests(models).manifests
    assert first.folder == second.folder
    assert {parse_model_name(first.name).display(), parse_model_name(second.name).display()} == {
        "org/tiny:latest", "tiny:1b",
    }  # fmt: skip
    assert sorted(hub.fetched()) == sorted(set(hub.fetched()))


def looked_up(hub: fake.Hub) -> list[str]:
    return [path for _, path, _ in hub.requests if path.startswith("/api/")]


async def test_many_small_files_are_not_told_of_one_by_one(hub, models):
    hub.files |= {f"part{number}.json": b"%d" % number for number in range(200)}
    steps = await pulled(models)
    names = [step for step in steps if step.status.endswith((".json", ".md"))]
    assert 1 <= len(names) < 100


async def test_many_files_take_no_thread_each(hub, models):
    hub.files |= {f"part{number}.json": b"%d" % number for number in range(60)}
    hub.stall = "model.safetensors"
    process = await started(models)
    await trio.to_thread.run_sync(hub.stalled.wait, 30)
    threads = len(os.listdir(f"/proc/{process.pid}/task"))
    process.kill()
    await process.wait()
    assert threads <= AT_ONCE + 10


async def test_a_pull_nobody_listens_to_ends(hub, models):
    hub.stall = "model.safetensors"
    process = await started(models)
    await trio.to_thread.run_sync(hub.stalled.wait, 30)
    assert process.stdout is not None
    await process.stdout.aclose()
    hub.go_on.set()
    with trio.fail_after(30):
        assert await process.wait() == 130
    assert list_manifests(models).manifests == ()


async def test_a_pull_whose_process_dies_says_so(hub, models, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(HostProblem, match="its process ended: exit status 1"):
        await pulled(models)


def is_a_pull(pid: int) -> bool:
    return b"vllamad.models.hub.pull_process" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_pull_whose_process_is_killed_says_by_what(hub, models, number):
    hub.stall = "model.safetensors"
    told: list[str] = []

    async def pull_it() -> None:
        with pytest.raises(HostProblem) as raised:
            await pulled(models)
        told.append(raised.value.message)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull_it)
            await trio.to_thread.run_sync(hub.stalled.wait, 30)
            # Other tests may have children of their own: it is the one that pulls.
            (child,) = [one for one in descendants(os.getpid()) if is_a_pull(one.pid)]
            os.kill(child.pid, number)
    assert told[0].startswith(
        f"cannot pull org/tiny:latest: its process ended: killed by {number.name}"
    ), told
    if number == signal.SIGKILL:
        assert "MiB" in told[0]


@pytest.mark.case("F12")
async def test_what_a_library_prints_is_logged_and_not_taken_for_a_step(
    hub, models, tmp_path, monkeypatch, caplog
):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        'import os, sys\nprint(\'{"status":"success","done":true}\')\n'
        "print('hello from a library', file=sys.stderr)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    caplog.set_level("INFO")
    steps = await pulled(models)
    assert [step.status for step in steps].count("success") == 1
    assert InstalledModels(models, {}).find("org/tiny") is not None
    printed = [
        record.fields["line"] for record in caplog.records if record.message == "output of a pull"
    ]
    assert "hello from a library" in printed


@pytest.mark.case("F12")
@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("HF_HUB_DOWNLOAD_TIMEOUT", "abc", "HF_HUB_DOWNLOAD_TIMEOUT is 'abc', not a whole number"),
        ("HF_HUB_ETAG_TIMEOUT", "1.5", "HF_HUB_ETAG_TIMEOUT is '1.5', not a whole number"),
        (
            "HTTPS_PROXY",
            "nonsense://x:1",
            "the proxy or certificates in the environment are invalid",
        ),
        (
            "SSL_CERT_FILE",
            "/nonexistent",
            "the proxy or certificates in the environment are invalid",
        ),
    ],
)
async def test_a_wrong_variable_of_the_hub_s_library_is_named(
    hub, models, monkeypatch, variable, text, told
):
    monkeypatch.setenv(variable, text)
    with pytest.raises(HostProblem) as raised:
        await pulled(models)
    assert told in raised.value.message
    assert variable in raised.value.message + raised.value.hint
    assert hub.requests == []


@pytest.mark.case("F12")
async def test_a_pull_that_breaks_tells_its_own_last_words(hub, models, tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    (site / "huggingface_hub.py").write_text("raise ValueError('no such thing')")
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    with pytest.raises(HostProblem, match="exit status 1: ValueError: no such thing"):
        await pulled(models)
