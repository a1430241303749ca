"""Options are typed as Ollama types them and always land where vLLM accepts them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.errors import BadInput
from vllamad.translate.ollama.options import (
    check_options,
    from_generation_config,
    kept_first,
    predicts_nothing,
    sampling,
    sets_limit,
)

DEFAULTS = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "max_tokens": 2048,
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": "0.5"}, 'option "temperature" must be of type float32'),
        ({"temperature": True}, 'option "temperature" must be of type float32'),
        ({"num_ctx": "4096"}, 'option "num_ctx" must be of type integer'),
        ({"seed": []}, 'option "seed" must be of type integer'),
        ({"use_mmap": 1}, 'option "use_mmap" must be of type boolean'),
        ({"stop": "x"}, 'option "stop" must be of type array'),
        ({"stop": ["a", 1]}, 'option "stop" must be of an array of strings'),
    ],
)
def test_a_wrong_type_is_a_500_as_in_ollama(options, message):
    with pytest.raises(BadInput) as refused:
        check_options(options)
    assert (refused.value.message, refused.value.status) == (message, 500)


def test_unknown_and_null_options_are_ignored():
    assert check_options({"bogus": 1, "mirostat": 2, "seed": None}) == {}


def test_fractions_are_cut_off_where_an_integer_is_wanted():
    assert check_options({"num_ctx": 4096.9, "top_k": -1.5, "temperature": 1}) == {
        "num_ctx": 4096,
        "top_k": -1,
        "temperature": 1,
    }


def test_known_options_of_the_right_type_are_kept():
    options = {"use_mmap": False, "stop": ["a"], "num_gpu": 1, "typical_p": 0.5}
    assert check_options(options) == options


def test_without_options_ollamas_defaults_are_sent():
    assert sampling({}, {}, 2048) == DEFAULTS


def test_a_request_overrides_the_model_and_the_model_the_defaults():
    stored = {"temperature": 0.1, "top_k": 7}
    fields = sampling(stored, {"top_k": 5, "temperature": None}, 2048)
    assert fields == DEFAULTS | {"temperature": 0.1, "top_k": 5}


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"temperature": -1}, {"temperature": 0.0}),
        ({"temperature": 5}, {"temperature": 2.0}),
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_k": 1e30}, {"top_k": 2**31 - 1}),
        ({"top_p": 0}, {"top_p": 1.0, "temperature": 0.0}),
        ({"top_p": 1.5}, {"top_p": 1.0}),
        ({"min_p": 2}, {"min_p": 1.0}),
        ({"presence_penalty": 3, "frequency_penalty": -3},
         {"presence_penalty": 2.0, "frequency_penalty": -2.0}),
        ({"repeat_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"repeat_penalty": 0}, {"repetition_penalty": 1.0}),
        ({"repeat_penalty": 1.1, "repeat_last_n": 0}, {"repetition_penalty": 1.0}),
        ({"repeat_penalty": 1.1, "repeat_last_n": -1}, {"repetition_penalty": 1.1}),
        ({"seed": -1}, {}),
        ({"seed": 0}, {"seed": 0}),
        ({"seed": 1e30}, {"seed": 2**63 - 1}),
        ({"num_predict": 10}, {"max_tokens": 10}),
        ({"num_predict": 5000}, {"max_tokens": 2048}),
        ({"num_predict": -2}, {"max_tokens": 2048}),
        ({"num_predict": 0}, {"max_tokens": 1}),
        ({"num_ctx": 128}, {"max_tokens": 1280}),  # Ollama's bound, whatever else is said
        ({"num_ctx": 128, "num_predict": -1}, {"max_tokens": 1280}),
        ({"num_ctx": 128, "num_predict": 2000}, {"max_tokens": 1280}),
        ({"num_ctx": 128, "num_predict": 5}, {"max_tokens": 5}),
        ({"num_ctx": 0}, {"max_tokens": 2048}),
        ({"num_ctx": -1}, {"max_tokens": 2048}),
        ({"stop": ["", "a"]}, {"stop": ["a"]}),
        ({"stop": [""]}, {}),
        ({"num_ctx": 999999, "num_thread": 8, "typical_p": 0.5}, {}),
    ],
)  # fmt: skip
def test_options_become_what_vllm_accepts(options, fields):
    assert sampling({}, options, 2048) == DEFAULTS | fields


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        (["a"] * 65, "cannot take 65 stop strings, at most 64"),
        (["a" * 1025], "cannot take a stop string longer than 1024 characters"),
    ],
)
def test_stop_strings_are_bounded(stop, message):
    with pytest.raises(BadInput) as refused:
        sampling({}, {"stop": stop}, 2048)
    assert (refused.value.message, refused.value.status) == (message, 400)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers()


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(
    ["temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty",
     "frequency_penalty", "seed", "num_predict", "repeat_last_n"], NUMBERS)))  # fmt: skip
def test_no_number_leaves_vllms_range(options):
    fields: dict[str, Any] = sampling({}, options, 2048)
    assert 0 <= fields["temperature"] <= 2
    assert 0 <= fields["top_k"] < 2**31
    assert 0 < fields["top_p"] <= 1
    assert 0 <= fields["min_p"] <= 1
    assert fields["repetition_penalty"] > 0
    assert -2 <= fields["presence_penalty"] <= 2
    assert -2 <= fields["frequency_penalty"] <= 2
    assert 1 <= fields["max_tokens"] <= 2048
    assert 0 <= fields.get("seed", 0) < 2**63


def test_a_generation_config_is_spelled_as_options():
    config = {
        "temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05,
        "min_p": float("nan"), "do_sample": True, "eos_token_id": 2,
    }  # fmt: skip
    assert from_generation_config(config) == {
        "temperature": 0.6,
        "top_p": 0.95,
        "top_k": 20,
        "repeat_penalty": 1.05,
    }


@pytest.mark.parametrize("value", [None, True, "1", float("inf")])
def test_what_is_no_number_in_a_generation_config_is_left_out(value):
    assert from_generation_config({"temperature": value}) == {}


@pytest.mark.parametrize(
    ("stored", "requested", "nothing"),
    [({}, {}, False), ({}, {"num_predict": 0}, True), ({"num_predict": 0}, {}, True),
     ({"num_predict": 0}, {"num_predict": 5}, False)],
)  # fmt: skip
def test_num_predict_zero_asks_for_nothing(stored, requested, nothing):
    assert predicts_nothing(stored, requested) == nothing


@pytest.mark.parametrize(
    ("options", "kept"), [({}, 4), ({"num_keep": 0}, 0), ({"num_keep": 9.5}, 9)]
)
def test_of_a_context_that_is_cut_the_first_tokens_stay(options, kept):
    assert kept_first(options) == kept


@pytest.mark.parametrize(
    ("options", "limited"),
    [({}, False), ({"num_predict": -1}, False), ({"num_predict": 0}, True),
     ({"num_predict": 9.0}, True), ({"num_ctx": 9}, False)],
)  # fmt: skip
def test_an_answer_has_a_limit_where_one_was_set(options, limited):
    assert sets_limit(options) == limited
