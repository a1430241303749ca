"""Which key lets which request in, and what is wrong with a file of keys."""

from __future__ import annotations

from hashlib import sha256

import pytest

from vllamad.access.api_keys import admit, parse_keys
from vllamad.errors import NotAllowed, Unauthenticated

INFERS = "infers-0123456789"
MANAGES = "manages-0123456789"
KEYS = parse_keys(
    f"# keys\n\n{INFERS} infer\n  sha256:{sha256(MANAGES.encode()).hexdigest()} manage\n"
)


def ask(keys=KEYS, *, method="POST", path="/api/chat", authorization="", api_key=""):
    admit(keys, method=method, path=path, authorization=authorization, api_key=api_key)


def test_without_keys_everybody_may():
    ask((), path="/api/delete", method="DELETE")


@pytest.mark.parametrize("path", ["/", "/api/version"])
def test_who_we_are_anybody_may_know(path):
    ask(path=path, method="GET")


@pytest.mark.parametrize(
    "sent",
    [
        {"authorization": f"Bearer {INFERS}"},
        {"authorization": f"bearer  {INFERS} "},
        {"api_key": INFERS},
        {"authorization": f"Bearer {MANAGES}"},
    ],
)
def test_a_key_lets_in_however_it_is_sent(sent):
    ask(**sent)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"authorization": INFERS},
        {"authorization": f"Basic {INFERS}"},
        {"authorization": f"Bearer {INFERS}x"},
        {"authorization": f"Bearer {INFERS[:-1]}"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer \udcff"},
        {"authorization": "Bearer wrong", "api_key": INFERS},
        {"authorization": f"Bearer sha256:{sha256(MANAGES.encode()).hexdigest()}"},
    ],
)
def test_without_a_valid_key_nothing_is_answered(sent):
    with pytest.raises(Unauthenticated, match="Authorization: Bearer KEY"):
        ask(**sent)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/pull"),
        ("POST", "/api/pull/"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("POST", "/api/push"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/blobs/sha256:00"),
    ],
)
def test_changing_models_takes_a_key_that_manages(method, path):
    ask(method=method, path=path, authorization=f"Bearer {MANAGES}")
    with pytest.raises(NotAllowed, match="inference only"):
        ask(method=method, path=path, authorization=f"Bearer {INFERS}")


def test_whether_a_blob_is_there_any_key_may_ask():
    ask(method="HEAD", path="/api/blobs/sha256:00", api_key=INFERS)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no key in it"),
        ("# only words\n\n", "there is no key in it"),
        ("short", "line 1: a key has at least 16 characters"),
        ("0123456789abcde\u00e9", "line 1: a key has at least 16 characters"),
        ("\n0123456789abcdef admin", "line 2: after the key may stand infer or manage"),
        ("0123456789abcdef infer manage", "line 1: after the key"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_line_without_naming_the_key(text, why):
    with pytest.raises(ValueError, match=why) as caught:
        parse_keys(text)
    assert "0123456789" not in str(caught.value)
