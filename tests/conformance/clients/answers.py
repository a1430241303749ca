"""A structured answer as people declare it with pydantic, with all that its schemas are made of.

Every value is from a short list, so that the smallest model comes to an end.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Country(BaseModel):
    """A country of Europe."""

    name: Literal["France", "Italy", "Spain"]
    in_europe: bool = True


class Answer(BaseModel):
    """The capital of a country: $defs, $ref, anyOf with null, defaults, bounds."""

    model_config = ConfigDict(extra="forbid")

    city: Literal["Paris", "Rome", "Madrid"] = Field(description="The capital")
    country: Country
    nickname: Literal["city of light", "eternal city"] | None = None
    stars: int = Field(ge=1, le=5)
    seen: list[Literal["museum", "tower"]] = Field(default_factory=list, max_length=2)
