"""Which key passes for which access, and how a bad file of keys is refused."""

from __future__ import annotations

from hashlib import sha256

import pytest

from vllamad.access.api_keys import Access, check_key, parse_keys
from vllamad.errors import NotAllowed, Unauthenticated

INFERS = "infers-0123456789"
MANAGES = "manages-0123456789"
KEYS = parse_keys(
    f"# keys\n\n{INFERS} infer\n  sha256:{sha256(MANAGES.encode()).hexdigest()} manage\n"
)


def ask(keys=KEYS, access=Access.INFER, *, authorization="", api_key=""):
    check_key(keys, access, authorization=authorization, api_key=api_key)


@pytest.mark.parametrize("access", Access)
def test_without_configured_keys_every_request_passes(access):
    ask((), access)


def test_an_open_route_takes_no_key():
    ask(access=Access.OPEN)


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


def test_managing_takes_a_key_that_manages():
    ask(access=Access.MANAGE, authorization=f"Bearer {MANAGES}")
    with pytest.raises(NotAllowed, match="inference only"):
        ask(access=Access.MANAGE, authorization=f"Bearer {INFERS}")
    with pytest.raises(Unauthenticated):
        ask(access=Access.MANAGE)


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
