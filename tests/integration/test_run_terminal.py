"""Promises of `vllamactl run`, typed at a real terminal and in pipes, with the scripted engine."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.fakes.hub import Hub
from tests.support.checkpoints import BERT, GEMMA3, write_checkpoint
from tests.support.daemon import Daemon, daemon, fake_config, fake_home
from tests.support.terminal import at_terminal

pytestmark = pytest.mark.integration

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PARIS = "The capital of France is Paris."


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Generator[Daemon]:
    """A daemon with a quick model `a`, some that are slow, or die."""
    home = fake_home(tmp_path_factory.mktemp("run"), ["a", "slow", "mortal", "late"])
    more = ""
    for folder in (
        write_checkpoint(home / "bert", BERT, modules_json="[]"),
        write_checkpoint(home / "eyes", GEMMA3),
    ):
        more += f'[model.{folder.name}]\npath = "{folder}"\n'
    scenarios = {
        "slow": {"rate": 10.0, "tokens": 600},
        "mortal": {"die_after": 3},
        "late": {"load": 4.0},
    }
    config = fake_config(scenarios=scenarios, more=more)
    with daemon(home, config=config, environ={"HF_ENDPOINT": hub.endpoint}) as one:
        yield one


def test_a_conversation(served: Daemon) -> None:
    with at_terminal(served, "run", "a") as terminal:
        terminal.reads(">>>")
        terminal.type("What is the capital of France?")
        terminal.reads(PARIS, ">>>")
        terminal.type("/set verbose")
        terminal.reads("Set 'verbose' mode.", ">>>")
        terminal.type("and again?")
        seen = terminal.reads(PARIS, "eval rate:", ">>>")
        assert "total duration:" in seen
        assert "prompt eval count:" in seen
        terminal.press("d")
        assert terminal.ends() == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(served: Daemon) -> None:
    with at_terminal(served, "run", "slow") as terminal:
        terminal.reads(">>>")
        terminal.type("go on for long")
        terminal.reads("capital")
        terminal.press("c")
        terminal.reads(">>>")
        terminal.press("c")
        terminal.reads("Use Ctrl + d or /bye to exit.", ">>>")
        terminal.type("/bye")
        assert terminal.ends() == 0


def test_a_message_of_many_lines(served: Daemon) -> None:
    with at_terminal(served, "run", "a") as terminal:
        terminal.reads(">>>")
        terminal.type('"""/bye')
        terminal.reads("...")
        terminal.type("is no command here")
        terminal.reads("...")
        terminal.type('"""')
        terminal.reads(PARIS, ">>>")
        terminal.type("/save lines")
        terminal.reads("Created new model 'lines'", ">>>")
    (first, _) = served.http.post("/api/show", json={"model": "lines"}).json()["messages"]
    assert first["content"] == "/bye\nis no command here\n"


def test_a_conversation_is_saved_and_loaded(served: Daemon) -> None:
    with at_terminal(served, "run", "a") as terminal:
        terminal.reads(">>>")
        terminal.type('/set system """You are terse.')
        terminal.reads("...")
        terminal.type('Very."""')
        terminal.reads("Set system message.", ">>>")
        terminal.type("/set parameter temperature 0.5")
        terminal.reads("Set parameter 'temperature' to '0.5'", ">>>")
        terminal.type("/set parameter stop END STOP")
        terminal.reads("Set parameter 'stop' to 'END, STOP'", ">>>")
        terminal.type("hello")
        terminal.reads(PARIS, ">>>")
        terminal.type("/save kept")
        terminal.reads("Created new model 'kept'", ">>>")
        terminal.type("/load kept")
        terminal.reads("Loading model 'kept'", ">>>")
        terminal.type("/show system")
        terminal.reads("You are terse.", "Very.", ">>>")
        terminal.type("/load nothing")
        terminal.reads("Couldn't find model 'nothing'", ">>>")
        terminal.type("still there?")
        terminal.reads(PARIS, ">>>")
    shown = served.http.post("/api/show", json={"model": "kept"}).json()
    assert shown["system"] == "You are terse.\nVery."
    assert [one["role"] for one in shown["messages"]] == ["user", "assistant"]
    assert "temperature                    0.5" in shown["parameters"]
    with at_terminal(served, "run", "kept") as terminal:  # it begins with what was said
        terminal.reads(">>> hello", PARIS, ">>>")


def test_commands_answer_and_mistakes_end_nothing(served: Daemon) -> None:
    with at_terminal(served, "run", "a") as terminal:
        terminal.reads(">>>")
        for typed, told in (
            ("/?", "Available Commands:"),
            ("/? shortcuts", "Ctrl + a"),
            ("/set", "/set parameter ..."),
            ("/set parameter top_k many", "cannot set top_k to 'many'"),
            ("/set parameter heat 1", "unknown parameter 'heat'"),
            ("/set format nothing.json", "cannot read nothing.json"),
            ("/set format json", "Set format to 'json' mode."),
            ("/set noformat", "Disabled format."),
            ("/set think", "does not support thinking"),
            ("hi", '"a" does not support thinking'),
            ("/set nothink", "Set 'nothink' mode."),
            ("/show", "/show license"),
            ("/show info", "architecture"),
            ("/show modelfile", "FROM a"),
            ("/show parameters", "Model defined parameters:"),
            ("/show sense", "Unknown command '/show sense'"),
            ("/list", "NAME"),
            ("/clear", "Cleared session context"),
            ("/nonsense", "Unknown command '/nonsense'"),
            ("/load", "Usage:"),
            ("/save ../x", "invalid model name"),
        ):
            terminal.type(typed)
            terminal.reads(told, ">>>")
        terminal.type("hi")
        terminal.reads(PARIS, ">>>")


def test_what_was_typed_can_be_had_again_in_the_next_session(served: Daemon) -> None:
    state = {"XDG_STATE_HOME": str(served.home / "another")}
    with at_terminal(served, "run", "a", environ=state) as terminal:
        terminal.reads(">>>")
        terminal.type("remember me")
        terminal.reads(PARIS, ">>>")
        terminal.type("/set nohistory")
        terminal.reads("Set 'nohistory' mode.", ">>>")
        terminal.type("forget me")
        terminal.reads(PARIS, ">>>")
    with at_terminal(served, "run", "a", environ=state) as terminal:
        terminal.reads(">>>")
        terminal.press("p")  # the line before: /set nohistory
        terminal.press("p")
        terminal.reads("remember me")
        terminal.press("c")
        terminal.reads(">>>")
    kept = served.home / "another" / "vllamad" / "chat_history"
    assert "forget me" not in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_words_are_not_cut_at_the_margin(served: Daemon) -> None:
    with at_terminal(served, "run", "slow") as terminal:
        terminal.child.setwinsize(40, 30)
        terminal.reads(">>>")
        terminal.type("go on")
        seen = terminal.reads("capital", "capital", "capital")
        terminal.press("c")
        terminal.reads(">>>")
    assert all(len(line) <= 30 for line in seen.splitlines()[1:])


def test_thoughts_are_shown_apart_and_not_kept(acting: Daemon) -> None:
    with at_terminal(acting, "run", "deepseek_r1") as terminal:
        terminal.reads(">>>")
        terminal.type("How is the weather?")
        terminal.reads("Thinking...", "I should ask for it.", "...done thinking.")
        terminal.reads("I do not know the weather in Zürich.", ">>>")


def test_an_image_is_sent_by_its_path(served: Daemon, tmp_path: Path) -> None:
    picture = tmp_path / "a picture.png"
    picture.write_bytes(PIXEL)
    path = str(picture).replace(" ", "\\ ")
    with at_terminal(served, "run", "eyes") as terminal:
        terminal.reads(">>>")
        terminal.type("/?")
        terminal.reads("include .jpg, .png, or .webp images", ">>>")
        terminal.type(f"{path} what is this?")
        terminal.reads(PARIS, ">>>")
        terminal.type("/save seen")
        terminal.reads("Created new model 'seen'", ">>>")
    (asked, _) = served.http.post("/api/show", json={"model": "seen"}).json()["messages"]
    assert asked["content"] == "what is this?"


def test_a_model_that_only_embeds_gives_a_vector_and_no_conversation(served: Daemon) -> None:
    assert len(json.loads(piped(served, "run", "bert", "hi").stdout)) > 1
    with at_terminal(served, "run", "bert") as terminal:
        terminal.reads("cannot chat with bert: it only makes embeddings")
        assert terminal.ends() == 1


def piped(
    served: Daemon, *words: str, given: bytes = b"", code: int = 0, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "vllamactl", *words],
        input=given,
        env=served.environment() | {"VLLAMAD_CONTROL": str(served.run / "control.sock")} | environ,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def test_piped_words_are_the_prompt(served: Daemon) -> None:
    done = piped(served, "run", "a", given=b"hi")
    assert (done.stdout.decode().strip(), done.stderr) == (PARIS, b"")


def test_piped_words_come_before_those_of_the_command_line(served: Daemon, tmp_path: Path) -> None:
    asked = served.home / "asked"
    done = piped(served, "run", "a", "summarise", "--verbose", "this", given=b"a text\n")
    assert done.stdout.decode().strip() == PARIS
    assert b"eval count:" in done.stderr
    assert not asked.exists()


def test_one_answer_as_json(served: Daemon) -> None:
    reply = json.loads(piped(served, "run", "--json", "a", "hi").stdout)
    assert (reply["model"], reply["response"], reply["done"]) == ("a", PARIS, True)


def test_without_a_prompt_nothing_but_the_model_is_loaded(served: Daemon) -> None:
    assert piped(served, "run", "--keepalive", "1h", "a").stdout == b""
    loaded = served.http.get("/api/ps").json()["models"]
    assert "a:latest" in [model["name"] for model in loaded]


def test_a_prompt_larger_than_the_server_takes_is_refused(served: Daemon) -> None:
    done = piped(served, "run", "a", given=b"x" * (40 << 20), code=1)
    assert done.stderr.decode().startswith("✗ ")
    assert b"Traceback" not in done.stderr


def test_odd_bytes_and_a_closed_input_are_no_reason_to_fail(served: Daemon) -> None:
    assert piped(served, "run", "a", "\udcff", given=b"\xff\x00").stdout.decode().strip() == PARIS
    command = f"{sys.executable} -m vllamactl run a hi <&-"
    done = subprocess.run(
        ["sh", "-c", command],
        env=served.environment() | {"VLLAMAD_CONTROL": str(served.run / "control.sock")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout.strip(), done.stderr) == (PARIS, "")


def test_a_load_shows_how_far_it_is(served: Daemon) -> None:
    with at_terminal(served, "run", "late") as terminal:
        terminal.reads("loading late", ">>>")


def test_a_conversation_outlives_the_engine(served: Daemon) -> None:
    with at_terminal(served, "run", "mortal") as terminal:
        terminal.reads(">>>")
        terminal.type("hi")
        terminal.reads("✗", ">>>")
        terminal.type("/set verbose")
        terminal.reads("Set 'verbose' mode.", ">>>")
        terminal.press("d")
        assert terminal.ends() == 0


def test_a_pull_at_a_terminal_draws_bars_and_leaves_a_line(served: Daemon, hub: Hub) -> None:
    hub.hold("model.safetensors")
    try:
        with at_terminal(served, "pull", "org/tiny") as terminal:
            terminal.reads("pulling org/tiny", "╺", " B/")
            hub.go_on.set()
            terminal.reads("✓", " pulled org/tiny")
            assert terminal.ends() == 0
    finally:
        hub.release()


def test_a_model_is_kept_for_as_long_as_was_wished(served: Daemon) -> None:
    piped(served, "run", "a", "--keepalive=-1m", "hi")
    assert "Forever" in served.ctl("ps", "a:")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a", "--format", "no.json", "hi"], "✗ cannot read no.json: no such file or directory"),
        (["a", "--format", "{]", "hi"], "✗ cannot use the format: "),
        (["a", "--keepalive", "soon", "hi"], '✗ time: invalid duration "soon"'),
        (["a", "--think", "hi"], '✗ "a" does not support thinking'),
        (["../x", "hi"], "✗ "),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(
    served: Daemon, words: list[str], told: str
) -> None:
    done = piped(served, "run", *words, code=1)
    assert done.stderr.decode().startswith(told)


def test_a_schema_shapes_the_answer(served: Daemon, tmp_path: Path) -> None:
    schema = tmp_path / "s.json"
    schema.write_text('{"type": "object", "properties": {"a": {"type": "integer"}}}')
    assert piped(served, "run", "a", "--format", str(schema), "hi").stdout.strip()


def test_ollama_host_is_asked_where_no_daemon_is_named(served: Daemon, tmp_path: Path) -> None:
    environ = served.environment() | {"OLLAMA_HOST": f"127.0.0.1:{served.port}"}
    environ = {key: value for key, value in environ.items() if not key.startswith("VLLAMAD_")}
    done = subprocess.run(
        [sys.executable, "-m", "vllamactl", "run", "a", "hi"],
        stdin=subprocess.DEVNULL,
        env=environ | {"XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout.strip(), done.stderr) == (PARIS, "")


def test_a_server_that_is_not_there_is_exit_code_3(served: Daemon, tmp_path: Path) -> None:
    done = piped(served, "run", "a", "hi", code=3, VLLAMAD_CONTROL=str(tmp_path / "none"))
    assert "cannot reach vllamad" in done.stderr.decode()
