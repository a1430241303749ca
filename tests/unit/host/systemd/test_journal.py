"""What reaches the journal: fields and priorities, by a socket that stands for it."""

from __future__ import annotations

import logging
import socket
import struct
import tempfile
from pathlib import Path

import pytest

from vllamad.host.log import JournalHandler, event
from vllamad.host.systemd.journal import (
    LINES_PER_SECOND,
    EngineLines,
    Journal,
    encode,
    engine_priority,
    field_name,
    open_journal,
)


class Reader:
    """The other end: what systemd-journald would read."""

    def __init__(self, folder):
        self.path = Path(folder) / "socket"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)

    def entry(self):
        return decode(self.socket.recv(1 << 16))

    def entries(self):
        found = []
        while True:
            try:
                found.append(self.entry())
            except BlockingIOError:
                return found


class Kept(logging.Handler):
    """Keeps what the journal did not take."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


def decode(data):
    """The native protocol, read as its page describes it."""
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + length], data[8 + length + 1 :]
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def reader():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        reader = Reader(folder)
        yield reader
        reader.socket.close()


@pytest.fixture
def journal(reader):
    journal = Journal(reader.path)
    yield journal
    journal.close()


@pytest.fixture
def otherwise():
    return Kept()


@pytest.fixture
def logger(journal, otherwise):
    logger = logging.Logger("vllamad.test")
    logger.addHandler(JournalHandler(journal, otherwise))
    return logger


def test_an_event_arrives_with_its_fields_its_priority_and_its_place(reader, logger):
    event(logger, logging.WARNING, "worker failed", model="m:latest", state="failed", worker_pid=7)
    entry = reader.entry()
    assert entry.pop("CODE_LINE").isdigit()
    assert entry.pop("CODE_FILE") == __file__
    assert entry == {
        "MESSAGE": "worker failed model=m:latest state=failed worker_pid=7",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "vllamad",
        "MODEL": "m:latest",
        "STATE": "failed",
        "WORKER_PID": "7",
        "LOGGER": "vllamad.test",
        "CODE_FUNC": "test_an_event_arrives_with_its_fields_its_priority_and_its_place",
    }


def test_a_field_cannot_speak_for_another(reader, logger):
    event(logger, logging.INFO, "x", priority="0", message="y", model="a\nPRIORITY=0")
    entry = reader.entry()
    assert entry["PRIORITY"] == "6"
    assert entry["MESSAGE"].startswith("x ")
    assert entry["MODEL"] == r"a\nPRIORITY=0"


def test_a_handler_that_is_replaced_lets_go_of_the_journal(journal, logger, otherwise):
    for handler in logger.handlers[:]:
        handler.close()
    event(logger, logging.INFO, "too late for the journal")
    assert [record.getMessage() for record in otherwise.records] == ["too late for the journal"]


def test_what_the_journal_does_not_take_goes_the_other_way(reader, logger, otherwise):
    reader.socket.close()
    event(logger, logging.INFO, "still heard")
    assert [record.getMessage() for record in otherwise.records] == ["still heard"]


def test_a_full_journal_makes_nobody_wait(logger, otherwise):
    for number in range(5000):
        event(logger, logging.INFO, "flood", number=number)
    assert otherwise.records


def test_a_value_of_several_lines_is_sent_with_its_length():
    assert decode(encode({"A": "one\ntwo", "B": "three"})) == {"A": "one\ntwo", "B": "three"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model", "MODEL"),
        ("request_id", "REQUEST_ID"),
        ("_COMM", "COMM"),
        ("9lives", "LIVES"),
        ("päth-x", "P_TH_X"),
        ("__", "FIELD"),
        ("a" * 80, "A" * 64),
    ],
)
def test_field_names_are_such_as_the_journal_takes(name, expected):
    assert field_name(name) == expected


@pytest.mark.parametrize(
    ("line", "priority"),
    [
        ("INFO 11-23 04:00:05 [core.py:402] init engine", 6),
        ("(EngineCore pid=7) ERROR 11-23 04:00:05 [core.py:402] it broke", 3),
        ("(Worker_TP0 pid=7) WARNING 11-23 04:00:05 [x.py:1] hm", 4),
        ("CRITICAL 11-23 04:00:05 [x.py:1] end", 2),
        ("ValueError: no level of its own", 6),
        ("(APIServer pid=7) ERROR is a word", 6),
    ],
)
def test_a_line_of_the_engine_has_the_priority_of_its_level(line, priority):
    assert engine_priority(line) == priority


def test_a_line_of_the_engine_carries_its_model_and_its_process(reader, journal):
    EngineLines(journal, "smollm2:135m").send("INFO 11-23 04:00:05 [x.py:1] hello", 42)
    assert reader.entry() == {
        "MESSAGE": "INFO 11-23 04:00:05 [x.py:1] hello",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "vllm",
        "MODEL": "smollm2:135m",
        "WORKER_PID": "42",
    }


def test_of_a_flood_only_so_much_reaches_the_journal(reader, journal, monkeypatch):
    monkeypatch.setattr("vllamad.host.systemd.journal.time.monotonic", lambda: 5.0)
    lines = EngineLines(journal, "m")
    seen = []
    for number in range(3 * LINES_PER_SECOND):
        lines.send(f"line {number}", 0)
        seen += reader.entries()
    assert len(seen) == LINES_PER_SECOND + 1
    assert "missing here" in seen[-1]["MESSAGE"]
    monkeypatch.setattr("vllamad.host.systemd.journal.time.monotonic", lambda: 6.0)
    lines.send("later", 0)
    assert reader.entry()["MESSAGE"] == "later"


def test_without_a_journal_there_is_none(tmp_path):
    assert open_journal(tmp_path / "none") is None
