"""What a hostile or broken client may say, drawn from a seed, and what it must leave behind.

HOSTILE_SEED in the environment tries other draws than those every run makes.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

SEED = int(os.environ.get("HOSTILE_SEED", "0"))

_METHODS = [
    b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE", b"PRI", b"get",
    b"\xff", b"", b"A" * 300, b"GET\t", b"PROPFIND",
]  # fmt: skip
_TARGETS = [
    b"/", b"/api/version", b"/api/tags", b"*", b"?", b"", b"//", b"/..", b"/%", b"/%zz", b"/%00",
    b"/%ff%fe", b"http://[", b"http://evil/api/tags", b"http://[::1", b"/v1/models/%2e%2e",
    b"/v1/models/%00", b"/v1/models/" + b"a" * 5000, b"/" + b"a" * 9000, b"/api/show\xff",
    b"http://", b"//evil/api", b"/v1/models/%c3%a9", b"/v1/models/%0d%0aX: y", b"#", b"/#?",
    b"evil:80", b"/api/chat;x", b"/api//chat", b"/api/ps?" + b"a&" * 2000, b"https://u:p@h:9999999/",
    b"/v1/models/%ed%a0%80", b"/api/ps/", b"/../../etc/passwd", b"/api/..%2f..%2fetc",
]  # fmt: skip
_VERSIONS = [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.9", b"HTTP/1.1 ", b"", b"http/1.1"]
_HEADERS = [
    b"Host: x", b"Host: localhost", b"Host:", b"Host: evil.example", b"Host: \xff", b"Host: [::1",
    b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: " + b"9" * 30,
    b"Content-Length: 0x5", b"Content-Length: 5, 5", b"Content-Length: 5, 6",
    b"Content-Length: 33554433", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity", b"transfer-encoding: xchunked", b"Upgrade: websocket",
    b"Upgrade: \xa0websocket", b"Upgrade: websocket\x85", b"Upgrade: h2c", b"Connection: upgrade",
    b"HTTP2-Settings: AAMAAABkAAQAAP__", b"Connection: close", b"Connection: keep-alive, Upgrade",
    b"Sec-WebSocket-Key: x", b"Sec-WebSocket-Version: 13", b"Expect: 100-continue",
    b"Expect: 200-maybe", b"Content-Encoding: gzip", b"Content-Encoding: \xff", b"Origin: null",
    b"Origin: http://evil", b"Origin: \xff", b"Origin: http://[", b"Cookie: " + b"a=b;" * 500,
    b"X: " + b"y" * 9000, b"X : y", b" folded: x", b"X\x00: y", b"X: a\x00b", b": no", b"nocolon",
    b"X: a\rb", b"Content-Type: multipart/form-data; boundary=", b"User-Agent: \xff", b"Date: x",
    b"Accept-Language: \xff", b"Authorization: Basic \xff", b"X-Forwarded-For: \xff",
]  # fmt: skip
_BODIES = [
    b"", b"5\r\nhello\r\n0\r\n\r\n", b"hello", b"ffffffffffffffff\r\nx", b"-1\r\n", b"zz\r\n",
    b"5;ext=1\r\nhello\r\n0\r\nX: y\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"\x00" * 100,
    b'{"model":"a"}', b"0\r\n\r\nGET /api/version HTTP/1.1\r\nHost: x\r\n\r\n", b"1" * 30 + b"\r\n",
    b"5\nhello\n0\n\n",
]  # fmt: skip

_VALUES = [
    "null", "true", "false", "0", "-1", "1", "1e308", "-1e308", "1e999", "-0", "0.1", "9" * 5000,
    "18446744073709551615", "18446744073709551616", "-9223372036854775809", '""', '"x"', "NaN",
    '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"' + "a" * 3000 + '"', "[]", "{}", "[[]]",
    "[null]", "[{}]", '{"a":1}', "[1,2]", '["a",1]', '[{"role":"user","content":"hi"}]',
    '[{"role":1}]', '[{"role":"user","content":[{"type":"text","text":"x"}]}]', "-Infinity",
    '[{"role":"\\ud800","content":"\\udfff"}]', '[{"role":"tool","content":""}]', '"json"',
    '[{"role":"assistant","tool_calls":[{"function":{"name":"x","arguments":{"\\ud800":1e308}}}]}]',
    '[{"role":"user","images":["\\u00e9"]}]', '[{"role":"user","images":["iVBORw0KGgo="]}]',
    '"10m"', '"-1"', '"1e5h"', '"9999999h"', '"high"', '{"type":"((((","pattern":"(a+)+$"}',
    '{"type":"object","properties":{"a":{"$ref":"#"}}}', '{"\\u0000":"\\u0000"}',
    '[{"type":"function","function":{"name":"\\ud83d","parameters":{"type":"object"}}}]',
    '{"type":"json_schema","json_schema":5}', '{"include_usage":"x"}',
]  # fmt: skip
_KEYS = [
    "model", "name", "messages", "prompt", "suffix", "system", "template", "context", "stream",
    "raw", "format", "keep_alive", "images", "options", "think", "truncate", "shift", "logprobs",
    "top_logprobs", "tools", "verbose", "n", "max_tokens", "temperature", "top_k", "top_p", "min_p",
    "stop", "seed", "stream_options", "response_format", "tool_choice", "reasoning", "input",
    "reasoning_effort", "logit_bias", "echo", "user", "frequency_penalty", "MODEL", "Messages",
    "dimensions",
]  # fmt: skip
_OPTIONS = [
    "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_penalty", "repeat_last_n",
    "presence_penalty", "frequency_penalty", "seed", "stop", "num_predict", "num_ctx", "num_keep",
    "num_batch", "num_gpu", "use_mmap", "num_thread", "unknown", "numa",
]  # fmt: skip
_MODELS = [
    '"a"', '"a"', '"a"', '"a"', '"A:LATEST"', '"nope"', '"../../etc/passwd"', '"a:\\u0000"', '".."',
    '"' + "a" * 400 + '"', '"a/b/c/d/e"', '"http://h/x/y:z"', '"a:cloud"', '"a\\ud800"', "5", "[]",
]  # fmt: skip
_WHOLE = [
    b"", b" ", b"{", b"[", b"null", b"[]", b"5", b'"x"', b"\xff\xfe", b"\x00", b'{"model":"a"}x',
    b"[" * 100_000, b'{"a":' * 100_000, b"\xef\xbb\xbf{}", b'{"model":"a",}', b"{'model':'a'}",
    b'{"model":"a","x":' + b"[" * 127 + b"]" * 127 + b"}", b'{"model":"a" "x":1}',
    b'{"model":"a","options":{"stop":' + b"[" * 300 + b"]" * 300 + b"}}",
    b'{"model":"a","prompt":"\xed\xa0\x80\xff"}', b'{"a":1,' * 5000, b'"' + b"\\" * 10_001,
    b'{"model":"a","context":[' + b"1," * 200_001 + b"1]}",
    b'{"model":"a","prompt":"' + b"x" * 300_000 + b'"}',
]  # fmt: skip


def request_body(random: Random) -> bytes:
    """A JSON request that is wrong in several places, or hardly JSON at all."""
    if random.random() < 0.1:
        return random.choice(_WHOLE)
    fields = [f'"model": {random.choice(_MODELS)}']
    if random.random() < 0.8:
        fields += ['"messages": [{"role":"user","content":"hi"}]', '"prompt": "hi"']
    fields += [f'"{random.choice(_KEYS)}": {random.choice(_VALUES)}' for _ in range(3)]
    options = [f'"{random.choice(_OPTIONS)}": {random.choice(_VALUES)}' for _ in range(2)]
    if random.random() < 0.4:
        fields.append(f'"options": {{{", ".join(options)}}}')
    random.shuffle(fields)
    return f"{{{', '.join(fields)}}}".encode("utf-8", "surrogatepass")


def bytes_on_the_wire(random: Random) -> bytes:
    """One or more requests, well formed here and there, cut off now and then."""
    said = b"".join(_piece(random) for _ in range(random.choice([1, 1, 1, 2, 3, 8])))
    return said[: random.randrange(len(said) + 1)] if random.random() < 0.15 else said


def _piece(random: Random) -> bytes:
    kind = random.random()
    if kind < 0.08:
        return random.randbytes(random.randrange(1, 400))
    if kind < 0.12:
        return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + random.randbytes(60)
    if kind < 0.15:
        return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(200)
    if kind < 0.17:
        return b"GET / HTTP/1.1\r\nA: " + b"b" * 40_000
    if kind < 0.19:
        return b"\r\n" * 500
    return _head(random) + random.choice(_BODIES)


def _head(random: Random) -> bytes:
    method = random.choice(_METHODS if random.random() < 0.5 else [b"GET", b"POST"])
    target = random.choice(_TARGETS) if random.random() < 0.7 else b"/api/chat"
    version = random.choice(_VERSIONS) if random.random() < 0.3 else b"HTTP/1.1"
    headers = [random.choice(_HEADERS) for _ in range(random.randrange(6))]
    if random.random() < 0.9:
        headers.append(b"Host: localhost")
    if random.random() < 0.02:
        headers += [b"X-%d: y" % number for number in range(150)]
    random.shuffle(headers)
    end = random.choice([b"\r\n"] * 8 + [b"\n", b"\r"])
    return end.join([b" ".join([method, target, version]), *headers]) + end + end


def say(address: tuple[str, int] | str, said: bytes, random: Random, limit: float) -> bytes:
    """Say it in one way or another, and hear what comes within `limit` seconds of silence."""
    heard = b""
    with connected(address, limit) as sock:
        try:
            step = len(said) // random.choice([1, 1, 7]) or 1
            for at in range(0, len(said), step):
                sock.sendall(said[at : at + step])
            match random.choice(["wait", "wait", "wait", "end", "reset", "leave"]):
                case "end":
                    sock.shutdown(socket.SHUT_WR)
                case "reset":
                    reset_on_close(sock)
                    return b""
                case "leave":
                    return b""
                case _:
                    pass
            while data := sock.recv(1 << 16):
                heard += data
        except (TimeoutError, ConnectionError):
            pass
    return heard


def connected(address: tuple[str, int] | str, limit: float) -> socket.socket:
    """A socket connected to a port or a path, with `limit` as its timeout."""
    sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    sock.settimeout(limit)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def reset_on_close(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def post(path: str, body: object, headers: str = "") -> bytes:
    """A whole POST of JSON, as bytes."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


def at_once(jobs: Iterable[Callable[[], object]], threads: int) -> None:
    """Run all of them, `threads` at a time; the first error is raised."""
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()


@dataclass(frozen=True)
class Usage:
    """What a process holds; memory in MiB."""

    descriptors: int
    threads: int
    memory: float


def usage(pid: int) -> Usage:
    status = Path(f"/proc/{pid}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    assert resident
    return Usage(
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=len(os.listdir(f"/proc/{pid}/task")),
        memory=int(resident[1]) / 1024,
    )


def back_to(before: Usage, pid: int) -> bool:
    """Whether it holds what it held before, give or take what is kept for the next time."""
    now = usage(pid)
    return (
        now.descriptors <= before.descriptors + 6
        and now.threads <= before.threads + 20  # idle worker threads go after ten seconds
        and now.memory <= before.memory + 100
    )


def traces(home: Path) -> list[str]:
    """The processes that know `home`, by their command line or environment, but this one."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if any(str(home).encode() in text for text in known) and process.name != str(os.getpid()):
            found.append(f"{process.name} {known[0][:200]!r}")
    return found
