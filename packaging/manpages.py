"""The man pages vllamad(8), vllamactl(1) and vllamad.toml(5), out of what the programs and
docs/configuration.md say: `python packaging/manpages.py FOLDER`.

man-pages(7), groff_man(7). What a page says twice over in the docs is taken from there.
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
vllamad supervises vLLM: it loads the models that are asked for, each in a worker of its own,
unloads them when memory is needed, and answers the whole API of Ollama on 127.0.0.1:11434, and
those of OpenAI and Anthropic beside it.
It is started by systemd as vllamad.service, and works in a terminal as well.
Orders are given with vllamactl(1), settings in vllamad.toml(5)."""

_FILES = {
    "/etc/vllamad/config.toml": "Settings; see vllamad.toml(5).",
    "/etc/vllamad/conf.d/*.toml": "More of them, read after it in the order of their names.",
    "/var/lib/vllamad": "Models and runtimes.",
    "/var/cache/vllamad": "What engines compile; may be deleted at any time.",
    "/var/log/vllamad": "The output of the workers, a file for each model.",
    "/run/vllamad-control.sock": "The control socket, for root and the group vllamad-ctl.",
    "/etc/credstore/hf_token": "A token for the hub, if there is one.",
    "/etc/credstore/api_keys": "The API keys clients must send, if there are any.",
}
_SIGNALS = {
    "SIGTERM, SIGINT": "Drain: nobody is refused, what is being answered may be finished, workers "
    "are unloaded. A second one stops at once.",
    "SIGHUP": "Read the settings again, as vllamactl reload does.",
}
_STATUS = {
    "0": "Stopped as asked; with --check-config, no fault.",
    "1": "The machine says no: a port that is taken, say. With --check-config, faults.",
    "2": "The command line makes no sense.",
    "78": "Faults in the configuration. systemd does not try again.",
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
    """Each page by its file's name."""
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
    yield section("NAME", "vllamactl - look at vllamad and give it orders")
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
        "vllamad --check-config names every fault, vllamactl config --show what is in force."
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
    """Every command, those below a group by both their words."""
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        about = {choice.dest: choice.help or "" for choice in action._choices_actions}
        seen: set[int] = set()
        for name, below in action.choices.items():
            if id(below) in seen:
                continue  # another name of it
            seen.add(id(below))
            words = f"{before}{name}"
            if any(isinstance(one, argparse._SubParsersAction) for one in below._actions):
                yield from commands(below, f"{words} ")
                continue
            yield f".SS {escape(usage(below, words))}\n"
            yield text(sentence(about.get(name) or below.description or ""))
            yield "".join(options(below, common=False))


def usage(parser: argparse.ArgumentParser, words: str) -> str:
    """A command with its own options and arguments, on one line."""
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
    """What stands behind an option."""
    name = str(action.metavar or action.dest.upper())
    return "" if action.nargs == 0 else f"[={name}]" if action.nargs == "?" else f" {name}"


def title(name: str, number: int) -> str:
    return f'.TH {name} {number} "" "vllamad {__version__}"\n.nh\n.ad l\n'


def section(name: str, body: str) -> str:
    return f".SH {escape(name)}\n{body.rstrip()}\n"


def synopsis(parser: argparse.ArgumentParser) -> str:
    return f".B {parser.prog}\n" + escape(usage(parser, "").strip())


def see_also(own: str) -> str:
    others = ", ".join(page for page in _SEE if page != own)
    return section("SEE ALSO", text(f"{others}\n\n{_MORE}"))


def table(rows: Mapping[str, str]) -> str:
    return "".join(entry(term, meaning) for term, meaning in rows.items())


def entry(term: str, meaning: str) -> str:
    return f".TP\n\\fB{escape(term)}\\fR\n{escape(meaning)}\n"


def text(markdown: str) -> str:
    """Paragraphs; an indented one stays as it is."""
    found: list[str] = []
    for paragraph in filter(str.strip, markdown.strip("\n").split("\n\n")):
        if paragraph.startswith(("    ", "|", "#")):
            continue
        found.append(f".PP\n{escape(plain(' '.join(paragraph.split())))}\n")
    return "".join(found)


def plain(markdown: str) -> str:
    return _LINK.sub(r"\1", markdown).replace("`", "").replace("**", "")


def sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".") if words else ""


def escape(words: str) -> str:
    """What groff would take for its own."""
    words = words.replace("\\", "\\e").replace("-", "\\-").replace("’", "'").replace("…", "...")
    lines = [f"\\&{line}" if line.startswith((".", "'")) else line for line in words.split("\n")]
    return "\n".join(lines).replace("\\efI", "\\fI").replace("\\efR", "\\fR")


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, page in pages().items():
        (out / name).write_text(page)
