"""What pip is told on a machine, uv is told too."""

from __future__ import annotations

import pytest

from vllamad.runtimes.pip_settings import parse_pip_config, uv_options


def test_the_environment_wins_over_install_wins_over_global():
    listing = (
        ":env:.index-url='http://c'\n"
        "global.find-links='/a /b'\n"
        "global.index-url='http://a'\n"
        "global.timeout='9'\n"
        "install.index-url='http://b'\n"
        "install.timeout='8'\n"
    )
    assert parse_pip_config(listing) == {
        "find-links": "/a /b",
        "index-url": "http://c",
        "timeout": "8",
    }


def test_other_commands_and_noise_are_left_out():
    assert parse_pip_config("download.index-url='http://x'\nnoise\n") == {}


def test_a_quote_in_a_value_survives():
    assert parse_pip_config("""global.find-links="/it's/here"\n""") == {"find-links": "/it's/here"}


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        ({"index-url": "http://a"}, ["--index-url", "http://a"]),
        ({"find-links": "/a\n/b"}, ["--find-links", "/a", "--find-links", "/b"]),
        ({"trusted-host": "a b"}, ["--allow-insecure-host", "a", "--allow-insecure-host", "b"]),
        ({"no-index": "true"}, ["--no-index"]),
        ({"no-index": "false"}, []),
        ({"pre": "1"}, ["--prerelease", "allow"]),
        ({"quiet": "1", "user": "true"}, []),
        (
            {"extra-index-url": "http://a"},
            ["--extra-index-url", "http://a", "--index-strategy", "unsafe-best-match"],
        ),
    ],
)
def test_where_packages_come_from_is_said_in_flags(settings, arguments):
    assert uv_options(settings) == (arguments, {})


@pytest.mark.parametrize(
    ("settings", "environment"),
    [
        ({"cert": "/c.pem"}, {"SSL_CERT_FILE": "/c.pem"}),
        ({"default-timeout": "180"}, {"UV_HTTP_TIMEOUT": "180"}),
        (
            {"proxy": "http://p"},
            {"ALL_PROXY": "http://p", "HTTP_PROXY": "http://p", "HTTPS_PROXY": "http://p"},
        ),
    ],
)
def test_how_to_get_there_is_said_in_the_environment(settings, environment):
    assert uv_options(settings) == ([], environment)
