"""The loop of a chat: read a message, send it, write the reply; until Ctrl-D or /bye."""

from __future__ import annotations

from contextlib import closing

from vllamactl.chat.answer import Answer
from vllamactl.chat.chat_commands import ChatCommands
from vllamactl.chat.conversation import ChatSession, ReplyMessage, ResponsePiece, summary
from vllamactl.chat.image_paths import take_images
from vllamactl.chat.spinner import waiting, with_spinner
from vllamactl.chat.terminal import Terminal, read_message
from vllamactl.command_context import CommandContext
from vllamactl.human import as_text, clean_lines
from vllamactl.ollama_client import OllamaClient
from vllamad.errors import VllamadError

_LEAVE = "\nUse Ctrl + d or /bye to exit."


def chat(context: CommandContext, api: OllamaClient, session: ChatSession) -> None:
    """Run a chat at the terminal until the user exits."""
    _Chat(context, api, session).run()


class _Chat:
    def __init__(self, context: CommandContext, api: OllamaClient, session: ChatSession) -> None:
        self._context = context
        self._api = api
        self._session = session
        self._terminal = Terminal(context.environ)
        self._commands = ChatCommands(session, api, self)

    def run(self) -> None:
        self.load(self._session)
        self._print_history()
        while True:
            try:
                typed = read_message(self._terminal)
                if not self._handle(as_text(typed.text), quoted=typed.quoted):
                    return
            except EOFError:
                self.say("")
                return
            except KeyboardInterrupt:
                if not self._terminal.discarded:
                    self.say(_LEAVE)
            except VllamadError as error:
                self._context.screen.error(error)

    def say(self, text: str) -> None:
        print(text, file=self._context.screen.out, flush=True)

    def keep_history(self, enabled: bool) -> None:
        self._terminal.keep_history(enabled)

    def load(self, session: ChatSession) -> None:
        """Load the model into memory."""
        with waiting(self._context, session.model):
            self._api.post("/api/generate", {**session.load(), "stream": False}, ResponsePiece)

    def _print_history(self) -> None:
        """Print the messages that are part of the model."""
        for message in self._session.shown.messages:
            if message.role == "user":
                self.say(clean_lines(f">>> {message.content}"))
            elif message.role == "assistant":
                answer = self._answer()
                answer.add(ResponsePiece(message=message))
                answer.end()

    def _handle(self, text: str, *, quoted: bool) -> bool:
        """Run a command or send a message; return False to exit."""
        if not text.strip():
            return True
        images: list[str] = []
        if self._session.can("vision"):
            text, images = take_images(text)
        if text.startswith("/") and not quoted and not images:
            return self._commands.run(text.strip())
        self._send(ReplyMessage(role="user", content=text, images=images))
        return True

    def _send(self, message: ReplyMessage) -> None:
        """Send a message and write the reply; a reply cut by Ctrl-C stays in the conversation."""
        turns, answer = self._session.turns, self._answer()
        turns.append(message)
        try:
            pieces = self._api.follow("/api/chat", self._session.chat(), ResponsePiece)
            with closing(with_spinner(self._context, self._session.model, pieces)) as replies:
                for piece in replies:
                    answer.add(piece)
        except KeyboardInterrupt:
            pass
        except VllamadError:
            turns.remove(message)
            answer.end()
            raise
        answer.end()
        if answer.message.content:
            turns.append(answer.message)
        else:  # some templates refuse two user messages in a row
            turns.remove(message)
        if self._session.verbose:
            for line in summary(answer.last):
                print(line, file=self._context.screen.err)
            print(file=self._context.screen.err)

    def _answer(self) -> Answer:
        session = self._session
        return Answer(self._context.screen, wrap=session.wrap, hide_thinking=session.hide_thinking)
