"""Promises of reading a Modelfile."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.core.overlay import Turn
from vllamad.errors import BadInput
from vllamad.translate.ollama.modelfile import Modelfile, parse_modelfile, typed_parameter

WHOLE = '''\ufeff# a comment
FROM ./checkpoint
from smollm2:135m   \r
  ADAPTER /some where/adapter
DRAFT ./draft
TEMPLATE """{{ a }}
{{ "b" }}"""
SYSTEM "be ""terse"""
PARAMETER temperature 0.2
PARAMETER temperature 0.4
parameter stop "<|im_end|>"
PARAMETER stop END
PARAMETER num_ctx 4096.0
PARAMETER top_k 7
PARAMETER use_mmap true
PARAMETER mirostat 1
MESSAGE user hello there
MESSAGE assistant """hi
# no comment"""
LICENSE one
LICENSE """
two
"""
RENDERER r
PARSER p
REQUIRES v0.14.0'''


def test_every_statement_is_read() -> None:
    assert parse_modelfile(WHOLE) == Modelfile(
        sources=("./checkpoint", "smollm2:135m"),
        adapters=("/some where/adapter",),
        draft="./draft",
        template='{{ a }}\n{{ "b" }}',
        system='be ""terse""',
        licenses=("one", "\ntwo\n"),
        parameters={
            "temperature": 0.4,
            "num_ctx": 4096,
            "top_k": 7,
            "use_mmap": True,
            "stop": ["<|im_end|>", "END"],
        },
        messages=(
            Turn(role="user", content="hello there"),
            Turn(role="assistant", content="hi\n# no comment"),
        ),
        renderer="r",
        parser="p",
        requires="0.14.0",
        deprecated=("mirostat",),
    )


def test_one_line_is_enough() -> None:
    assert parse_modelfile("FROM m") == Modelfile(sources=("m",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM line"),
        ("SYSTEM x\n", "no FROM line"),
        ("FROM m\n\nFRUM x\n", 'line 3: command must be one of "from", "license", "template",'),
        ("FROM m\n/bin/sh", "line 2: cannot read '/'"),
        ("FROM", "line 1: FROM needs a value"),
        ("FROM m\nPARAMETER", "line 2: PARAMETER needs a value"),
        ("FROM m\nPARAMETER top_k", "line 2: PARAMETER needs a value"),
        ("FROM m\nPARAMETER top-k 1", "line 2: cannot read 'top-'"),
        ("FROM m\nPARAMETER heat 1", "line 2: unknown parameter 'heat'"),
        ("FROM m\nPARAMETER top_k x", "line 2: cannot set top_k to 'x': it is no whole number"),
        ("FROM m\nPARAMETER seed inf.", "line 2: cannot set seed to 'inf.': it is no whole number"),
        ("FROM m\nPARAMETER use_mmap x", "line 2: cannot set use_mmap to 'x': it is no true or"),
        ("FROM m\nMESSAGE bot hi", "line 2: message role must be one of"),
        ('FROM m\nSYSTEM """a\nb\n', "line 2: SYSTEM has a quote that is never closed"),
        ('FROM m\nSYSTEM "', "line 2: SYSTEM has a quote that is never closed"),
        ("FROM m\nREQUIRES soon", "line 2: requires must be a version"),
    ],
)
def test_a_fault_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_modelfile(text)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("use_mmap", "F", False), ("temperature", "1", 1.0), ("stop", "a b", "a b")],
)
def test_a_parameter_gets_the_type_of_its_option(name: str, text: str, value: object) -> None:
    assert typed_parameter(name, text) == value


@accepts_some
@example(text="FROM m")
@given(st.text())
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    with accepted_or_refused():
        assert parse_modelfile(text).sources


@given(st.text(st.characters(exclude_characters='"\r', exclude_categories=["Cs"])))
def test_a_quoted_text_arrives_as_it_was(text: str) -> None:
    assert parse_modelfile(f'FROM m\nSYSTEM """{text}"""\n').system == text
