"""Addresses to listen on, ours and OLLAMA_HOST's."""

from __future__ import annotations

import pytest

from vllamad.config.listen_address import is_loopback, ollama_host, parse_listen, spell_listen


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("127.0.0.1", "127.0.0.1", 11434),
        (":0", "0.0.0.0", 0),
        ("[::1]:1337", "::1", 1337),
        ("[::1]", "::1", 11434),
        ("::1", "::1", 11434),
        ("localhost:65535", "localhost", 65535),
        ("ai.example.com", "ai.example.com", 11434),
    ],
)
def test_an_address_is_read_and_spelled_so_that_it_reads_back(text, host, port):
    assert parse_listen(text) == (host, port)
    assert parse_listen(spell_listen(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1", "1:2:3",
     "http://127.0.0.1:1", "[::1", "a b:1", "-x:1", "127.0.0.1:١"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match=r"HOST:PORT|not a number|neither"):
        parse_listen(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "::ffff:127.0.0.1"])
def test_loopback_is_recognised(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.com", "::ffff:8.8.8.8"])
def test_everything_else_is_not_loopback(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("", "127.0.0.1:11434"),
        (":1234", ":1234"),
        (":0", ":0"),
        ("[::1]", "[::1]:11434"),
        ("::1", "[::1]:11434"),
        ("1.2.3.4", "1.2.3.4:11434"),
        ("example.com:1234", "example.com:1234"),
        ("example.com", "example.com:11434"),
        (":66000", ":11434"),
        (":-1", ":11434"),
        ("1.2.3.4:http", "1.2.3.4:11434"),
        ("1.2.3.4:", "1.2.3.4:11434"),
        ("[::1]:1337", "[::1]:1337"),
        ("http://1.2.3.4", "1.2.3.4:80"),
        ("https://1.2.3.4", "1.2.3.4:443"),
        ("https://example.com/ollama", "example.com:443"),
        ("http://:66000", ":80"),
        ("https://example.com:8443/a/b", "example.com:8443"),
    ],
)
def test_ollama_host_means_what_it_means_to_ollama(value, address):
    assert ollama_host(value) == address
