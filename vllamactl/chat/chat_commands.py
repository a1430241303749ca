"""The commands of a chat: /set, /show, /load, /save, /clear and /?.

They change the session and confirm it; no error of theirs ends the program.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from vllamactl import human
from vllamactl.chat import help_text
from vllamactl.chat.conversation import ChatSession, Shown, Think
from vllamactl.chat.formats import read_format
from vllamactl.model_details import ModelDetails, details_text
from vllamactl.ollama_client import OllamaClient
from vllamactl.render import table
from vllamad.errors import ModelNotFound, VllamadError
from vllamad.protocol.control import Progress


class ChatTerminal(Protocol):
    """The part of the terminal that commands use."""

    def say(self, text: str) -> None: ...
    def keep_history(self, enabled: bool) -> None: ...
    def load(self, session: ChatSession) -> None:
        """Load the model into memory."""


class ChatCommands:
    """Runs the commands typed in one chat."""

    def __init__(self, session: ChatSession, api: OllamaClient, terminal: ChatTerminal) -> None:
        self._session = session
        self._api = api
        self._terminal = terminal
        self._say = terminal.say

    def run(self, line: str) -> bool:
        """Run a command; return False if it ends the chat. Raises VllamadError."""
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
        name, _, value = rest.partition(" ")
        value = value.strip(" ")
        done = self._set_switch(name)
        if done:
            self._say(done)
            return
        match name:
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
                option, *words = value.split()
                self._session.set_option(option, words)
                self._say(f"Set parameter '{option}' to '{', '.join(words)}'")
            case "parameter":
                self._say(help_text.PARAMETERS)
            case "system" | "format":
                self._say(help_text.SET)
            case _:
                self._say(f"Unknown command '/set {name}'. Type /? for help")

    def _set_switch(self, name: str) -> str:
        """Apply a setting without a value; return the confirmation, or ""."""
        session = self._session
        match name:
            case "history" | "nohistory":
                self._terminal.keep_history(name == "history")
            case "wordwrap" | "nowordwrap":
                session.wrap = name == "wordwrap"
            case "verbose" | "quiet":
                session.verbose = name == "verbose"
            case "nothink":
                self._think(False)
            case "noformat":
                session.format = None
                return "Disabled format."
            case _:
                return ""
        return f"Set '{name}' mode."

    def _think(self, think: Think) -> None:
        self._session.think = think
        if think and not self._session.can("thinking"):
            self._say(f"warning: model '{self._session.model}' does not support thinking")

    def _show(self, topic: str) -> None:
        session = self._session
        if not topic:
            self._say(help_text.SHOW)
            return
        shown = show(self._api, session.model, system=session.system, options=session.options)
        match topic:
            case "info":
                text = details_text(details_of(shown))
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
                text = f"Unknown command '/show {topic}'. Type /? for help"
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
            self._terminal.load(self._session)
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
        rows = [(model.name, model.digest[:12], human.size(model.size)) for model in models]
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
    """Return the server's details of a model. Raises ModelNotFound."""
    body: dict[str, object] = {"model": model}
    if system:
        body["system"] = system
    if options:
        body["options"] = options
    return api.post("/api/show", body, Shown)


def details_of(shown: Shown) -> ModelDetails:
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


def _parameters(shown: Shown, session: ChatSession) -> str:
    defined = shown.parameters or "No additional parameters were specified for this model."
    lines = ["Model defined parameters:", *(f"  {line}" for line in defined.splitlines()), ""]
    if session.options:
        lines.append("User defined parameters:")
        lines += [f"  {name:<30} {_json(value)}" for name, value in session.options.items()]
        lines.append("")
    return "\n".join(lines)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


_HELP: Final[dict[str, str]] = {
    "set": help_text.SET,
    "show": help_text.SHOW,
    "shortcut": help_text.SHORTCUTS,
    "shortcuts": help_text.SHORTCUTS,
}
