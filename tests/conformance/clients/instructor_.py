"""instructor over the openai client: one answer of a declared type, in each of its modes."""

from __future__ import annotations

import instructor
import openai
from answers import Answer
from instructor.core import InstructorRetryException
from kit import MESSAGES, MISSING, MODEL, URL, all_together, drive, feature, refused

KEYS = {"base_url": f"{URL}/v1", "api_key": "any"}
ASK = {
    "model": MODEL,
    "messages": MESSAGES,
    "response_model": Answer,
    "temperature": 0,
    "max_tokens": 200,
    "max_retries": 0,
}


def client(mode: instructor.Mode = instructor.Mode.JSON_SCHEMA) -> instructor.Instructor:
    return instructor.from_openai(openai.OpenAI(**KEYS), mode=mode)


def is_an_answer(answer: object) -> None:
    assert isinstance(answer, Answer), repr(answer)


@feature("chat")
def _() -> object:
    answer = client().create(**{**ASK, "response_model": None})
    return answer.choices[0].message.content


@feature("JSON schema")
def _() -> None:
    assert isinstance(client().create(**ASK), Answer)


@feature("JSON schema, streamed")
def _() -> None:
    parts = list(client().create_partial(**ASK))
    assert len(parts) > 2
    Answer.model_validate(parts[-1].model_dump())


@feature("JSON mode")
def _() -> object:
    # Which keys come without a schema is up to the model: that it is an object is our promise.
    try:
        _, completion = client(instructor.Mode.JSON).create_with_completion(**ASK)
    except InstructorRetryException as error:
        completion = error.last_completion
    return completion.choices[0].message.content


@feature("token counts")
def _() -> None:
    _, completion = client().create_with_completion(**ASK)
    assert completion.usage.completion_tokens > 5


@feature("tools refused")
def _() -> None:
    with refused(InstructorRetryException, "tool"):
        client(instructor.Mode.TOOLS).create(**ASK)


@feature("model not found")
def _() -> None:
    with refused(InstructorRetryException, MISSING, "not found"):
        client().create(**{**ASK, "model": MISSING})


@feature("async", shows=is_an_answer)
async def _() -> object:
    async with openai.AsyncOpenAI(**KEYS) as other:
        patched = instructor.from_openai(other, mode=instructor.Mode.JSON_SCHEMA)
        return await patched.create(**ASK)


@feature("in parallel", shows=all_together(True))
def _() -> object:
    one = client()
    return lambda: isinstance(one.create(**ASK), Answer)


drive()
