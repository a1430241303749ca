"""The check that a text is a chat template of the engine's kind. It is parsed, never run."""

from __future__ import annotations

import re
from typing import Final

import jinja2

from vllamad.errors import BadInput

# {{ .Prompt }}, {{- if .System }}, {{ range $i, $_ := .Messages }}, {{ end }}
_GO: Final = re.compile(r"\{\{-?\s*(\.|\$|(if|range|with|template|block|define|else|end)\b)")
# The tag with which templates mark what a model is trained on; it says nothing here.
_GENERATION: Final = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


def check_template(text: str) -> None:
    """Raise BadInput, in the form of Ollama's text, for a text that is no Jinja template."""
    if _GO.search(text):
        raise BadInput("template error: only Jinja chat templates are supported")
    try:
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False).parse(
            _GENERATION.sub("", text)
        )
    except (jinja2.TemplateError, ValueError, RecursionError) as error:
        raise BadInput(f"template error: {error}") from error
