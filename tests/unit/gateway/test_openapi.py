"""Is docs/openapi.yaml what the gateway does? The routes, the fields that are read, the limits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from tests.support.openapi_document import DOCUMENT, operations, resolved
from vllamad.access.api_keys import Access
from vllamad.core.model_name import parse_model_name
from vllamad.errors import BadInput
from vllamad.gateway.routes import audio
from vllamad.gateway.routes.table import ROUTES, Api, Body, Route
from vllamad.translate.anthropic import blocks as message_blocks
from vllamad.translate.anthropic import messages
from vllamad.translate.engine import request_fields
from vllamad.translate.go.duration import parse_keep_alive
from vllamad.translate.ollama import embeddings, manage_requests, options, request
from vllamad.translate.openai import chat_fields, chat_messages, rerank_fields, responses

SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]

# The tables by which the fields of a relayed request are read.
TABLES: dict[str, Iterable[str]] = {
    "Options": options._TYPES,
    "ChatCompletionRequest": {*chat_fields._CHAT, "model", "reasoning", "user"},
    "CompletionRequest": {*chat_fields._COMPLETION, "model", "user"},
    "ChatMessage": chat_messages._MESSAGE,
    "ResponsesRequest": {*responses._REQUEST, "include", "input", "model"},
    "MessagesRequest": {*messages._SAMPLED, "messages", "model", "system", "tools"},
    "CountRequest": {*messages._COUNTED, "messages", "model", "system", "tools"},
    "RerankRequest": rerank_fields._LIMITS | {"documents", "model", "query"},
    "ScoreRequest": rerank_fields._LIMITS
    | {"model"}
    | {name for pair in rerank_fields._SCORE for name in pair},
    "SpeechRequest": audio._FIELDS | {"file", "model"},
}
STRUCTS: dict[str, type[msgspec.Struct]] = {
    "GenerateRequest": request.GenerateRequest,
    "ChatRequest": request.ChatRequest,
    "ApiMessage": request.Message,
    "ShowRequest": request.ShowRequest,
    "EmbedRequest": embeddings.EmbedRequest,
    "EmbeddingRequest": embeddings.EmbeddingRequest,
    "CopyRequest": manage_requests.CopyRequest,
    "CreateRequest": manage_requests.CreateRequest,
    "DeleteRequest": manage_requests.DeleteRequest,
    "PullRequest": manage_requests.PullRequest,
    "PushRequest": manage_requests.PushRequest,
    "Turn": manage_requests.CreateMessage,
}


def spelled(path: str) -> str:
    """A path of the route table, as the document spells it."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)


def routes() -> set[tuple[str, str]]:
    """Every method and path of the route table."""
    return {(method, spelled(route.path)) for route in ROUTES for method in route.methods}


def properties(schema: dict[str, Any]) -> set[str]:
    """The fields of an object, those of what it is composed of included."""
    schema = resolved(schema)
    parts = [properties(part) for part in schema.get("allOf", [])]
    return set(schema.get("properties", {})).union(*parts)


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(target := node.get("$ref"), str):
            yield target
        for value in node.values():
            yield from references(value)
    if isinstance(node, list):
        for value in node:
            yield from references(value)


def test_it_is_a_valid_document_of_this_version() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["info"]["version"] == version("vllamad")


def test_it_has_every_route_and_no_other() -> None:
    assert set(operations()) == routes()


def test_each_operation_has_a_name_of_its_own() -> None:
    names = [one["operationId"] for one in operations().values() if "operationId" in one]
    assert len(names) == len(set(names))


def test_each_component_is_used() -> None:
    kinds = DOCUMENT["components"]
    present = {f"#/components/{kind}/{name}" for kind in kinds for name in kinds[kind]}
    schemes = {
        f"#/components/securitySchemes/{name}" for one in DOCUMENT["security"] for name in one
    }
    assert present - set(references(DOCUMENT)) == schemes


@pytest.mark.parametrize("operation", operations().values(), ids=lambda one: one.get("operationId"))
def test_what_can_happen_on_every_route_is_there(operation: dict[str, Any]) -> None:
    common = {"403"} | ({"408", "413", "415"} if "requestBody" in operation else set())
    common |= set() if operation.get("security") == [] else {"401"}
    assert common <= set(operation["responses"])


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: " ".join((*route.methods, route.path)))
def test_an_operation_says_what_the_table_says(route: Route) -> None:
    of_route = [operations()[method, spelled(route.path)] for method in route.methods]
    assert of_route
    for operation in of_route:
        assert (operation.get("security") == []) is (route.access is Access.OPEN)
        assert ("requestBody" in operation) is (route.body is not Body.NONE)


FAULTS = {Api.OLLAMA: "ApiFault", Api.OPENAI: "OpenAIFault", Api.ANTHROPIC: "AnthropicFault"}


@pytest.mark.parametrize("route", [route for route in ROUTES if set(route.methods) != {"HEAD"}])
def test_errors_have_the_form_of_their_api(route: Route) -> None:
    forms = [
        resolved(answer)["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for method in route.methods
        if method != "HEAD"
        for status, answer in operations()[method, spelled(route.path)]["responses"].items()
        if status >= "400"
    ]
    assert set(forms) == {FAULTS[route.api]}


@pytest.mark.parametrize("name", TABLES)
def test_a_request_has_the_fields_that_are_read_and_no_others(name: str) -> None:
    assert properties(SCHEMAS[name]) == set(TABLES[name])


@pytest.mark.parametrize("name", STRUCTS)
def test_a_typed_request_has_the_fields_of_its_struct_and_no_others(name: str) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(STRUCTS[name])}
    assert fields == properties(SCHEMAS[name])


@pytest.mark.parametrize("field", properties(SCHEMAS["EmbeddingsRequest"]))
def test_every_field_of_a_request_for_vectors_is_read(field: str) -> None:
    body = {"model": "m", "input": "hi", field: {"of": "no such type"}}
    with pytest.raises(BadInput):
        embeddings.decode_openai(msgspec.json.encode(body))


@given(st.from_regex(SCHEMAS["Name"]["pattern"], fullmatch=True))
def test_what_a_name_may_be_is_one(text: str) -> None:
    assert parse_model_name(text).display()


@settings(max_examples=30, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.from_regex(SCHEMAS["KeepAlive"]["anyOf"][1]["pattern"], fullmatch=True))
def test_what_a_duration_may_be_is_one(text: str) -> None:
    assume(len(text) < 20)
    assume(not re.search("[0-9]{6}", text))  # longer than 292 years is none
    assert parse_keep_alive(text) is not None


@pytest.mark.parametrize(
    ("schema", "limit"),
    [
        (SCHEMAS["ChatRequest"]["properties"]["messages"], request.MAX_MESSAGES),
        (SCHEMAS["ChatRequest"]["properties"]["tools"], request.MAX_TOOLS),
        (SCHEMAS["ApiMessage"]["properties"]["tool_calls"], request.MAX_TOOL_CALLS),
        (SCHEMAS["Images"], request.MAX_IMAGES),
        (SCHEMAS["Options"]["properties"]["stop"], options.MAX_STOPS),
        (SCHEMAS["CreateRequest"]["properties"]["messages"], request.MAX_MESSAGES),
        (SCHEMAS["ChatCompletionRequest"]["properties"]["messages"], request_fields.MAX_MESSAGES),
        (SCHEMAS["ToolsOfOpenAI"], request_fields.MAX_TOOLS),
        (SCHEMAS["Conversation"]["properties"]["messages"], request_fields.MAX_MESSAGES),
    ],
)
def test_lists_have_the_limits_of_the_code(schema: dict[str, Any], limit: int) -> None:
    assert schema["maxItems"] == limit


def test_words_are_those_of_the_code() -> None:
    think = SCHEMAS["Generation"]["properties"]["think"]["enum"]
    assert {word for word in think if isinstance(word, str)} == set(request.THINK_LEVELS)
    assert set(SCHEMAS["Effort"]["enum"]) == {*request_fields._EFFORTS, "", None}
    tools = SCHEMAS["ResponsesRequest"]["properties"]["tools"]["items"]["description"]
    assert set(re.findall(r"`(\w+)`", tools)) == set(responses._TOOLS)
    blocks = SCHEMAS["Blocks"]["anyOf"][1]["items"]["properties"]["type"]["description"]
    own = {"document", "search_result", "image"}
    assert set(re.findall(r"`(\w+)`", blocks)) == {*message_blocks._BLOCKS, *own}
