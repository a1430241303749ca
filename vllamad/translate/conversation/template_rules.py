"""Rules of a chat template, as `models/checkpoint/template_probe.py` finds them.

Each rule is a guard that published templates have. The defaults accept everything.
"""

from __future__ import annotations

from typing import Literal

import msgspec

System = Literal["anywhere", "first", "none"]
User = Literal["anywhere", "required", "first"]
CallIds = Literal["any", "alnum9", "kimi"]


class TemplateRules(msgspec.Struct, frozen=True, kw_only=True):
    """What one template, or one renderer of the engine's own, accepts.

    Refusing and leaving out are the same to it: a template that drops a system message without a
    word accepts none.
    """

    system: System = "anywhere"  # first: one, before everything else
    developer: bool = True  # knows this role
    user: User = "anywhere"  # required: at least one user turn; first: before any other turn
    alternates: bool = False  # user and assistant must take turns
    blank: bool = True  # takes a turn without words
    parts: bool = True  # writes all words of a content that comes in several parts
    ends_with_user: bool = False  # the last turn must not be the assistant's
    tools: bool = True  # writes tool calls and their results
    call_text: bool = True  # writes an assistant's words beside its calls
    one_call: bool = False  # at most one call a turn
    paired: bool = False  # every call must have its result, every result its call
    call_ids: CallIds = "any"  # alnum9: nine letters and digits; kimi: functions.NAME:NUMBER


ACCEPTS_ALL = TemplateRules()
# What mistral-common validates, with which vLLM renders checkpoints in Mistral's own layout.
MISTRAL_COMMON = TemplateRules(
    system="first", developer=False, user="first", alternates=True, blank=False, parts=False,
    ends_with_user=True, call_text=False, paired=True, call_ids="alnum9",
)  # fmt: skip
# What vLLM's own encoder of DeepSeek V3.2 takes while it thinks: it drops developers' messages
# before the last user turn, and refuses an assistant's last turn.
DEEPSEEK_V32 = TemplateRules(developer=False, ends_with_user=True, paired=True)
STRICTEST = TemplateRules(
    system="none", developer=False, user="first", alternates=True, blank=False,
    parts=False, ends_with_user=True, tools=False, call_text=False, one_call=True, paired=True,
    call_ids="alnum9",
)  # fmt: skip
