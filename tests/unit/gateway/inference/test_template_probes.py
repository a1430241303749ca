"""The rules of a template are found once, and a probe that fails harms nothing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from tests.support.chat_templates import FAMILIES, RULES
from tests.support.checkpoints import SMOLLM2, write_checkpoint
from vllamad.core.model_name import parse_model_name
from vllamad.gateway.inference.template_probes import TemplateProbes
from vllamad.models.checkpoint.metadata import read_facts
from vllamad.models.installed import InstalledModel, InstalledModels
from vllamad.models.store import model_store
from vllamad.translate.conversation.roles import ACCEPTS_ALL
from vllamad.translate.conversation.template_rules import DEEPSEEK_V32, MISTRAL_COMMON


@pytest.fixture
def installed(tmp_path) -> InstalledModel:
    folder = write_checkpoint(tmp_path / "made", SMOLLM2, chat_template_jinja=FAMILIES["gemma2"])
    return installed_at(tmp_path, folder)


def installed_at(tmp_path: Path, folder: Path) -> InstalledModel:
    model_store.add_model(tmp_path / "models", parse_model_name("a"), folder, source="test")
    found = InstalledModels(tmp_path / "models", {}).find("a")
    assert found is not None
    return found


async def test_a_template_is_probed_once_for_all_who_wait(installed, tmp_path) -> None:
    counting = tmp_path / "runs"
    script = f"open({str(counting)!r}, 'a').write('x'); import runpy; " + (
        "runpy.run_module('vllamad.models.checkpoint.template_probe', run_name='__main__')"
    )
    probes = TemplateProbes((sys.executable, "-c", script))
    found: list[object] = []

    async def ask() -> None:
        found.append(await probes.rules_of(installed))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert found == [RULES["gemma2"]] * 5
    assert counting.read_text() == "x"


@pytest.mark.parametrize(
    ("script", "why", "limit"),
    [("import sys; sys.exit('it broke')", "it broke", 30), ("print('hello')", "exit status 0", 30),
     ("import signal; signal.pause()", "no answer within", 0.2)],
)  # fmt: skip
async def test_a_probe_that_fails_is_told_and_accepts_all(
    installed, caplog, script, why, limit
) -> None:
    probes = TemplateProbes((sys.executable, "-c", script), limit=limit)
    assert await probes.rules_of(installed) == ACCEPTS_ALL
    assert "cannot probe the chat template" in caplog.text
    [record] = caplog.records
    assert why in str(record.fields)


async def test_without_a_template_the_family_tells(installed) -> None:
    facts = replace(installed.facts, chat_template="")
    probes = TemplateProbes(("/nowhere",))
    assert await probes.rules_of(replace(installed, facts=facts)) == ACCEPTS_ALL
    deepseek = replace(facts, model_type="deepseek_v32")
    assert await probes.rules_of(replace(installed, facts=deepseek)) == DEEPSEEK_V32


async def test_mistrals_own_layout_is_rendered_by_mistral_common(tmp_path) -> None:
    folder = write_checkpoint(tmp_path / "made", SMOLLM2, chat_template_jinja=FAMILIES["gemma2"])
    assert not read_facts(folder).mistral_common
    weights = next(folder.glob("*.safetensors"))
    (folder / "consolidated.safetensors").write_bytes(weights.read_bytes())
    assert not read_facts(folder).mistral_common
    (folder / "tekken.json").write_text("{}")
    facts = read_facts(folder)
    found = replace(installed_at(tmp_path, folder), facts=facts)
    assert await TemplateProbes(("/nowhere",)).rules_of(found) == MISTRAL_COMMON
