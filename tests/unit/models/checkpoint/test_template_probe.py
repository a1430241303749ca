"""The rules of a template are found by rendering, in a process that is bounded."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from tests.support.chat_templates import FAMILIES, RULES
from vllamad.models.checkpoint.template_probe import MARK, ProbeRequest, find_rules
from vllamad.translate.conversation.roles import ACCEPTS_ALL, TemplateRules


@pytest.mark.case("F2", "F3")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_guards_of_a_family_are_found(family: str) -> None:
    asked = ProbeRequest(template=FAMILIES[family], bos_token="<s>", eos_token="</s>")
    assert find_rules(asked) == RULES[family]


def test_at_least_twelve_families_differ_from_what_accepts_everything() -> None:
    assert sum(rules != ACCEPTS_ALL for rules in RULES.values()) >= 12


def test_a_template_that_renders_nothing_is_given_everything() -> None:
    assert find_rules(ProbeRequest(template="{{ raise_exception('no') }}")) == ACCEPTS_ALL


def run(template: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "vllamad.models.checkpoint.template_probe"],
        input=msgspec.json.encode(ProbeRequest(template=template)),
        capture_output=True,
        timeout=60,
    )


@pytest.mark.integration
def test_the_rules_are_the_line_behind_the_mark() -> None:
    done = run(FAMILIES["gemma2"])
    [line] = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    assert msgspec.json.decode(line.removeprefix(MARK), type=TemplateRules) == RULES["gemma2"]


@pytest.mark.integration
def test_what_is_no_template_is_told() -> None:
    done = run("{% if %}")
    assert done.returncode == 1
    assert b"TemplateSyntaxError" in done.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    "template",
    ["{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
     "{% set ns = namespace(t='x' * 1000) %}{% for a in range(60) %}"
     "{% set ns.t = ns.t + ns.t %}{% endfor %}{{ ns.t }}"],
    ids=["time", "memory"],
)  # fmt: skip
def test_a_template_without_end_is_ended(template: str) -> None:
    assert run(template).returncode in (-24, -9, 0, 1)
