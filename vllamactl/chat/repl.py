"""The conversation itself: read, ask, write the answer, again; until Ctrl-D or /bye."""

from __future__ import annotations

from contextlib import closing

from vllamactl.chat.answer import Answer
from vllamactl.chat.chat_commands import ChatCommands
from vllamactl.chat.images import take_images
from vllamactl.chat.session import ResponsePiece, Said, Session, summary
from vllamactl.chat.spinner import awaited, waiting
from vllamactl.chat.terminal import Terminal, read_message
from vllamactl.command_context import CommandContext
from vllamactl.human import as_text, clean_lines
from vllamactl.ollama_client import OllamaClient
from vllamad.errors import VllamadError

_LEAVE = "\nUse Ctrl + d or /bye to exit."


def talk(call: CommandContext, api: OllamaClient, session: Session) -> None:
    """Talk at the terminal until the person has had enough."""
    _Talk(call, api, session).run()


class _Talk:
    def __init__(self, call: CommandContext, api: OllamaClient, session: Session) -> None:
        self._call = call
        self._api = api
        self._session = session
        self._terminal = Terminal(call.environ)
        self._slash = ChatCommands(session, api, self)

    def run(self) -> None:
        self.load(self._session)
        self._before()
        while True:
            try:
                typed = read_message(self._terminal)
                if not self._understood(as_text(typed.text), quoted=typed.quoted):
                    return
            except EOFError:
                self.say("")
                return
            except KeyboardInterrupt:
                if not self._terminal.left:
                    self.say(_LEAVE)
            except VllamadError as error:
                self._call.screen.error(error)

    def say(self, text: str) -> None:
        print(text, file=self._call.screen.out, flush=True)

    def keep_history(self, wanted: bool) -> None:
        self._terminal.keep_history(wanted)

    def load(self, session: Session) -> None:
        """Have the model in memory."""
        with waiting(self._call, session.model):
            self._api.post("/api/generate", {**session.load(), "stream": False}, ResponsePiece)

    def _before(self) -> None:
        """What the model was made with comes before what is said now."""
        for one in self._session.shown.messages:
            if one.role == "user":
                self.say(clean_lines(f">>> {one.content}"))
            elif one.role == "assistant":
                answer = self._answer()
                answer.add(ResponsePiece(message=one))
                answer.end()

    def _understood(self, text: str, *, quoted: bool) -> bool:
        """Do what was typed; False to leave."""
        if not text.strip():
            return True
        images: list[str] = []
        if self._session.can("vision"):
            text, images = take_images(text)
        if text.startswith("/") and not quoted and not images:
            return self._slash.run(text.strip())
        self._ask(Said(role="user", content=text, images=images))
        return True

    def _ask(self, question: Said) -> None:
        """Ask, and write the answer; what Ctrl-C leaves of it stays in the conversation."""
        turns, answer = self._session.turns, self._answer()
        turns.append(question)
        try:
            pieces = self._api.follow("/api/chat", self._session.chat(), ResponsePiece)
            with closing(awaited(self._call, self._session.model, pieces)) as coming:
                for piece in coming:
                    answer.add(piece)
        except KeyboardInterrupt:
            pass
        except VllamadError:
            turns.remove(question)
            answer.end()
            raise
        answer.end()
        if answer.said.content:
            turns.append(answer.said)
        else:  # two questions in a row are more than some templates take
            turns.remove(question)
        if self._session.verbose:
            for line in summary(answer.last):
                print(line, file=self._call.screen.err)
            print(file=self._call.screen.err)

    def _answer(self) -> Answer:
        session = self._session
        return Answer(self._call.screen, wrap=session.wrap, hide_thinking=session.hide_thinking)
