"""Names: the published grammar, the two printed forms, and the source suffixes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.core.model_name import ModelName, parse_model_name, split_source
from vllamad.errors import BadInput


@pytest.mark.parametrize(
    ("text", "display"),
    [
        ("llama3", "llama3:latest"),
        ("llama3:8b", "llama3:8b"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct:latest"),
        ("hf.co/org/Repo-GGUF:Q4_K_M", "hf.co/org/Repo-GGUF:Q4_K_M"),
        ("https://hf.co/a/b", "hf.co/a/b:latest"),
        ("localhost:5000/ns/m", "localhost:5000/ns/m:latest"),
        ("localhost:5000/ns/m:t", "localhost:5000/ns/m:t"),
        ("hf.co/library/b", "hf.co/library/b:latest"),
        ("_x", "_x:latest"),
        ("Registry.Ollama.AI/Library/x:Y", "x:Y"),
        ("registry.ollama.ai/me/x", "me/x:latest"),
        ("library/x", "x:latest"),
        ("m" * 80 + ":" + "t" * 80, "m" * 80 + ":" + "t" * 80),
    ],
)
def test_a_valid_name_is_printed_in_its_shortest_form_with_its_tag(text, display):
    assert parse_model_name(text).display() == display


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "m:", "/m", "n/", ":t", "-x", ".x", "a b", "m:t:u", "org.name/model", "../x",
        "hf.co/m", "a/b/c/d", "m@sha256:" + "0" * 64, "mödel", "m:ü", "m\n", "m:t\n", "//m",
        "http://m", "h//m", "/n/m", "h/n/", "://n/m", "m" * 81, "m:" + "t" * 81, "n" * 81 + "/m",
        "h" * 351 + "/n/m", "a\\b", "a\0b", "%2e%2e/x", "https://../a/b",
    ],
)  # fmt: skip
def test_an_invalid_name_is_refused_with_ollamas_text(text):
    with pytest.raises(BadInput) as caught:
        parse_model_name(text)
    assert caught.value.message == "invalid model name"


def test_the_canonical_form_spells_every_part_out():
    assert parse_model_name("x").canonical() == "registry.ollama.ai/library/x:latest"


@pytest.mark.parametrize("text", ["SmolLM2:135M", "smollm2:135m", "LIBRARY/smollm2:135m"])
def test_names_that_differ_only_in_case_have_one_key(text):
    assert parse_model_name(text).key() == parse_model_name("smollm2:135m").key()


_first = "[A-Za-z0-9_]"
_names = st.builds(
    ModelName,
    host=st.from_regex(rf"{_first}[A-Za-z0-9_.:-]{{0,349}}", fullmatch=True),
    namespace=st.from_regex(rf"{_first}[A-Za-z0-9_-]{{0,79}}", fullmatch=True),
    model=st.from_regex(rf"{_first}[A-Za-z0-9_.-]{{0,79}}", fullmatch=True),
    tag=st.from_regex(rf"{_first}[A-Za-z0-9_.-]{{0,79}}", fullmatch=True),
)


@given(_names)
def test_the_canonical_form_parses_to_the_same_name(name):
    assert parse_model_name(name.canonical()) == name


@given(_names)
def test_the_display_form_parses_to_the_same_model(name):
    assert parse_model_name(name.display()).key() == name.key()


@accepts_some
@example(text="a/b:c")
@given(st.text(max_size=40))
def test_any_text_is_a_name_or_bad_input(text):
    with accepted_or_refused():
        parts = parse_model_name(text)
        assert parse_model_name(parts.canonical()) == parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpt-oss:20b:cloud", ("gpt-oss:20b", "cloud")),
        ("gpt-oss:20b-cloud", ("gpt-oss:20b", "cloud")),
        ("gpt-oss:20b-CLOUD", ("gpt-oss:20b", "cloud")),
        ("qwen3:8b:local", ("qwen3:8b", "local")),
        ("m:LOCAL", ("m", "local")),
        ("  m:cloud \n", ("m", "cloud")),
        ("my-cloud-model", ("my-cloud-model", "")),
        ("my-cloud", ("my-cloud", "")),
        ("foo:bar-cloud/baz", ("foo:bar-cloud/baz", "")),
        ("gpt-oss:clod", ("gpt-oss:clod", "")),
        (" llama3 ", ("llama3", "")),
        ("   ", ("", "")),
    ],
)
def test_a_source_ending_is_split_off_the_name(text, expected):
    assert split_source(text) == expected


@pytest.mark.parametrize("text", ["foo:cloud:local", "m:local:cloud", "m:8b-cloud:local"])
def test_two_source_endings_are_refused(text):
    with pytest.raises(BadInput) as caught:
        split_source(text)
    assert caught.value.message == f'use either :local or :cloud, not both: "{text}"'
