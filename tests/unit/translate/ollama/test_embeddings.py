"""Requests for embeddings are read as Ollama reads them; vectors are exact to the last digit."""

from __future__ import annotations

import base64
import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllamad.errors import BadInput, EngineRefused
from vllamad.translate.ollama.embeddings import (
    OpenAIRequest,
    Vectors,
    cut_to,
    decimals,
    decode_embed,
    decode_embeddings,
    decode_openai,
    embed_reply,
    embeddings_call,
    embeddings_reply,
    longest,
    openai_reply,
    read_vectors,
    unit,
)

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


def body(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def answer(*vectors: bytes, prompt_tokens: int = 7) -> bytes:
    data = [
        {"index": index, "object": "embedding", "embedding": base64.b64encode(vector).decode()}
        for index, vector in enumerate(vectors)
    ]
    return json.dumps({"data": data, "usage": {"prompt_tokens": prompt_tokens}}).encode()


def single(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"input": "a"}, ["a"]),
        ({"input": ["a", "b"]}, ["a", "b"]),
        ({"input": [""]}, [""]),
        ({"input": ""}, []),
        ({"input": []}, []),
        ({"input": None}, []),
        ({}, []),
    ],
)
def test_a_text_or_a_list_of_them_is_embedded_and_nothing_only_loads(fields, texts):
    assert decode_embed(body(model="m", **fields)).texts() == texts


@pytest.mark.parametrize("wrong", [1, [1], {}, ["a", None], ["a", ["b"]], True])
def test_what_is_no_text_is_refused_as_ollama_does(wrong):
    with pytest.raises(BadInput, match="invalid input type"):
        decode_embed(body(model="m", input=wrong)).texts()


def test_all_fields_of_embed_are_read():
    request = decode_embed(
        b'{"MODEL":"m","truncate":false,"dimensions":4,"keep_alive":"5m","options":{"a":1}} x'
    )
    assert (request.model, request.truncate, request.dimensions) == ("m", False, 4)
    assert (request.keep_alive, request.options) == (300, {"a": 1})


@pytest.mark.parametrize(
    ("decode", "raw", "text"),
    [
        (decode_embed, b"", "missing request body"),
        (decode_embed, b'{"input":"a"', "unexpected EOF"),
        (
            decode_embed,
            b'{"truncate":"no"}',
            "json: cannot unmarshal string into Go struct field EmbedRequest.truncate of type bool",
        ),
        (
            decode_embed,
            b'{"dimensions":1.5}',
            "json: cannot unmarshal number 1.5 into Go struct field EmbedRequest.dimensions"
            " of type int",
        ),
        (decode_embed, b'{"keep_alive":"5"}', 'time: missing unit in duration "5"'),
        (
            decode_embeddings,
            b'{"prompt":["a"]}',
            "json: cannot unmarshal array into Go struct field EmbeddingRequest.prompt"
            " of type string",
        ),
        (
            decode_embeddings,
            b"[]",
            "json: cannot unmarshal array into Go value of type api.EmbeddingRequest",
        ),
    ],
)
def test_a_body_that_does_not_fit_is_refused_in_gos_words(decode, raw, text):
    with pytest.raises(BadInput) as raised:
        decode(raw)
    assert raised.value.message == text


def test_the_older_form_has_one_prompt_and_ignores_input():
    request = decode_embeddings(body(model="m", prompt="a", input="b"))
    assert (request.model, request.prompt, request.keep_alive) == ("m", "a", None)


@pytest.mark.parametrize(
    ("given_", "inputs"),
    [
        ("a", ["a"]),
        ("", [""]),
        (["a", ""], ["a", ""]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_openai_inputs_are_texts_or_token_ids(given_, inputs):
    assert decode_openai(body(model="m", input=given_)).inputs == inputs


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "invalid input"),
        ({"input": None}, "invalid input"),
        ({"input": []}, "invalid input"),
        ({"input": 1}, "invalid input type"),
        ({"input": ["a", 1]}, "invalid input type"),
        ({"input": [1, True]}, "invalid input type"),
        ({"input": [[1], []]}, "invalid input type"),
        ({"input": {"a": 1}}, "invalid input type"),
        (
            {"input": "a", "encoding_format": "hex"},
            "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64'].",
        ),
        (
            {"input": "a", "encoding_format": 1},
            "Invalid value for 'encoding_format' = 1. Supported values: ['float', 'base64'].",
        ),
        (
            {"input": "a", "dimensions": "4"},
            "json: cannot unmarshal string into Go struct field EmbedRequest.dimensions"
            " of type int",
        ),
    ],
)
def test_openai_refusals_say_what_is_wrong(fields, text):
    with pytest.raises(BadInput) as raised:
        decode_openai(body(model="m", **fields))
    assert raised.value.message == text


def test_openai_fields_are_read_and_others_ignored():
    request = decode_openai(
        body(model="m", input="a", encoding_format="Base64", dimensions=4, user="u",
             truncate_prompt_tokens=-7, priority=9)
    )  # fmt: skip
    assert request == OpenAIRequest(
        model="m", inputs=["a"], dimensions=4, base64=True, truncate_to=-1
    )
    plain = decode_openai(body(model="m", input="a"))
    assert (plain.dimensions, plain.base64, plain.truncate_to) == (0, False, None)


@pytest.mark.parametrize(
    ("truncate_to", "more"), [(None, {}), (-1, {"truncate_prompt_tokens": -1})]
)
def test_the_engine_is_asked_for_bytes(truncate_to, more):
    call = embeddings_call(["a"], served_name="w", truncate_to=truncate_to)
    assert call.path == "/v1/embeddings"
    assert call.body == {"model": "w", "input": ["a"], "encoding_format": "base64", **more}


def test_an_answer_is_read_in_order():
    found = read_vectors(answer(floats(1, 2), floats(3, 4)), 2)
    assert found == Vectors([(1.0, 2.0), (3.0, 4.0)], 7)


@pytest.mark.parametrize(
    "broken",
    [b"", b"{}", b"oops", answer(floats(1)), answer(b"abc", b"abc")],
    ids=["empty", "no data", "no JSON", "one of two", "no floats"],
)
def test_an_answer_of_another_shape_is_the_engines_failure(broken):
    with pytest.raises(EngineRefused, match="failed") as raised:
        read_vectors(broken, 2)
    assert raised.value.status == 500


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_fails_the_whole_batch(value):
    with pytest.raises(EngineRefused, match="embedding contains NaN or Inf values") as raised:
        read_vectors(answer(floats(1, 2), floats(1, value)), 2)
    assert raised.value.status == 400


@given(st.lists(FLOATS, min_size=1, max_size=20).filter(lambda v: math.hypot(*v) > 1e-6))
def test_a_vector_has_length_one(vector):
    assert math.isclose(math.hypot(*unit(tuple(vector))), 1, abs_tol=1e-6)


def test_nothing_stays_nothing():
    assert unit((0.0, 0.0)) == (0.0, 0.0)
    assert unit(()) == ()


@pytest.mark.parametrize(("dimensions", "kept"), [(2, 2), (0, 4), (4, 4), (9, 4), (-1, 4)])
def test_fewer_dimensions_are_cut_and_have_length_one_again(dimensions, kept):
    vector = unit((3.0, 4.0, 12.0, 84.0), dimensions)
    assert len(vector) == kept
    assert math.isclose(math.hypot(*vector), 1, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.010071029, "0.010071029"),
        (0.1, "0.1"),
        (-0.5, "-0.5"),
        (5.0, "5"),
        (0.0, "0"),
        (1 / 3, "0.33333334"),
        (16777216.0, "16777216"),
    ],
)
def test_a_float_has_the_decimals_of_its_single_precision(value, text):
    assert decimals((single(value),)) == f"[{text}]"


@given(st.lists(FLOATS, max_size=20))
def test_decimals_read_back_as_the_same_floats_and_no_shorter_ones_do(values):
    texts = decimals(tuple(values))[1:-1].split(",") if values else []
    assert json.loads(decimals(tuple(values))) == [float(text) for text in texts]
    for value, text in zip(values, texts, strict=True):
        assert single(float(text)) == value
        digits = len(text.lstrip("-").split("e")[0].replace(".", "").strip("0"))
        assert digits < 2 or single(float(f"{value:.{digits - 1}g}")) != value


def test_embed_replies_with_units_and_what_it_took():
    found = Vectors([(3.0, 4.0), (0.0, 2.0)], 5)
    reply = embed_reply("M", found, total_duration=9, load_duration=4)
    assert reply == (
        b'{"model":"M","embeddings":[[0.6,0.8],[0,1]],"total_duration":9,"load_duration":4,'
        b'"prompt_eval_count":5}'
    )


def test_embed_without_input_replies_with_no_vectors():
    assert embed_reply("M", Vectors([], 0)) == b'{"model":"M","embeddings":[]}'


def test_embed_cuts_to_the_dimensions_asked_for():
    reply = embed_reply("M", Vectors([(3.0, 4.0)], 5), dimensions=1)
    assert json.loads(reply)["embeddings"] == [[1]]


def test_the_older_form_replies_in_double_precision():
    reply = embeddings_reply((3.0, 4.0))
    assert reply == b'{"embedding":[0.6000000238418579,0.800000011920929]}'
    assert embeddings_reply(()) == b'{"embedding":[]}'


def test_openai_gets_floats_or_their_bytes():
    found = Vectors([(3.0, 4.0)], 5)
    request = decode_openai(body(model="M", input="a"))
    assert openai_reply(request, found) == (
        b'{"object":"list","data":[{"object":"embedding","embedding":[0.6,0.8],"index":0}],'
        b'"model":"M","usage":{"prompt_tokens":5,"total_tokens":5}}\n'
    )
    encoded = json.loads(openai_reply(request._replace(base64=True), found))["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(encoded)) == (single(0.6), single(0.8))


def test_68_base64_is_of_little_endian_floats():
    request = decode_openai(body(model="M", input="a", encoding_format="base64"))
    vector = (single(0.1), -0.5)
    length = math.hypot(*vector)
    encoded = json.loads(openai_reply(request, Vectors([vector], 1)))["data"][0]["embedding"]
    assert base64.b64decode(encoded) == floats(vector[0] / length, vector[1] / length)
    assert base64.b64encode(floats(0.1, -0.5)) == b"zczMPQAAAL8="


@pytest.mark.case("B2")
@pytest.mark.parametrize(
    ("limit", "requested", "cut"),
    [(0, None, None), (0, -1, -1), (0, 7, 7), (5, None, None), (5, -1, 5), (5, 7, 5), (5, 3, 3)],
)
def test_inputs_are_cut_to_the_smaller_limit(limit: int, requested: int | None, cut: int | None):
    assert cut_to(limit, requested) == cut


@pytest.mark.parametrize("text", ["", "cat", "日本語", "\ud800"])
def test_a_text_has_at_most_a_token_for_each_byte_and_those_around_it(text: str):
    assert longest(text) >= len(text.encode(errors="replace")) + 2


@pytest.mark.case("F10")
@pytest.mark.parametrize(
    ("inputs", "tokens"), [("a", False), (["a", "b"], False), ([1, 2], True), ([[1], [2]], True)]
)
def test_token_ids_are_told_from_texts(inputs: object, tokens: bool):
    body = json.dumps({"model": "a", "input": inputs}).encode()
    assert decode_openai(body).has_tokens == tokens
