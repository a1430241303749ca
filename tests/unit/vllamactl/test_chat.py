"""Promises of the parts of a chat that need no daemon: requests, images, wrapping, timings."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest

from vllamactl.chat.answer import Answer, Writer
from vllamactl.chat.conversation import (
    ChatSession,
    ReplyMessage,
    ResponsePiece,
    Shown,
    go_duration,
    summary,
)
from vllamactl.chat.formats import LIMIT as SCHEMA_LIMIT
from vllamactl.chat.formats import read_format
from vllamactl.chat.image_paths import LIMIT, take_images
from vllamactl.chat.terminal import Typed, read_message
from vllamactl.commandline import parse
from vllamactl.commands.run_command import normalize_think
from vllamactl.control_client import ControlClient
from vllamactl.ollama_client import Address, find_api
from vllamactl.render import Screen
from vllamad.errors import BadInput, HostProblem, NotReachable

THINKS = Shown(capabilities=["completion", "thinking"])


class Typist:
    """Types these lines, one after the other."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.prompts: list[str] = []

    def read(self, prompt: str) -> str:
        self.prompts.append(prompt)
        if not self.lines:
            raise EOFError
        return self.lines.pop(0)


@pytest.mark.parametrize(
    ("lines", "typed"),
    [
        (["hello"], Typed("hello", quoted=False)),
        (['"""one"""'], Typed("one", quoted=True)),
        (['"""one', "two", 'three"""  '], Typed("one\ntwo\nthree", quoted=True)),
        (['/set system """a', 'b"""'], Typed("/set system a\nb", quoted=False)),
        (['say """x"""'], Typed('say """x"""', quoted=False)),
        (['"""', "", '"""'], Typed("\n\n", quoted=True)),
    ],
)
def test_a_message_of_many_lines_is_between_triple_quotes(lines: list[str], typed: Typed) -> None:
    typist = Typist(*lines)
    assert read_message(typist) == typed
    assert typist.prompts == [">>> "] + ["... "] * (len(lines) - 1)


def test_a_request_has_the_system_message_first_and_then_what_was_said() -> None:
    session = ChatSession(model="m", system="be terse", options={"seed": 1}, format="json")
    session.turns = [ReplyMessage(role="user", content="hi", images=["aGk="])]
    assert session.chat() == {
        "model": "m",
        "options": {"seed": 1},
        "format": "json",
        "messages": [
            {"role": "system", "content": "be terse"},
            {"role": "user", "content": "hi", "images": ["aGk="]},
        ],
    }


@pytest.mark.parametrize(
    ("think", "shown", "sent"),
    [(None, Shown(), None), (None, THINKS, True), (False, THINKS, False), ("high", THINKS, "high")],
)
def test_a_model_that_can_think_does_unless_told_otherwise(
    think: bool | str | None, shown: Shown, sent: object
) -> None:
    assert ChatSession(model="m", think=think, shown=shown).chat().get("think") == sent


def test_a_saved_conversation_has_what_the_model_began_with() -> None:
    session = ChatSession(
        model="m", shown=Shown(messages=[ReplyMessage(role="user", content="before")])
    )
    session.turns = [
        ReplyMessage(role="user", content="hi"),
        ReplyMessage(role="assistant", content="ho"),
    ]
    made = session.create("kept")
    assert (made["model"], made["from"]) == ("kept", "m")
    assert [one["content"] for one in made["messages"]] == ["before", "hi", "ho"]  # pyright: ignore
    assert "system" not in made


@pytest.mark.parametrize(
    ("name", "words", "value"),
    [("top_k", ["7"], 7), ("stop", ["a", "b"], ["a", "b"]), ("use_mmap", ["false"], False)],
)
def test_an_option_gets_its_own_type(name: str, words: list[str], value: object) -> None:
    assert ChatSession(model="m").set_option(name, words) == value


def test_an_option_that_takes_one_value_refuses_two() -> None:
    with pytest.raises(BadInput, match="cannot set seed to 2 values"):
        ChatSession(model="m").set_option("seed", ["1", "2"])


@pytest.mark.parametrize(
    ("nanoseconds", "said"),
    [
        (0, "0s"), (999, "999ns"), (1_500, "1.5µs"), (12_345_678, "12.345678ms"),
        (1_000_000_000, "1s"), (2_050_000_000, "2.05s"), (62_500_000_000, "1m2.5s"),
        (3_600_000_000_000, "1h0m0s"),
    ],
)  # fmt: skip
def test_durations_are_those_of_go(nanoseconds: int, said: str) -> None:
    assert go_duration(nanoseconds) == said


def test_timings_are_spelled_as_people_know_them() -> None:
    last = ResponsePiece(
        done=True, total_duration=3_000_000_000, load_duration=1_000_000, prompt_eval_count=20,
        prompt_eval_duration=100_000_000, eval_count=50, eval_duration=2_000_000_000,
    )  # fmt: skip
    assert summary(last) == [
        "total duration:       3s",
        "load duration:        1ms",
        "prompt eval count:    20 token(s)",
        "prompt eval duration: 100ms",
        "prompt eval rate:     200.00 tokens/s",
        "eval count:           50 token(s)",
        "eval duration:        2s",
        "eval rate:            25.00 tokens/s",
    ]
    assert summary(ResponsePiece()) == []


def written(columns: int, *pieces: str, careful: bool = False) -> str:
    out = io.StringIO()
    writer = Writer(out, columns, careful=careful)
    for piece in pieces:
        writer.write(piece)
    writer.flush()
    return out.getvalue()


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        (["hello wide ", "world"], "hello wide \nworld"),
        (["hello wi", "de", "r world"], "hello wider \nworld"),
        (["a\nhello wide"], "a\nhello wide"),
        (["word " * 4], "word word word \nword "),
        (["x" * 40], "x" * 40),
        (["漢字漢字漢字漢字漢"], "漢字漢字漢字漢\n字漢"),
    ],
)
def test_no_word_is_cut_at_the_margin(pieces: list[str], said: str) -> None:
    assert written(20, *pieces) == said


def test_without_a_width_everything_is_written_as_it_comes() -> None:
    assert written(0, "a" * 50, " \x1b[2J") == "a" * 50 + " \x1b[2J"


def test_a_terminal_is_not_steered_by_an_answer() -> None:
    assert written(0, "a\x1b[2J\tb\nc", careful=True) == "a�[2J\tb\nc"


def answered(*pieces: ResponsePiece, hide_thinking: bool = False) -> tuple[str, ReplyMessage]:
    out = io.StringIO()
    screen = Screen(json=False, quiet=False, out=out, err=io.StringIO(), environ={})
    answer = Answer(screen, wrap=True, hide_thinking=hide_thinking)
    for piece in pieces:
        answer.add(piece)
    answer.end()
    return out.getvalue(), answer.message


THOUGHT = (ResponsePiece(thinking="hm"), ResponsePiece(thinking="m"), ResponsePiece(response="yes"))


def test_thoughts_stand_apart_from_the_answer() -> None:
    text, said = answered(*THOUGHT)
    assert text == "Thinking...\nhmm\n...done thinking.\n\nyes\n\n"
    assert (said.thinking, said.content) == ("hmm", "yes")


def test_thoughts_can_be_hidden() -> None:
    assert answered(*THOUGHT, hide_thinking=True)[0] == "yes\n\n"


def test_an_answer_of_thoughts_alone_ends_on_a_line_of_its_own() -> None:
    assert answered(THOUGHT[0])[0] == "Thinking...\nhm\n...done thinking.\n\n\n\n"


@pytest.mark.parametrize("spelled", ["{0}/a b.png", "{0}/odd.JPEG"])
def test_images_are_taken_out_of_the_text(tmp_path: Path, spelled: str) -> None:
    path = Path(spelled.format(tmp_path))
    path.write_bytes(b"pixels")
    text = f"what is in {str(path).replace(' ', chr(92) + ' ')} please"
    assert take_images(text) == ("what is in  please", [base64.b64encode(b"pixels").decode()])
    assert take_images(f"'{path}' what?")[0] == "what?"


@pytest.mark.parametrize(
    "text", ["what is /nowhere/a.png", "and/or.png", "/tmp", "see /etc/hosts", f"/{'x' * 5000}.png"]
)
def test_what_is_no_image_stays_in_the_text(text: str) -> None:
    assert take_images(text) == (text, [])


def test_an_image_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(HostProblem, match="over 20 MiB"):
        take_images(str(path))


@pytest.mark.parametrize(
    ("text", "meant"),
    [("json", "json"), ('{"type": "object"}', {"type": "object"}), ("{file}", {"a": 1})],
)
def test_a_format_is_json_or_a_schema(tmp_path: Path, text: str, meant: object) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"a": 1}')
    assert read_format(text.replace("{file}", str(file))) == meant


@pytest.mark.parametrize(
    ("content", "told"), [(b"[1]", "is an object"), (b" " * (SCHEMA_LIMIT + 1), "at most")]
)
def test_what_is_no_schema_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "schema.json"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=told):
        read_format(str(file))


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("", Address()),
        ("0.0.0.0:1234", Address(port=1234)),
        ("[::]:1234", Address(host="::1", port=1234)),
        ("https://gpu.example", Address(host="gpu.example", port=443, tls=True)),
        ("gpu.example", Address(host="gpu.example")),
    ],
)
def test_without_a_named_daemon_ollama_host_says_where_it_is(
    tmp_path: Path, told: str, address: Address
) -> None:
    nobody = ControlClient((tmp_path / "a", tmp_path / "b"))
    assert find_api(nobody, {"OLLAMA_HOST": told}) == address


def test_a_daemon_that_is_named_is_the_only_one_asked(tmp_path: Path) -> None:
    with pytest.raises(NotReachable):
        find_api(ControlClient((tmp_path / "a",)), {"OLLAMA_HOST": "gpu.example"})


def test_think_takes_no_word_but_its_own() -> None:
    assert normalize_think(["run", "--think", "m", "--", "--think"])[1:] == [
        "--think=true", "m", "--", "--think",
    ]  # fmt: skip


def test_the_words_of_a_prompt_may_stand_between_options() -> None:
    args = parse(["run", "m", "say", "--verbose", "hello", "--think=low", "now"])
    assert (args.model, args.prompt, args.think) == ("m", ["say", "hello", "now"], "low")


@pytest.mark.parametrize("words", [["run", "m", "--nonsense"], ["ps", "one", "two"]])
def test_a_word_too_many_is_a_mistake(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(words)
    assert left.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err
