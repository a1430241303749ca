"""Chat templates that clients bring: Jinja passes, everything else is refused in words."""

from __future__ import annotations

import pytest

from tests.support.checkpoints import CHATML_TEMPLATE, QWEN3_TEMPLATE
from vllamad.errors import BadInput
from vllamad.gateway.inference.template_syntax import check_template


@pytest.mark.parametrize(
    "text",
    ["", "plain", CHATML_TEMPLATE, QWEN3_TEMPLATE, "{{ messages[0].content }}",
     "{% for m in messages %}{% if m %}{% break %}{% endif %}{% endfor %}",
     "{% generation %}{{ message }}{%- endgeneration -%}", "{{- end_of_text }}"],
)  # fmt: skip
def test_jinja_passes(text: str) -> None:
    check_template(text)


@pytest.mark.parametrize(
    "text",
    ["{{ .Prompt }}", "{{- if .System }}{{ .System }}{{ end }}", "{{ range $i, $_ := .Messages }}",
     "{{ $x }}", "{{ end }}"],
)  # fmt: skip
def test_go_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadInput, match="template error: only Jinja chat templates are supported"):
        check_template(text)


@pytest.mark.parametrize("text", ["{% if %}", "{{", "{{ " + "(" * 5000, "{{ " + "9" * 5000 + " }}"])
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="template error: "):
        check_template(text)
