"""Checkpoints of the real model that pass for other families: their marker tokens and template.

What they say is written down beforehand: see `plugin/scripted.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fakes.family_scripts import Act

PLUGIN = Path(__file__).with_name("plugin")

# The model never uses its tokens 3 to 16; they become these. Special ones (True) are left out of
# texts unless a parser asks for them.
TOKENS = {
    "<think>": False,
    "</think>": False,
    "<tool_call>": False,
    "</tool_call>": False,
    "<|python_tag|>": True,
    "[TOOL_CALLS]": True,
    "<fim_prefix>": True,
    "<fim_suffix>": True,
    "<fim_middle>": True,
}


def stage(folder: Path, original: Path, act: Act, *, tokens: bool = True) -> Path:
    """Make a folder with the weights of `original` and everything else of `act`.

    Without `tokens` the tokenizer has no marker tokens, so that an engine refuses the parsers.
    """
    folder.mkdir(parents=True)
    (folder / "model.safetensors").symlink_to(original / "model.safetensors")
    config = json.loads((original / "config.json").read_text())
    files: dict[str, Any] = {
        "config.json": config | {"model_type": act.model_type},
        "generation_config.json": {"eos_token_id": config["eos_token_id"]},
        "tokenizer.json": _renamed(json.loads((original / "tokenizer.json").read_text()), tokens),
        "tokenizer_config.json": json.loads((original / "tokenizer_config.json").read_text()),
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(act.template)
    return folder


def configured(act: Act, folder: Path) -> str:
    """The lines of a configuration that make the model in `folder` act."""
    # JSON strings are TOML's, once nothing is written as a surrogate pair.
    script, path, plugin = (
        json.dumps(text, ensure_ascii=False) for text in (act.script, str(folder), str(PLUGIN))
    )
    return f"""
[model.{act.name}]
path = {path}
[model.{act.name}.args]
logits-processors = "scripted:Scripted"
[model.{act.name}.env]
PYTHONPATH = {plugin}
SCRIPT = {script}
"""


def _renamed(tokenizer: dict[str, Any], wanted: bool) -> dict[str, Any]:
    if not wanted:
        return tokenizer
    added = {entry["id"]: entry for entry in tokenizer["added_tokens"]}
    vocabulary = tokenizer["model"]["vocab"]
    for number, (token, special) in enumerate(TOKENS.items(), start=3):
        vocabulary[token] = vocabulary.pop(added[number]["content"])
        added[number] |= {"content": token, "special": special}
    return tokenizer
