"""Reads the texts of a checkpoint: its chat template, special tokens and licence."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import cast

from vllamad.models.checkpoint.json_access import Json, get_list, get_object, get_text
from vllamad.models.store.safe_files import open_regular, read_bounded

TEXT_LIMIT = 1 << 20  # bytes of a template, a licence or a model card

_LICENSE_FILE = re.compile(r"(LICENSE|LICENCE|COPYING)(\.(txt|md))?", re.IGNORECASE)
_CARD_HEAD = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_CARD_LICENSE = re.compile(r"^license(_name)?:[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)


def template_file(folder: Path, names: Collection[str]) -> str:
    """The chat template from its own file, as newer checkpoints have it; "" without one."""
    name = "chat_template.jinja"
    if name not in names:
        return ""
    return read_bounded(folder / name, TEXT_LIMIT).decode(errors="replace")


def template_of(*sources: Json) -> str:
    """The chat template inside JSON: one text, or the default of a list of named ones."""
    for source in sources:
        if template := get_text(source, "chat_template"):
            return template
        named = {
            get_text(entry, "name"): get_text(entry, "template")
            for value in get_list(source, "chat_template")
            # The keys of a JSON object are texts.
            if isinstance(value, dict) and (entry := cast("Json", value))
        }
        if named:
            return named.get("default") or next(iter(named.values()))
    return ""


def special_token(tokenizer: Json, key: str) -> str:
    """A special token, written as a text or as an object with its content."""
    return get_text(tokenizer, key) or get_text(get_object(tokenizer, key), "content")


def license_of(folder: Path, names: Collection[str]) -> str:
    """The licence's text, else its identifier in the model card, else ""."""
    for name in sorted(names):
        if _LICENSE_FILE.fullmatch(name):
            return _head(folder / name)
    return card_license(_head(folder / "README.md")) if "README.md" in names else ""


def card_license(card: str) -> str:
    """The licence in a model card's front matter; `license_name` replaces `other`."""
    head = _CARD_HEAD.match(card)
    fields: dict[str, str] = dict(_CARD_LICENSE.findall(head[1])) if head else {}
    name, identifier = fields.get("_name", ""), fields.get("", "")
    return name if identifier == "other" and name else identifier


def _head(path: Path) -> str:
    with open_regular(path) as (file, _):
        return file.read(TEXT_LIMIT).decode(errors="replace")
