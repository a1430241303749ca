"""The rules of a model's chat template, found once for each template in a process of its own.

A template is a stranger's program: it is never rendered in the gateway. Where the probe fails, or
takes too long, the template is taken to accept everything, and the log says so.
"""

from __future__ import annotations

import logging
import sys
from collections import defaultdict
from typing import Final

import msgspec
import trio

from vllamad.host.log import event
from vllamad.models.checkpoint.template_probe import MARK, TIME, ProbeRequest
from vllamad.models.installed import InstalledModel
from vllamad.translate.conversation.roles import ACCEPTS_ALL, TemplateRules
from vllamad.translate.conversation.template_rules import DEEPSEEK_V32, MISTRAL_COMMON

log = logging.getLogger(__name__)

_LIMIT: Final = 4 * TIME  # seconds: a busy machine gives the probe its CPU time late
_KEPT: Final = 256  # templates
_COMMAND: Final = (sys.executable, "-P", "-m", "vllamad.models.checkpoint.template_probe")


class TemplateProbes:
    """Finds and keeps the rules of templates; one probe at a time for each of them."""

    def __init__(self, command: tuple[str, ...] = _COMMAND, limit: float = _LIMIT) -> None:
        self._command = command
        self._limit = limit
        self._rules: dict[ProbeRequest, TemplateRules] = {}
        self._probing: defaultdict[ProbeRequest, trio.Lock] = defaultdict(trio.Lock)

    async def rules_of(self, installed: InstalledModel) -> TemplateRules:
        """What the template that the engine renders `installed` with accepts."""
        facts = installed.facts
        if facts.mistral_common:
            return MISTRAL_COMMON
        if facts.model_type.startswith("deepseek_v32"):
            return DEEPSEEK_V32
        if not facts.chat_template or facts.is_embedding:
            return ACCEPTS_ALL
        asked = ProbeRequest(
            template=facts.chat_template, bos_token=facts.bos_token, eos_token=facts.eos_token
        )
        if (known := self._rules.get(asked)) is not None:
            return known
        async with self._probing[asked]:
            if asked not in self._rules:
                rules = await self._probe(asked, installed.name)
                if len(self._rules) >= _KEPT:
                    del self._rules[next(iter(self._rules))]
                self._rules[asked] = rules
        self._probing.pop(asked, None)
        return self._rules.get(asked, ACCEPTS_ALL)

    async def _probe(self, asked: ProbeRequest, model: str) -> TemplateRules:
        why = f"no answer within {self._limit:g} s"
        with trio.move_on_after(self._limit):
            done = await trio.run_process(
                self._command,
                stdin=msgspec.json.encode(asked),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
            try:
                return _read(done.stdout)
            except (ValueError, msgspec.MsgspecError):
                line = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
                why = line[:200] or f"exit status {done.returncode}"
        event(log, logging.WARNING, "cannot probe the chat template", model=model, why=why)
        return ACCEPTS_ALL


def _read(output: bytes) -> TemplateRules:
    """The rules in what the probe printed. Raises ValueError where there are none."""
    line = next((line for line in output.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise ValueError("no rules")
    return msgspec.json.decode(line.removeprefix(MARK), type=TemplateRules)
