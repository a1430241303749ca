"""Reads vLLM's log: why it failed, whether another start may succeed, how far a load has come.

Pure functions over text; all of vLLM's wording that we depend on is in the tables below.
"""

from __future__ import annotations

import re
import signal

REASON_LIMIT = 500

# "(EngineCore pid=7) ERROR 11-23 04:00:05 [core.py:402] "; children print raw lines after "(...) ".
_PREFIX = re.compile(
    r"^\S*?\(\S+ pid=\d+\) (?:[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?"
    r"|^[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?"
)
_ERROR_LEVEL = re.compile(r"^(?:\S*?\(\S+ pid=\d+\) )?(?:ERROR|CRITICAL) \d\d-\d\d ")

# A remark is never a cause, even if it quotes one: of vLLM, of Python, of glog.
_REMARK = re.compile(
    r"^(?:\S*?\(\S+ pid=\d+\) )?\[?(?:WARNING|WARN|INFO|DEBUG)\b"
    r"|^\[?[WI]\d{4} \d\d:"
    r"|^\S+:\d+: \w*Warning: "
)

_CAUSE = re.compile(
    r"(?:[A-Za-z_][\w.]*)?(?:Error|Exception)(?:: |$)"  # the last line of a traceback
    r"|\s*Value error, "  # pydantic's, below its "1 validation error for ..."
    r"|\S+: error: "  # argparse
    r"|Fatal Python error: "
    r"|terminate called "
    r"|.*died unexpectedly"
    r"|.*Segfault encountered"
    r"|.*\(src/\w+\.cpp:\d+\)"  # ZeroMQ aborts with its source line
)
# Only says that another error came before.
_WRAPPER = re.compile(
    r"Engine core initialization failed"
    r"|Worker failed with error"
    r"|WorkerProc initialization failed"
    r"|EngineDeadError"
    r"|EngineGenerateError"
    r"|validation errors? for "
    r"|failed to be inspected"  # says to look into the log, where its import failed
    r"|leaked (?:instance|type|function)"
    r"|nanobind"
)
_INSIDE_WRAPPER = re.compile(r"Worker failed with error ['\"](.+?)['\"](?:,|$)")
# How the leader and Python's faulthandler tell that a process of the engine died of a signal.
_CHILD_SIGNAL = re.compile(r"Failed core proc\(s\): \{'[^']*': -(\d+)|\(exit code: -(\d+)\)")
_FAULT = re.compile(r"Fatal Python error: ([\w -]+?)\s*$", re.MULTILINE)
_FAULTS = {
    "Segmentation fault": signal.SIGSEGV,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Illegal instruction": signal.SIGILL,
    "Floating-point exception": signal.SIGFPE,
}
_PYDANTIC_TAIL = re.compile(r"\s*\[type=\w+, input_value=.*$")

_FATAL_START = "EngineCore failed to start."

_HOPELESS = re.compile(
    r"Value error, |validation error"
    r"|: error: |unrecognized arguments|invalid choice"
    r"|HFValidationError|LocalEntryNotFoundError|RepositoryNotFoundError|GatedRepoError"
    r"|invalid (?:tool call|reasoning) parser"
    r"|To serve at least one request"
    r"|is less than (?:requested|desired)"
    r"|No available memory for the cache blocks"
    r"|OutOfMemoryError|out of memory|MemoryError"
    r"|not supported|unsupported|Unsupported|does not recognize this architecture"
    r"|must be divisible|head_dim="
    r"|(?:PermissionError|FileNotFoundError|IsADirectoryError|NotADirectoryError): "
    r"|(?:ImportError|ModuleNotFoundError|SafetensorError|NotImplementedError)"
    r"|Failed to infer device type"
    r"|SIGILL",  # this machine's CPU lacks what the build uses
)

_PARSERS = re.compile(
    r"(?i)parser\b.*\b(?:cannot be used with the tokenizer|could not locate|not been registered)"
)

_ADMITTED = re.compile(r"estimated maximum model length is (\d{1,9})\b")

_SHARDS = re.compile(r"Loading \S+ checkpoint shards:\s+(\d+)% Completed")
_PHASES = (
    ("vLLM server version", "reading the model's configuration"),
    ("Resolved architecture", "starting the engine"),
    ("Starting to load model", "loading weights"),
    ("Loading weights took", "preparing the cache"),
    ("Model loading took", "preparing the cache"),
    ("KV cache size:", "warming up"),
    ("Warming up", "warming up"),
    ("Capturing CUDA graphs", "capturing graphs"),
    ("Graph capturing finished", "warming up"),
    ("init engine (profile", "starting its server"),
    ("Application startup complete", "making the first token"),
)


def last_meaningful_line(tail: str) -> str:
    """Return the line that says why it failed, at most 500 characters, or "" if none does.

    The end of a log is mostly noise: leaks that nanobind counts, and wrappers that point upwards.
    """
    lines = [line for line in re.split(r"[\r\n]+", tail) if not _REMARK.match(line)]
    for line in reversed(lines):
        text = _PREFIX.sub("", line, count=1)
        if _CAUSE.match(text) and not _WRAPPER.search(text):
            return _PYDANTIC_TAIL.sub("", text).strip()[:REASON_LIMIT]
        if inside := _INSIDE_WRAPPER.search(text):
            return inside[1][:REASON_LIMIT]
    return _last_error(lines)


def _last_error(lines: list[str]) -> str:
    """Fall back on the last line logged as an error that is no part of a traceback."""
    for line in reversed(lines):
        text = _PREFIX.sub("", line, count=1)
        traceback = text.startswith((" ", "Traceback"))
        if text and not traceback and (_ERROR_LEVEL.match(line) or _CAUSE.match(text)):
            return text.strip()[:REASON_LIMIT]
    return ""


def child_signal(tail: str) -> int:
    """Return the signal that ended a process of the engine by what the log says, 0 if none did."""
    if told := _CHILD_SIGNAL.findall(tail):
        return int(next(filter(None, told[-1])))
    fault = _FAULT.findall(tail)
    return _FAULTS.get(fault[-1], 0) if fault else 0


def is_fatal_start_line(line: str) -> bool:
    """Tell whether this start has failed, even if every process is still there and silent."""
    return _FATAL_START in line


def is_deterministic(reason: str) -> bool:
    """Tell whether another start of the same plan would end the same way."""
    return _HOPELESS.search(reason) is not None


def refuses_parsers(reason: str) -> bool:
    """Tell whether the engine would start without the tool or reasoning parser it was given."""
    return _PARSERS.search(reason) is not None


def admitted_length(reason: str) -> int:
    """The context length in tokens that the engine says it would admit; 0 where it names none."""
    found = _ADMITTED.search(reason)
    return int(found[1]) if found else 0


def read_load_phase(line: str) -> str | None:
    """Return in words what a loading engine does from this line on, or None if it says nothing."""
    if shards := _SHARDS.search(line):
        return f"loading weights: {shards[1]} %"
    return next((words for mark, words in _PHASES if mark in line), None)
