"""The bodies of copy, delete, create, pull and push: read and refused as Ollama does it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.properties import accepted_or_refused, accepts_some
from vllamad.core.overlay import Adapter, Overlay, Turn, layer_digests
from vllamad.errors import BadInput
from vllamad.protocol.control import Progress
from vllamad.translate.ollama.manage_requests import (
    CopyRequest,
    CreateRequest,
    PullRequest,
    check_create,
    decode_copy,
    decode_create,
    decode_delete,
    decode_pull,
    decode_push,
    overlay_of,
    progress_line,
    unknown_parameters,
)

HEX = "0123456789abcdef" * 4


def create(**fields: Any) -> CreateRequest:
    return decode_create(msgspec.json.encode(fields))


def based(**fields: Any) -> Overlay:
    return overlay_of(create(**{"from": "a"}, **fields))


def test_a_copy_names_two_models() -> None:
    request = decode_copy(b'{"Source": "a", "destination": "b", "more": 1}')
    assert (request.source, request.destination) == ("a", "b")


@pytest.mark.parametrize("decode", [decode_delete, decode_pull, decode_push, decode_create])
@pytest.mark.parametrize(
    ("body", "named"),
    [(b'{"model": "a", "name": "b"}', "a"), (b'{"name": "b"}', "b"), (b"{}", "")],
)
def test_a_model_is_named_by_model_or_by_the_older_name(
    decode: Any, body: bytes, named: str
) -> None:
    assert decode(body).named == named


@pytest.mark.parametrize("decode", [decode_pull, decode_push, decode_create])
def test_progress_is_streamed_unless_it_is_not_wanted(decode: Any) -> None:
    assert decode(b"{}").stream
    assert not decode(b'{"stream": false}').stream


@pytest.mark.parametrize(
    ("decode", "body", "message"),
    [
        (decode_copy, b'{"source": 1}', "cannot unmarshal number into Go struct field"),
        (decode_pull, b'{"stream": "no"}', "cannot unmarshal string into Go struct field"),
        (decode_create, b'{"files": []}', "cannot unmarshal array into Go struct field"),
        (decode_create, b'{"files": {"a": 1}}', "cannot unmarshal number into Go struct field"),
        (decode_create, b'{"license": {}}', "cannot unmarshal object into Go struct field"),
        (decode_create, b'{"messages": [1]}', "cannot unmarshal number into Go struct field"),
        (decode_create, b'{"parameters": 1}', "cannot unmarshal number into Go struct field"),
    ],
)
def test_a_field_of_another_type_is_refused_in_gos_words(
    decode: Any, body: bytes, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        decode(body)


@pytest.mark.parametrize(
    ("body", "licenses"),
    [
        (b'{"license": "MIT"}', ["MIT"]),
        (b'{"license": ["MIT", null, "own"]}', ["MIT", "own"]),
        (b'{"license": null}', []),
    ],
)
def test_a_licence_is_one_text_or_several(body: bytes, licenses: list[str]) -> None:
    assert decode_create(body).license == licenses


def test_a_derived_model_says_what_differs_from_its_base() -> None:
    assert based(
        system="be brief",
        template="{{ x }}",
        license=["MIT", ""],
        parameters={"temperature": 0.5, "odd": 1, "top_k": None},
        messages=[{"role": "user", "content": "hi"}, {"content": "?"}],
        info={"capabilities": ["tools"], "context_length": 2048, "model_family": "llama"},
        requires="0.6",
    ) == Overlay(
        system="be brief",
        template="{{ x }}",
        licenses=("MIT",),
        parameters={"temperature": 0.5, "odd": 1},
        messages=(Turn(role="user", content="hi"), Turn(role="", content="?")),
        capabilities=("tools",),
    )


def test_parameters_nobody_knows_are_kept_and_can_be_named() -> None:
    assert unknown_parameters(based(parameters={"temperature": 1, "odd": 1})) == ["odd"]


@pytest.mark.parametrize("sign", [":", "-"])
@pytest.mark.parametrize("folder", ["", "adapter/"])
def test_an_adapter_is_its_two_files_by_their_digests(sign: str, folder: str) -> None:
    files = {
        f"{folder}adapter_config.json": f"sha256{sign}{HEX}",
        f"{folder}adapter_model.safetensors": f"sha256{sign}{HEX[::-1]}",
    }
    assert based(adapters=files).adapter == Adapter(config=HEX, weights=HEX[::-1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither 'from' or 'files' was specified"),
        (
            {"from": "a", "files": {"b": "c"}},
            "cannot use both 'from' and 'files': name one of them",
        ),
        ({"remote_host": "https://x"}, "bad remote"),
        ({"quantize": "q4_K_M"}, "quantization is not supported"),
        ({"quantization": "q4_K_M"}, "quantization is not supported"),
        ({"renderer": "x"}, "renderer is not supported"),
        ({"parser": "x"}, "parser is not supported"),
        ({"draft_files": {"a": "b"}}, "draft_files is not supported"),
    ],
)
def test_what_cannot_be_made_here_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        overlay_of(create(**fields))


ONE = {"adapter_config.json": f"sha256:{HEX}"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parameters": {"temperature": "hot"}}, "temperature"),
        ({"adapters": ONE}, "only one adapter is currently supported"),
        (
            {"adapters": ONE | {"a/adapter_config.json": f"sha256:{HEX}"}},
            "only one adapter is currently supported",
        ),
        (
            {"adapters": ONE | {"adapter_model.safetensors": f"sha256:{HEX.upper()}"}},
            "invalid digest format",
        ),
        (
            {"adapters": ONE | {"adapter_model.safetensors": f"sha512:{HEX}"}},
            "invalid digest format",
        ),
        (
            {"adapters": ONE | {"adapter_model.safetensors": "sha256:abc"}},
            "invalid digest format",
        ),
        ({"info": {"model_family": 1}}, 'info field "model_family" must be a string'),
        ({"info": {"context_length": -1}}, '"context_length" must be a non-negative integer'),
        ({"info": {"context_length": True}}, '"context_length" must be a non-negative integer'),
        ({"info": {"embedding_length": "1"}}, '"embedding_length" must be a non-negative integer'),
        ({"info": {"capabilities": "tools"}}, '"capabilities" must be a list of strings'),
        ({"info": {"capabilities": [1]}}, '"capabilities" must be a list of strings'),
    ],
)
def test_what_is_wrong_with_a_derived_model_is_said(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        based(**fields)
    assert caught.value.status == 400


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\\b", "a/"])
@pytest.mark.parametrize("part", ["files", "adapters"])
def test_the_name_of_a_file_leads_nowhere_else(part: str, name: str) -> None:
    with pytest.raises(BadInput, match="file path must be relative"):
        check_create(create(**{part: {name: f"sha256:{HEX}"}}))


def test_a_file_needs_a_digest() -> None:
    with pytest.raises(BadInput, match="invalid digest format"):
        check_create(create(files={"a": ""}))


def test_a_draft_that_is_not_there_cannot_be_quantised() -> None:
    with pytest.raises(BadInput, match="--draft-quantize requires a DRAFT model"):
        check_create(create(draft_quantize="q4_0"))


def test_what_can_be_made_is_let_through() -> None:
    check_create(create(files={"a/b.json": f"sha256:{HEX}"}, adapters={"c": "d"}))


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(), b'{"status":""}\n'),
        (Progress(status="success", done=True, elapsed=3.0), b'{"status":"success"}\n'),
        (
            Progress(status="pulling", digest="sha256:x", completed=1, total=2),
            b'{"status":"pulling","digest":"sha256:x","total":2,"completed":1}\n',
        ),
    ],
)
def test_a_step_is_told_in_ollamas_words(progress: Progress, line: bytes) -> None:
    assert progress_line(progress) == line


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=10,
)
_FIELDS = st.sampled_from(
    [field.encode_name for struct in (CreateRequest, CopyRequest, PullRequest)
     for field in msgspec.structs.fields(struct)],
)  # fmt: skip


@accepts_some
@example(body={"model": "a", "from": "b", "source": "a", "destination": "b"})
@given(body=st.dictionaries(_FIELDS, _JSON))
def test_no_body_raises_anything_but_bad_input(body: dict[str, Any]) -> None:
    content = msgspec.json.encode(body)
    for decode in (decode_copy, decode_delete, decode_pull, decode_push):
        with accepted_or_refused():
            decode(content)
    with accepted_or_refused():
        request = decode_create(content)
        check_create(request)
        layer_digests(overlay_of(request))
