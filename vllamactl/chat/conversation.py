"""The state of one conversation, and the requests made from it.

Pure: no terminal, no sockets, no files.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from vllamad.errors import BadInput
from vllamad.translate.ollama.encode import LastLine
from vllamad.translate.ollama.modelfile import typed_parameter
from vllamad.translate.ollama.options import option_type

Think = bool | str | None


class ReplyMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message; images are base64."""

    role: str = ""
    content: str = ""
    thinking: str = ""
    images: list[str] = []

    def as_request(self) -> dict[str, object]:
        """Return the message of a request; the content is always present, even if empty."""
        message: dict[str, object] = {"role": self.role, "content": self.content}
        return message | ({"images": self.images} if self.images else {})


class Details(msgspec.Struct, frozen=True, kw_only=True):
    family: str = ""
    parameter_size: str = ""
    quantization_level: str = ""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The reply of `/api/show`."""

    license: str = ""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    details: Details = Details()
    messages: list[ReplyMessage] = []
    model_info: dict[str, object] = {}
    capabilities: list[str] = []


class ResponsePiece(LastLine, frozen=True, kw_only=True):
    """One line of a reply of chat or generate; the last line has the timings."""

    message: ReplyMessage = msgspec.field(default_factory=ReplyMessage)
    response: str = ""
    thinking: str = ""
    done: bool = False
    done_reason: str = ""

    @property
    def text(self) -> str:
        return self.message.content or self.response

    @property
    def thought(self) -> str:
        return self.message.thinking or self.thinking


@dataclass(kw_only=True)
class ChatSession:
    """One conversation with a model; `shown` has the details of that model."""

    model: str
    shown: Shown = field(default_factory=Shown)
    system: str = ""
    options: dict[str, object] = field(default_factory=dict[str, object])
    turns: list[ReplyMessage] = field(default_factory=list[ReplyMessage])
    format: object = None  # "json", or a schema
    think: Think = None
    keep_alive: str = ""
    verbose: bool = False
    wrap: bool = True
    hide_thinking: bool = False

    def can(self, capability: str) -> bool:
        return capability in self.shown.capabilities

    def begin(self, model: str, shown: Shown) -> None:
        """Start a new conversation with another model."""
        self.model, self.shown, self.turns = model, shown, []

    def chat(self) -> dict[str, object]:
        """Return the request for the next reply of the conversation."""
        system = [ReplyMessage(role="system", content=self.system)] if self.system else []
        return self._settings() | {
            "messages": [turn.as_request() for turn in (*system, *self.turns)]
        }

    def generate(self, prompt: str, images: list[str]) -> dict[str, object]:
        """Return the request for a single reply."""
        body = self._settings() | {"prompt": prompt}
        if images:
            body["images"] = images
        if self.system:
            body["system"] = self.system
        return body

    def load(self) -> dict[str, object]:
        """Return the request that only loads the model."""
        body: dict[str, object] = {"model": self.model, "prompt": ""}
        return body | ({"keep_alive": self.keep_alive} if self.keep_alive else {})

    def create(self, name: str) -> dict[str, object]:
        """Return the request that saves this conversation as a model."""
        turns = [turn.as_request() for turn in (*self.shown.messages, *self.turns)]
        body: dict[str, object] = {"model": name, "from": self.model}
        fields = {"system": self.system, "parameters": self.options, "messages": turns}
        return body | {key: value for key, value in fields.items() if value}

    def set_option(self, name: str, words: list[str]) -> object:
        """Set an option from its words; return its value. Raises BadInput."""
        if option_type(name) == "array":
            value: object = words
        elif len(words) > 1:
            raise BadInput(f"cannot set {name} to {len(words)} values, it takes one")
        else:
            value = typed_parameter(name, words[0])
        self.options[name] = value
        return value

    def _settings(self) -> dict[str, object]:
        body: dict[str, object] = {"model": self.model, "options": self.options}
        if self.format:
            body["format"] = self.format
        if self.keep_alive:
            body["keep_alive"] = self.keep_alive
        think = self.think
        if think is None and self.can("thinking"):
            think = True
        return body if think is None else body | {"think": think}


def summary(last: ResponsePiece) -> list[str]:
    """Format the timings of a reply, as the `ollama` command does."""
    lines: list[str] = []
    if last.total_duration:
        lines.append(f"total duration:       {go_duration(last.total_duration)}")
    if last.load_duration:
        lines.append(f"load duration:        {go_duration(last.load_duration)}")
    for name, count, spent in (
        ("prompt eval", last.prompt_eval_count, last.prompt_eval_duration),
        ("eval", last.eval_count, last.eval_duration),
    ):
        if count:
            lines.append(f"{name + ' count:':<21} {count} token(s)")
        if spent:
            lines.append(f"{name + ' duration:':<21} {go_duration(spent)}")
            lines.append(f"{name + ' rate:':<21} {count / spent * 1e9:.2f} tokens/s")
    return lines


def go_duration(nanoseconds: int) -> str:
    """Format a duration as Go does: "1m2.5s", "1.5ms", "0s"."""
    for unit, scale in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanoseconds < scale * 1000 and nanoseconds:
            return _decimal(nanoseconds, scale) + unit
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{head}{_decimal(rest, 1_000_000_000)}s"


def _decimal(count: int, scale: int) -> str:
    whole, part = divmod(count, scale)
    digits = f"{part:0{len(str(scale)) - 1}}".rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)
