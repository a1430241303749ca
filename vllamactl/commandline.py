"""The parser of `vllamactl`: every command and its options; each runs a function in `commands/`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from vllamactl.command_context import CommandContext
from vllamactl.commands import (
    config,
    daemon_commands,
    maintenance_commands,
    model_commands,
    runtime_commands,
)
from vllamactl.commands.create import create
from vllamactl.commands.info import info
from vllamactl.commands.logs import logs as show_logs
from vllamactl.commands.run_command import RunOptions, normalize_think, run
from vllamactl.commands.search import search
from vllamactl.human import as_text

_EPILOG = """\
exit codes:
  0  done
  1  refused: the message gives the reason
  2  usage: the command line is invalid
  3  the daemon is not reachable
  4  not allowed
  130  interrupted by Ctrl-C

The control socket is --socket, else $VLLAMAD_CONTROL, else $VLLAMAD_HOME/run/control.sock,
else $XDG_RUNTIME_DIR/vllamad/control.sock, else /run/vllamad-control.sock.
"""

Run = Callable[[CommandContext, argparse.Namespace], None]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; `run` in the result is the command. Exits on --help."""
    parser = _parser()
    namespace = argparse.Namespace(json=False, quiet=False, socket=None)
    words = [as_text(word) for word in (sys.argv[1:] if argv is None else argv)]
    args, rest = parser.parse_known_args(normalize_think(words), namespace)
    # argparse ends a prompt at the next option.
    if rest and ("prompt" not in args or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.prompt = [*args.prompt, *rest]
    return args


def _parser() -> argparse.ArgumentParser:
    # Accepted before and after the command; a default would override the one given before it.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("-q", "--quiet", action="store_true", help="print names only, or nothing")
    common.add_argument("--socket", metavar="PATH", help="the daemon's control socket")
    parser = argparse.ArgumentParser(
        prog="vllamactl",
        description="Inspect and control vllamad.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[common],
    )
    commands = _Commands(parser, common)
    _add_daemon(commands)
    _add_chat(commands)
    _add_models(commands)
    _add_search(commands)
    _add_upkeep(commands)
    _add_runtime(commands.group("runtime", "install, list and choose engines"))
    _add_config(commands)
    return parser


class _Commands:
    """The subcommands of one parser, each with the common options."""

    def __init__(self, parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
        self._below = parser.add_subparsers(metavar="COMMAND", required=True)
        self._common = common

    def add(self, name: str, about: str, run: Run, *aliases: str) -> argparse.ArgumentParser:
        parser = self._below.add_parser(
            name, help=about, description=about, aliases=aliases, parents=[self._common]
        )
        parser.set_defaults(run=run)
        return parser

    def group(self, name: str, about: str) -> _Commands:
        parser = self._below.add_parser(name, help=about, description=about, parents=[self._common])
        return _Commands(parser, self._common)


def _add_daemon(commands: _Commands) -> None:
    commands.add(
        "status", "show the state of the daemon", lambda context, _: daemon_commands.status(context)
    )
    loaded = commands.add(
        "ps",
        "list loaded, loading and failed models",
        lambda context, args: daemon_commands.ps(context, args.prefix),
    )
    _with_prefix(loaded)
    commands.add(
        "info", "show this machine: CPU, memory, GPUs, runtimes", lambda context, _: info(context)
    )
    commands.add(
        "version",
        "show the versions of client and daemon",
        lambda context, _: daemon_commands.version(context),
    )
    reload = commands.add(
        "reload",
        "reload the configuration",
        lambda context, args: daemon_commands.reload(context, wait=args.wait),
    )
    reload.add_argument(
        "--wait", action="store_true", help="until the new configuration is in force"
    )
    logs = commands.add(
        "logs",
        "print the log of a model's worker, or of the daemon",
        lambda context, args: show_logs(
            context, args.model, lines=args.lines, follow=args.follow, journal=args.journal
        ),
    )
    logs.add_argument("-f", "--follow", action="store_true", help="keep printing new lines")
    logs.add_argument(
        "-n",
        "--lines",
        type=_count,
        default=100,
        metavar="LINES",
        help="number of lines (default: 100)",
    )
    logs.add_argument(
        "--journal", action="store_true", help="from systemd's journal, with the daemon's lines"
    )
    logs.add_argument(
        "model", metavar="MODEL", nargs="?", default="", help="default: the daemon's own log"
    )


def _add_chat(commands: _Commands) -> None:
    chat = commands.add(
        "run",
        "chat with a model, or print one reply",
        lambda context, args: run(
            context,
            args.model,
            args.prompt,
            RunOptions(
                format=args.format,
                think=args.think,
                hide_thinking=args.hidethinking,
                keep_alive=args.keepalive,
                verbose=args.verbose,
                wrap=not args.nowordwrap,
            ),
        ),
    )
    chat.add_argument(
        "--format", default="", metavar="json|SCHEMA", help="json, or the file of a JSON schema"
    )
    chat.add_argument("--think", metavar="LEVEL", help="thinking: true, false, low, medium or high")
    chat.add_argument("--hidethinking", action="store_true", help="do not show the thinking")
    chat.add_argument(
        "--keepalive", default="", metavar="TIME", help="keep the model loaded so long, as 5m"
    )
    chat.add_argument("--verbose", action="store_true", help="show timings")
    chat.add_argument("--nowordwrap", action="store_true", help="do not wrap lines between words")
    chat.add_argument("model", metavar="MODEL")
    chat.add_argument(
        "prompt", metavar="PROMPT", nargs="*", default=[], help="default: an interactive chat"
    )
    create_parser = commands.add(
        "create",
        "create a model from a Modelfile",
        lambda context, args: create(context, args.model, args.file),
    )
    create_parser.add_argument(
        "-f", "--file", default="Modelfile", metavar="FILE", help="the Modelfile; - reads stdin"
    )
    create_parser.add_argument("model", metavar="NAME")


def _add_models(commands: _Commands) -> None:
    installed = commands.add(
        "list",
        "list the installed models",
        lambda context, args: model_commands.list_models(context, args.prefix),
        "ls",
    )
    _with_prefix(installed)
    _add_show(commands)
    pull = _with_model(
        commands,
        "pull",
        "download a model",
        lambda context, args: model_commands.pull(context, args.model, detach=args.detach),
    )
    pull.add_argument("--detach", action="store_true", help="return once the download has begun")
    rm = commands.add(
        "rm", "remove models", lambda context, args: model_commands.remove(context, args.models)
    )
    rm.add_argument("models", metavar="MODEL", nargs="+")
    copy = commands.add(
        "cp",
        "copy a model to a second name",
        lambda context, args: model_commands.copy(context, args.model, args.destination),
    )
    copy.add_argument("model", metavar="MODEL")
    copy.add_argument("destination", metavar="NAME")
    verbs = commands.group("model", "load, unload or restart a model")
    for verb, about in (
        ("load", "load a model and wait until it is ready"),
        ("unload", "unload a model once it is idle"),
        ("restart", "restart a model's worker"),
    ):
        _with_model(
            verbs,
            verb,
            about,
            lambda context, args, verb=verb: model_commands.order(context, verb, args.model),
        )
    _with_model(
        commands,
        "stop",
        "unload a model once it is idle",
        lambda context, args: model_commands.order(context, "unload", args.model),
    )


def _add_show(commands: _Commands) -> None:
    show = _with_model(
        commands,
        "show",
        "show the details of a model",
        lambda context, args: model_commands.show(
            context, args.model, args.text, verbose=args.verbose
        ),
    )
    show.add_argument(
        "-v", "--verbose", action="store_true", help="also every tensor of its weights"
    )
    which = show.add_mutually_exclusive_group()
    for text in model_commands.TEXTS:
        which.add_argument(
            f"--{text}", dest="text", action="store_const", const=text, default="",
            help=f"print only its {'Modelfile' if text == 'modelfile' else text}",
        )  # fmt: skip


def _add_upkeep(commands: _Commands) -> None:
    verify = commands.add(
        "verify",
        "check every file against its digest",
        lambda context, args: maintenance_commands.verify(context, args.model),
    )
    verify.add_argument("model", metavar="MODEL", nargs="?", default="", help="default: all models")
    prune = commands.add(
        "prune",
        "remove files that no model needs",
        lambda context, args: maintenance_commands.prune(context, dry_run=args.dry_run),
    )
    prune.add_argument(
        "--dry-run", action="store_true", help="list the files without removing them"
    )


def _add_search(commands: _Commands) -> None:
    parser = commands.add(
        "search",
        "search the models that have a short name, by name and purpose",
        lambda context, args: search(context, args.words),
    )
    parser.add_argument("words", metavar="TEXT", nargs="*", help="default: all models")


def _with_model(commands: _Commands, name: str, about: str, run: Run) -> argparse.ArgumentParser:
    parser = commands.add(name, about, run)
    parser.add_argument("model", metavar="MODEL")
    return parser


def _with_prefix(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "prefix", metavar="PREFIX", nargs="?", default="", help="only names with this prefix"
    )


def _add_runtime(commands: _Commands) -> None:
    install = commands.add(
        "install",
        "install an engine into its own environment",
        lambda context, args: runtime_commands.install(
            context, device=args.device, version=args.version, repair=args.repair
        ),
    )
    device = install.add_mutually_exclusive_group()
    for name in ("cpu", "cuda"):
        device.add_argument(
            f"--{name}", dest="device", action="store_const", const=name, help=f"for {name.upper()}"
        )
    install.add_argument(
        "--version", metavar="V", help="version of the engine (default: the newest that fits)"
    )
    install.add_argument(
        "--repair",
        action="store_true",
        help="check an installed runtime, replace damaged packages, test the engine",
    )
    commands.add(
        "list",
        "list the installed runtimes",
        lambda context, _: runtime_commands.show(context),
        "ls",
    )
    use = commands.add(
        "use",
        "choose the runtime of new workers",
        lambda context, args: runtime_commands.use(context, args.name),
    )
    use.add_argument("name", metavar="NAME")


def _add_config(commands: _Commands) -> None:
    parser = commands.add(
        "config",
        "show the configuration as the daemon would read it",
        lambda context, args: config.check(context) if args.check else config.show(context),
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--show", action="store_true", help="print it (the default)")
    which.add_argument("--check", action="store_true", help="only check that it is valid")


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number
