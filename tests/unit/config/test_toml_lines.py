"""Each key's line, whatever TOML's ways to write one."""

from __future__ import annotations

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from vllamad.config.toml_lines import first_lines, first_repeated, split_key

TEXT = '''\
# a comment with = and [brackets]
top = 1

[server]   # [not.a.table]
listen = [
    "127.0.0.1:1",  # one = two
    "a = ] b",
]
gateways = 2
"max_body" = """
drain_timeout = 3
"""
drain_timeout = \'\'\'
[worker]
\'\'\'
[engine.args]
a.b = 1
c = { d = [1, { e = 2 }], "f g" = "}" }
h = 3
[model."qwen2.5:0.5b"]
keep_alive = 1979-05-27T07:32:00.5Z
"pa\\u0074h" = 1.5
[[many]]
x = 1
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("server",), 4),
        (("server", "listen"), 5),
        (("server", "gateways"), 9),
        (("server", "max_body"), 10),
        (("server", "drain_timeout"), 13),
        (("engine",), 16),
        (("engine", "args"), 16),
        (("engine", "args", "a", "b"), 17),
        (("engine", "args", "c"), 18),
        (("engine", "args", "c", "d"), 18),
        (("engine", "args", "c", "d", "e"), 18),
        (("engine", "args", "c", "f g"), 18),
        (("engine", "args", "h"), 19),
        (("model", "qwen2.5:0.5b"), 20),
        (("model", "qwen2.5:0.5b", "keep_alive"), 21),
        (("model", "qwen2.5:0.5b", "path"), 22),
        (("many", "x"), 24),
    ],
)
def test_a_key_is_found_on_its_line(path, line):
    tomlkit.parse(TEXT)  # the example itself is TOML
    assert first_lines(TEXT)[path] == line


def test_what_only_looks_like_a_key_is_none():
    assert ("worker",) not in first_lines(TEXT)
    assert ("not", "a", "table") not in first_lines(TEXT)


def test_windows_line_ends_change_nothing():
    assert first_lines(TEXT.replace("\n", "\r\n")) == first_lines(TEXT)


values = st.recursive(
    st.integers(-9, 9) | st.booleans() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def leaves(tree, path=()):
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


@given(st.dictionaries(st.text(max_size=4), values, min_size=1, max_size=4))
def test_every_key_of_any_document_has_a_line(tree):
    text = tomlkit.dumps(tree)
    lines = first_lines(text)
    paths = list(leaves(tomlkit.parse(text).unwrap()))
    assert len(paths) >= len(tree)
    assert all(1 <= lines[path] <= text.count("\n") + 1 for path in paths)


def test_a_key_given_twice_is_found_the_second_time():
    assert first_repeated("[a]\nx = 1\ny = 2\n[a.x]\nz = 1\n") == 4
    assert first_repeated("[a]\nx = 1\n[b]\nx = 1\n") is None


@given(st.text(alphabet="[]{}=,.\"\\\n#'ab ", max_size=40))
def test_no_text_whatever_makes_the_reader_fail(text):
    first_lines(text)


def test_a_dotted_key_may_have_quoted_parts():
    assert split_key('model."qwen2.5:7b".keep_alive') == ("model", "qwen2.5:7b", "keep_alive")


@pytest.mark.parametrize("text", ["", "a = 1\nb", "[a]\nb", "a..b = 1, c", "a = 2"])
def test_what_is_not_one_key_is_refused(text):
    with pytest.raises(ValueError, match="not a dotted key"):
        split_key(text)
