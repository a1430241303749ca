"""The rules of a chat template, as `models/checkpoint/template_probe.py` finds them.

Each rule is a check in published templates. The defaults accept everything.
"""

from __future__ import annotations

from typing import Literal

import msgspec

System = Literal["anywhere", "first", "none"]
User = Literal["anywhere", "required", "first"]
CallIds = Literal["any", "alnum9", "kimi"]


class TemplateRules(msgspec.Struct, frozen=True, kw_only=True):
    """The conversations that one template, or a renderer of the engine, accepts.

    A template that silently drops a system message counts as one that refuses it.
    """

    system: System = "anywhere"  # first: one, before all others
    developer: bool = True  # accepts this role
    user: User = "anywhere"  # required: at least one user turn; first: before any other turn
    alternates: bool = False  # user and assistant must take turns
    blank: bool = True  # accepts a turn without content
    parts: bool = True  # renders all text of a content with several parts
    ends_with_user: bool = False  # the last turn must not be the assistant's
    tools: bool = True  # renders tool calls and their results
    call_text: bool = True  # renders an assistant's text beside its calls
    one_call: bool = False  # at most one call a turn
    paired: bool = False  # every call must have its result, every result its call
    call_ids: CallIds = "any"  # alnum9: nine letters and digits; kimi: functions.NAME:NUMBER


ACCEPTS_ALL = TemplateRules()
# The validation of mistral-common, with which vLLM renders checkpoints in Mistral's layout.
MISTRAL_COMMON = TemplateRules(
    system="first", developer=False, user="first", alternates=True, blank=False, parts=False,
    ends_with_user=True, call_text=False, paired=True, call_ids="alnum9",
)  # fmt: skip
# vLLM's encoder of DeepSeek V3.2 with thinking: it drops developer messages before the last user
# turn, and refuses an assistant's last turn.
DEEPSEEK_V32 = TemplateRules(developer=False, ends_with_user=True, paired=True)
STRICTEST = TemplateRules(
    system="none", developer=False, user="first", alternates=True, blank=False,
    parts=False, ends_with_user=True, tools=False, call_text=False, one_call=True, paired=True,
    call_ids="alnum9",
)  # fmt: skip
