"""What a line of our own log looks like, and that writing it neither waits nor fails."""

from __future__ import annotations

import json
import logging
import os
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.paths import ROOT
from vllamad.core.lifecycle import State
from vllamad.host.log import (
    LINE_LIMIT,
    LineHandler,
    configure,
    escape,
    event,
    json_line,
    text_line,
)
from vllamad.host.log_events import LogEvent


def record(message="worker ready", **fields):
    return with_fields(message, fields)


def with_fields(message, fields):
    return logging.makeLogRecord(
        {"name": "vllamad.x", "levelno": logging.INFO, "msg": message, "created": 1795413240.1234}
        | {"fields": fields}
    )


class Pipe:
    """A log whose reader we are."""

    def __init__(self):
        self.read_end, self.write_end = os.pipe()

    def lines(self):
        return os.read(self.read_end, 1 << 20).decode().splitlines()

    def close(self):
        os.close(self.read_end)
        os.close(self.write_end)


@pytest.fixture
def pipe():
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def logger(pipe):
    logger = logging.Logger("vllamad.test")
    logger.addHandler(LineHandler(pipe.write_end))
    return logger


def test_a_text_line_has_time_level_message_and_fields():
    assert text_line(record(model="smollm2:135m", pid=123)) == (
        "2026-11-23T05:54:00.123Z INFO worker ready model=smollm2:135m pid=123"
    )


def test_a_json_line_is_one_object():
    assert json.loads(json_line(record(model="m", pid=1, took=0.25, ok=True))) == {
        "time": "2026-11-23T05:54:00.123Z",
        "level": "info",
        "logger": "vllamad.x",
        "message": "worker ready",
        "model": "m",
        "pid": 1,
        "took": 0.25,
        "ok": True,
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("two words", 'x="two words"'),
        ("", 'x=""'),
        ('a"b', 'x="a\\"b"'),
        ("a=b", 'x="a=b"'),
        (True, "x=true"),
        (1.23456789, "x=1.234568"),
        (float("inf"), "x=inf"),
        (["a"], "x=['a']"),
        ("\x1b[31mred\n", 'x="\\x1b[31mred\\n"'),
        ("a\u202eb", 'x="a\\u202eb"'),
        ("\ud800", 'x="\\ud800"'),
        ("é", "x=é"),
    ],
)
def test_a_field_is_quoted_and_escaped_where_it_must_be(value, text):
    assert text_line(record(x=value)).endswith(f"worker ready {text}")


def test_a_field_without_a_value_is_left_out():
    assert text_line(record(x=None)).endswith("worker ready")


def test_json_has_no_numbers_that_are_none():
    assert json.loads(json_line(record(x=float("nan"))))["x"] == "nan"


def test_no_field_can_pose_as_one_of_ours():
    assert json.loads(json_line(record(level="error", time="never")))["level"] == "info"


def test_a_long_value_is_cut_to_one_kibibyte():
    value = json.loads(json_line(record(x="é" * 5000)))["x"]
    assert 1000 < len(value.encode()) <= 1024
    assert value.endswith("...")


@given(st.text(), st.dictionaries(st.text(min_size=1), st.text(max_size=3000)))
def test_whatever_is_logged_is_one_line_without_control_characters(message, fields):
    for spell in (text_line, json_line):
        line = spell(with_fields(message, fields))
        assert not re.search("[\x00-\x1f\x7f-\x9f]", line)
        assert len(line.splitlines()) == 1
    assert len(line.encode()) <= LINE_LIMIT
    json.loads(line)


def test_what_was_raised_is_a_field_of_its_line(logger, pipe):
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("it failed")
    (line,) = pipe.lines()
    assert line.endswith('ValueError: two\\nlines"')


def test_an_event_may_have_a_field_of_any_name(logger, pipe):
    event(logger, logging.INFO, "100 %", message="a", level="b", logger="c")
    assert pipe.lines()[0].endswith("INFO 100 % message=a level=b logger=c")


def test_the_name_of_an_event_stands_after_its_message(logger, pipe):
    event(logger, logging.INFO, "worker ready", LogEvent.WORKER_READY, model="m")
    assert pipe.lines()[0].endswith("INFO worker ready event=worker.ready model=m")


def test_every_name_of_an_event_is_documented():
    page = (ROOT / "docs" / "systemd.md").read_text().partition("| event | what happened |")[2]
    documented = re.findall(r"^\| `([a-z_]+(?:\.[a-z_]+)?)` \|", page, re.MULTILINE)
    assert documented == [str(name) for name in LogEvent]


def test_every_name_of_an_event_is_used_in_one_place_at_least():
    sources = "".join(path.read_text() for path in (ROOT / "vllamad").rglob("*.py"))
    states = {f"worker.{state}" for state in State}
    unused = [name for name in LogEvent if f"LogEvent.{name.name}" not in sources]
    assert {str(name) for name in unused} <= states


def test_a_long_line_is_cut_to_what_a_pipe_takes_whole(logger, pipe):
    event(logger, logging.INFO, "x", **{f"f{n}": "y" * 2000 for n in range(9)})
    (line,) = pipe.lines()
    assert len(line) == LINE_LIMIT - 1


def test_a_long_json_line_loses_its_last_fields_and_stays_json():
    line = json_line(record(**{f"f{n}": "y" * 1000 for n in range(9)}))
    assert list(json.loads(line))[-3:] == ["f0", "f1", "f2"]


def test_a_reader_that_stopped_loses_lines_and_is_told_how_many(logger, pipe):
    capacity = 1 << 16
    for _ in range(2 * capacity // 1000):
        event(logger, logging.INFO, "x" * 1000)
    first = pipe.lines()
    event(logger, logging.INFO, "again")
    lost, again = pipe.lines()
    assert lost.endswith(f"WARNING log lines lost lines={2 * capacity // 1000 - len(first)}")
    assert again.endswith("INFO again")


def test_a_log_that_is_gone_is_no_error(logger, pipe):
    os.close(pipe.read_end)
    event(logger, logging.INFO, "x")
    pipe.read_end = os.open("/dev/null", os.O_RDONLY)


def test_a_message_that_cannot_be_made_is_no_error(logger, pipe):
    class Unprintable:
        def __str__(self):
            raise RuntimeError("no")

    event(logger, logging.INFO, "x", value=Unprintable())
    event(logger, logging.INFO, "y")
    assert [line.split(" ", 1)[1] for line in pipe.lines()] == [
        "WARNING log lines lost lines=1",
        "INFO y",
    ]


def test_lines_of_several_threads_stay_whole(logger, pipe):
    def write(name):
        for _ in range(20):
            event(logger, logging.INFO, name * 500)

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = pipe.lines()
    assert len(lines) == 40
    assert all(re.search(r"INFO (a{500}|b{500})$", line) for line in lines)


@pytest.fixture
def restored_logging():
    root, ours = logging.getLogger(), logging.getLogger("vllamad")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def test_libraries_are_heard_only_when_they_warn(pipe, restored_logging):
    configure(level="info", environ={}, fd=pipe.write_end)
    logging.getLogger("httpx").info("GET http://127.0.0.1/?key=secret")
    logging.getLogger("httpx").warning("slow")
    logging.getLogger("vllamad.worker").info("ready")
    logging.getLogger("vllamad.worker").debug("detail")
    assert [line.split(" ", 1)[1] for line in pipe.lines()] == ["WARNING slow", "INFO ready"]


def test_the_journal_gets_priorities_in_place_of_times(pipe, restored_logging):
    status = os.fstat(pipe.write_end)
    environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    configure(environ=environ, fd=pipe.write_end)
    logging.getLogger("vllamad.a").info("ready")
    logging.getLogger("vllamad.a").error("gone")
    assert pipe.lines() == ["<6>INFO ready", "<3>ERROR gone"]


def test_another_stream_than_the_journals_gets_none(pipe, restored_logging):
    configure(format="json", environ={"JOURNAL_STREAM": "1:2"}, fd=pipe.write_end)
    logging.getLogger("vllamad.a").info("ready")
    assert json.loads(pipe.lines()[0])["message"] == "ready"


def test_a_descriptor_that_is_closed_is_not_the_journals(restored_logging):
    configure(environ={"JOURNAL_STREAM": "1:2"}, fd=9999)
    logging.getLogger("vllamad.a").info("ready")


def test_escaping_leaves_text_alone():
    assert escape("Grüße, 世界 🙂") == "Grüße, 世界 🙂"
