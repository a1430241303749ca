"""docs/openapi.yaml as it is read by tests: the document, its references and its operations."""

from __future__ import annotations

from typing import Any

import yaml

from tests.support.paths import ROOT

DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
METHODS = {"get", "head", "post", "put", "patch", "delete", "options", "trace"}


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """What a reference stands for; anything else is itself."""
    while "$ref" in node:
        found: Any = DOCUMENT
        for name in node["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        node = found
    return node


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Every operation of the document, by method and path."""
    return {
        (method.upper(), path): operation
        for path, item in DOCUMENT["paths"].items()
        for method, operation in resolved(item).items()
        if method in METHODS
    }
