"""Where keys and tokens come from, and that nothing shows them."""

from __future__ import annotations

from hashlib import sha256

import pytest

from vllamad.config.secrets import LIMIT
from vllamad.config.show import settings_as_json, settings_as_toml

KEY = "0123456789abcdef"
TOKEN = "hf_secret0123"


def with_credentials(place, **credentials):
    folder = place.root / "credentials"
    folder.mkdir()
    for name, text in credentials.items():
        (folder / name).write_text(text)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def test_without_any_there_are_none(place):
    settings = place.load()
    assert (settings.api_keys, settings.hub_token) == ((), "")


def test_credentials_are_read(place):
    settings = place.load(environ=with_credentials(place, api_keys=f"{KEY}\n", hf_token=TOKEN))
    assert [key.digest for key in settings.api_keys] == [sha256(KEY.encode()).hexdigest()]
    assert settings.hub_token == TOKEN


def test_an_empty_folder_of_credentials_is_none(place):
    assert place.load(environ=with_credentials(place)).api_keys == ()


def test_a_file_that_is_named_wins_over_the_credential(place):
    file = place.write("hf_other\n", "token")
    place.write(f'[hub]\ntoken_file = "{file}"')
    assert place.load(environ=with_credentials(place, hf_token=TOKEN)).hub_token == "hf_other"


def test_keys_allow_to_listen_beyond_loopback(place):
    file = place.write(KEY, "keys")
    place.write(f'[server]\nlisten = ["0.0.0.0:11434"]\napi_keys_file = "{file}"')
    assert place.load().server.listen == ("0.0.0.0:11434",)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"short", "line 1: a key has at least 16 characters"),
        (b"\xff" * 20, "it is not UTF-8"),
        (b"x" * (LIMIT + 1), f"it is larger than {LIMIT} bytes"),
    ],
)
def test_a_bad_file_of_keys_is_a_fault_of_the_configuration(place, content, why):
    file = place.root / "keys"
    file.write_bytes(content)
    place.write(f'[server]\napi_keys_file = "{file}"')
    (fault,) = place.faults()
    assert fault.startswith(f"cwd/vllamad.toml:2: server.api_keys_file: cannot use keys: {why}")


def test_a_file_that_is_not_there_is_a_fault(place):
    place.write('[hub]\ntoken_file = "/nonexistent"')
    assert place.faults() == [
        "cwd/vllamad.toml:2: hub.token_file: cannot read /nonexistent: No such file or directory"
    ]


def test_a_token_of_two_lines_is_a_fault_that_does_not_show_it(place):
    (fault,) = place.faults(environ=with_credentials(place, hf_token=f"{TOKEN}\nmore"))
    assert "a token is one line of visible ASCII" in fault
    assert TOKEN not in fault


def test_nothing_that_is_shown_holds_a_secret(place):
    settings = place.load(environ=with_credentials(place, api_keys=KEY, hf_token=TOKEN))
    digest = settings.api_keys[0].digest
    shown = settings_as_toml(settings) + str(settings_as_json(settings)) + repr(settings)
    assert not [secret for secret in (KEY, TOKEN, digest) if secret in shown]


@pytest.mark.parametrize("endpoint", ["ftp://hub", "hub.example.com", "https://hub/?x=1"])
def test_an_endpoint_is_an_address(place, endpoint):
    place.write(f'[hub]\nendpoint = "{endpoint}"')
    (fault,) = place.faults()
    assert "must be an http or https address" in fault
