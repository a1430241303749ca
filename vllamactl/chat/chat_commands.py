"""The commands of a chat: what /set, /show, /load, /save, /clear and /? do.

They change the session and say so; they never end the program, whatever goes wrong.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from vllamactl import human
from vllamactl.chat import help_text
from vllamactl.chat.formats import read_format
from vllamactl.chat.session import Session, Shown, Think
from vllamactl.model_details import ModelDetails, about_text
from vllamactl.ollama_client import OllamaClient
from vllamactl.render import table
from vllamad.errors import ModelNotFound, VllamadError
from vllamad.protocol.control import Progress


class Place(Protocol):
    """The terminal, as far as commands change it."""

    def say(self, text: str) -> None: ...
    def keep_history(self, wanted: bool) -> None: ...
    def load(self, session: Session) -> None:
        """Have the model in memory."""


class ChatCommands:
    """Carries out the commands typed in one chat."""

    def __init__(self, session: Session, api: OllamaClient, place: Place) -> None:
        self._session = session
        self._api = api
        self._place = place
        self._say = place.say

    def run(self, line: str) -> bool:
        """Carry out a command; False for the one that ends the chat. Raises VllamadError."""
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        match command:
            case "/bye" | "/exit":
                return False
            case "/?" | "/help":
                self._help(rest)
            case "/set":
                self._set(rest)
            case "/show":
                self._show(rest)
            case "/load":
                self._load(rest)
            case "/save":
                self._save(rest)
            case "/list" | "/ls":
                self._list()
            case "/clear":
                self._session.turns.clear()
                self._say("Cleared session context")
            case _:
                self._say(f"Unknown command '{command}'. Type /? for help")
        return True

    def _help(self, topic: str) -> None:
        more = help_text.IMAGES if self._session.can("vision") else ""
        self._say(_HELP.get(topic.lstrip("/"), help_text.HELP + more))

    def _set(self, rest: str) -> None:
        what, _, value = rest.partition(" ")
        value = value.strip(" ")
        done = self._set_switch(what)
        if done:
            self._say(done)
            return
        match what:
            case "":
                self._say(help_text.SET)
            case "system" if value:
                self._session.system = value
                self._say("Set system message.")
            case "format" if value:
                self._session.format = read_format(value)
                self._say(f"Set format to '{value}' mode.")
            case "think":
                self._think(value or True)
                self._say(f"Set 'think' mode{f' to {value!r}' if value else ''}.")
            case "parameter" if len(value.split()) > 1:
                name, *words = value.split()
                self._session.set_option(name, words)
                self._say(f"Set parameter '{name}' to '{', '.join(words)}'")
            case "parameter":
                self._say(help_text.PARAMETERS)
            case "system" | "format":
                self._say(help_text.SET)
            case _:
                self._say(f"Unknown command '/set {what}'. Type /? for help")

    def _set_switch(self, what: str) -> str:
        """Set one that takes no value; what to say of it, or nothing where there is none."""
        session = self._session
        match what:
            case "history" | "nohistory":
                self._place.keep_history(what == "history")
            case "wordwrap" | "nowordwrap":
                session.wrap = what == "wordwrap"
            case "verbose" | "quiet":
                session.verbose = what == "verbose"
            case "nothink":
                self._think(False)
            case "noformat":
                session.format = None
                return "Disabled format."
            case _:
                return ""
        return f"Set '{what}' mode."

    def _think(self, think: Think) -> None:
        self._session.think = think
        if think and not self._session.can("thinking"):
            self._say(f"warning: model '{self._session.model}' does not support thinking")

    def _show(self, what: str) -> None:
        session = self._session
        if not what:
            self._say(help_text.SHOW)
            return
        shown = show(self._api, session.model, system=session.system, options=session.options)
        match what:
            case "info":
                text = about_text(about(shown))
            case "license":
                text = shown.license or "No license was specified for this model."
            case "modelfile":
                text = shown.modelfile
            case "parameters":
                text = _parameters(shown, session)
            case "system":
                text = session.system or shown.system
                text = text or "No system message was specified for this model."
            case "template":
                text = shown.template or "No prompt template was specified for this model."
            case _:
                text = f"Unknown command '/show {what}'. Type /? for help"
        self._say(human.clean_lines(text))

    def _load(self, name: str) -> None:
        if not name or " " in name:
            self._say("Usage:\n  /load <modelname>")
            return
        self._say(f"Loading model '{name}'")
        try:
            shown = show(self._api, name)
        except ModelNotFound:
            self._say(f"Couldn't find model '{name}'")
            return
        before = self._session.model, self._session.shown, self._session.turns
        self._session.begin(name, shown)
        try:
            self._place.load(self._session)
        except VllamadError:
            self._session.model, self._session.shown, self._session.turns = before
            raise

    def _save(self, name: str) -> None:
        if not name or " " in name:
            self._say("Usage:\n  /save <modelname>")
            return
        for _ in self._api.follow("/api/create", self._session.create(name), Progress):
            pass
        self._say(f"Created new model '{name}'")

    def _list(self) -> None:
        models = self._api.get("/api/tags", _Tags).models
        rows = [(one.name, one.digest[:12], human.size(one.size)) for one in models]
        self._say(table(("NAME", "ID", "SIZE"), rows))


class _Tag(msgspec.Struct, frozen=True):
    name: str
    digest: str = ""
    size: int = 0


class _Tags(msgspec.Struct, frozen=True):
    models: list[_Tag]


def show(
    api: OllamaClient, model: str, *, system: str = "", options: dict[str, object] | None = None
) -> Shown:
    """What the server knows of a model. Raises ModelNotFound."""
    body: dict[str, object] = {"model": model}
    if system:
        body["system"] = system
    if options:
        body["options"] = options
    return api.post("/api/show", body, Shown)


def about(shown: Shown) -> ModelDetails:
    return ModelDetails(
        architecture=shown.details.family,
        parameter_size=shown.details.parameter_size,
        quantization=shown.details.quantization_level,
        model_info=shown.model_info,
        capabilities=shown.capabilities,
        parameters=shown.parameters,
        system=shown.system,
        license=shown.license,
    )


def _parameters(shown: Shown, session: Session) -> str:
    own = shown.parameters or "No additional parameters were specified for this model."
    lines = ["Model defined parameters:", *(f"  {line}" for line in own.splitlines()), ""]
    if session.options:
        lines.append("User defined parameters:")
        lines += [f"  {name:<30} {_spelled(value)}" for name, value in session.options.items()]
        lines.append("")
    return "\n".join(lines)


def _spelled(value: object) -> str:
    return msgspec.json.encode(value).decode()


_HELP: Final[dict[str, str]] = {
    "set": help_text.SET,
    "show": help_text.SHOW,
    "shortcut": help_text.SHORTCUTS,
    "shortcuts": help_text.SHORTCUTS,
}
