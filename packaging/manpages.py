"""Writes the man pages vllamad(8), vllamactl(1) and vllamad.toml(5) from the parsers and
docs/configuration.md: `python packaging/manpages.py FOLDER`.

See man-pages(7) and groff_man(7). Texts that the docs have too are taken from there.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from vllamactl.commandline import _parser as vllamactl_parser  # noqa: E402
from vllamad import __version__  # noqa: E402
from vllamad.__main__ import _parser as vllamad_parser  # noqa: E402

_SECTION = re.compile(r"^## `(\[.*?\])`\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `([\w]+)` \| (.*?) \| (.*) \|$", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")

_DAEMON = """\
vllamad supervises vLLM: it loads models on request, each in a worker of its own, unloads them when
memory is needed, and answers the APIs of Ollama, OpenAI and Anthropic on 127.0.0.1:11434.
systemd starts it as vllamad.service; it also runs in a terminal.
vllamactl(1) controls it; its settings are in vllamad.toml(5)."""

_FILES = {
    "/etc/vllamad/config.toml": "Settings; see vllamad.toml(5).",
    "/etc/vllamad/conf.d/*.toml": "More settings, read after it in the order of their names.",
    "/var/lib/vllamad": "Models and runtimes.",
    "/var/cache/vllamad": "Compile caches of engines; may be deleted at any time.",
    "/var/log/vllamad": "The output of the workers, a file for each model.",
    "/run/vllamad-control.sock": "The control socket, for root and the group vllamad-ctl.",
    "/etc/credstore/hf_token": "The token for the hub, optional.",
    "/etc/credstore/api_keys": "The API keys of clients, optional.",
}
_SIGNALS = {
    "SIGTERM, SIGINT": "Drain: running requests finish, new connections wait, workers are "
    "unloaded. A second signal stops at once.",
    "SIGHUP": "Reload the settings, as vllamactl reload does.",
}
_STATUS = {
    "0": "Stopped on request; with --check-config, no fault.",
    "1": "A problem of the machine, such as a port in use. With --check-config, faults.",
    "2": "The command line is invalid.",
    "78": "Faults in the configuration. systemd does not restart the service.",
}
_SERVICE = {
    "state": "/var/lib/vllamad",
    "cache": "/var/cache/vllamad",
    "logs": "/var/log/vllamad",
    "run": "/run/vllamad",
    "control": "/run/vllamad-control.sock",
    "models": "/var/lib/vllamad/models",
}
_SEE = ("vllamad(8)", "vllamactl(1)", "vllamad.toml(5)", "systemctl(1)", "journalctl(1)")
_MORE = "All of the documentation is in /usr/share/doc/vllamad."


def pages() -> dict[str, str]:
    """Return each page by its file name."""
    return {
        "vllamad.8": "".join(daemon()),
        "vllamactl.1": "".join(client()),
        "vllamad.toml.5": "".join(settings()),
    }


def daemon() -> Iterator[str]:
    parser = vllamad_parser()
    yield title("VLLAMAD", 8)
    yield section("NAME", "vllamad - supervisor of vLLM workers behind the API of Ollama")
    yield section("SYNOPSIS", synopsis(parser))
    yield section("DESCRIPTION", text(_DAEMON))
    yield section("OPTIONS", "".join(options(parser)))
    yield section("SIGNALS", table(_SIGNALS))
    yield section("EXIT STATUS", table(_STATUS))
    yield section("FILES", table(_FILES))
    yield see_also("vllamad(8)")


def client() -> Iterator[str]:
    parser = vllamactl_parser()
    yield title("VLLAMACTL", 1)
    yield section("NAME", "vllamactl - inspect and control vllamad")
    yield section("SYNOPSIS", ".B vllamactl\n[\\fIOPTION\\fR] \\fICOMMAND\\fR [\\fIARGUMENT\\fR]")
    yield section("DESCRIPTION", text(parser.description or ""))
    yield section("OPTIONS", "".join(options(parser)))
    yield section("COMMANDS", "".join(commands(parser)))
    codes, _, control = (parser.epilog or "").partition("\n\n")
    rows = [line.split(maxsplit=1) for line in codes.splitlines()[1:]]
    yield section("EXIT STATUS", table({code: sentence(meaning) for code, meaning in rows}))
    yield section("ENVIRONMENT", text(control))
    yield see_also("vllamactl(1)")


def settings() -> Iterator[str]:
    document = (ROOT / "docs" / "configuration.md").read_text()
    yield title("VLLAMAD.TOML", 5)
    yield section("NAME", "vllamad.toml - settings of vllamad")
    yield section("SYNOPSIS", "/etc/vllamad/config.toml\n.br\n/etc/vllamad/conf.d/*.toml")
    about = document.split("\n## ")[0].partition("\n")[2]
    yield section("DESCRIPTION", text(about) + text(
        "A setting KEY of a section is also the environment variable VLLAMAD_SECTION_KEY, and on "
        "the command line --set section.key=value; these win over the files. "
        "vllamad --check-config names every fault, vllamactl config --show prints those in force."
    ))  # fmt: skip
    for name, body in _SECTION.findall(document):
        intro = body.partition("| key |")[0]
        if name == "[paths]":
            intro = "As a service has them; others: configuration.md."
        rows = {
            f"{key} = {_SERVICE[key] if name == '[paths]' else plain(default)}": plain(meaning)
            for key, default, meaning in _ROW.findall(body)
        }
        yield section(name, text(intro) + table(rows).replace(", see below", ""))
    yield see_also("vllamad.toml(5)")


def commands(parser: argparse.ArgumentParser, before: str = "") -> Iterator[str]:
    """Yield every command, those of a group with both words."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        about = {choice.dest: choice.help or "" for choice in action._choices_actions}
        seen: set[int] = set()
        for name, below in action.choices.items():
            if id(below) in seen:
                continue  # an alias
            seen.add(id(below))
            words = f"{before}{name}"
            if any(isinstance(action, argparse._SubParsersAction) for action in below._actions):
                yield from commands(below, f"{words} ")
                continue
            yield f".SS {escape(usage(below, words))}\n"
            yield text(sentence(about.get(name) or below.description or ""))
            yield "".join(options(below, common=False))


def usage(parser: argparse.ArgumentParser, words: str) -> str:
    """Return a command with its own options and arguments, on one line."""
    parts = [words]
    for action in parser._actions:
        if action.dest in ("help", "json", "quiet", "socket") or action.help == argparse.SUPPRESS:
            continue
        if action.option_strings:
            parts.append(f"[{action.option_strings[-1]}{value(action)}]")
        else:
            many = "..." if action.nargs in ("*", "+") else ""
            shown = f"{action.metavar or action.dest.upper()}{many}"
            parts.append(f"[{shown}]" if action.nargs in ("?", "*") else shown)
    return " ".join(parts)


def options(parser: argparse.ArgumentParser, *, common: bool = True) -> Iterator[str]:
    for action in parser._actions:
        hidden = action.help in (None, argparse.SUPPRESS) or not action.option_strings
        if hidden or (not common and action.dest in ("help", "json", "quiet", "socket")):
            continue
        names = ", ".join(action.option_strings)
        yield entry(names + value(action), str(action.help) % vars(action))


def value(action: argparse.Action) -> str:
    """Return the value of an option, as the usage shows it."""
    name = str(action.metavar or action.dest.upper())
    return "" if action.nargs == 0 else f"[={name}]" if action.nargs == "?" else f" {name}"


def title(name: str, number: int) -> str:
    return f'.TH {name} {number} "" "vllamad {__version__}"\n.nh\n.ad l\n'


def section(name: str, body: str) -> str:
    return f".SH {escape(name)}\n{body.rstrip()}\n"


def synopsis(parser: argparse.ArgumentParser) -> str:
    return f".B {parser.prog}\n" + escape(usage(parser, "").strip())


def see_also(page: str) -> str:
    others = ", ".join(other for other in _SEE if other != page)
    return section("SEE ALSO", text(f"{others}\n\n{_MORE}"))


def table(rows: Mapping[str, str]) -> str:
    return "".join(entry(term, meaning) for term, meaning in rows.items())


def entry(term: str, meaning: str) -> str:
    return f".TP\n\\fB{escape(term)}\\fR\n{escape(meaning)}\n"


def text(markdown: str) -> str:
    """Return the paragraphs; indented ones, tables and headings are left out."""
    paragraphs: list[str] = []
    for paragraph in filter(str.strip, markdown.strip("\n").split("\n\n")):
        if paragraph.startswith(("    ", "|", "#")):
            continue
        paragraphs.append(f".PP\n{escape(plain(' '.join(paragraph.split())))}\n")
    return "".join(paragraphs)


def plain(markdown: str) -> str:
    return _LINK.sub(r"\1", markdown).replace("`", "").replace("**", "")


def sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".") if words else ""


def escape(words: str) -> str:
    """Escape the characters that groff interprets."""
    words = words.replace("\\", "\\e").replace("-", "\\-").replace("’", "'").replace("…", "...")
    lines = [f"\\&{line}" if line.startswith((".", "'")) else line for line in words.split("\n")]
    return "\n".join(lines).replace("\\efI", "\\fI").replace("\\efR", "\\fR")


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, page in pages().items():
        (out / name).write_text(page)
