"""Every command of `vllamactl` and its options; each leads to a function in `commands/`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from vllamactl.command_context import CommandContext
from vllamactl.commands import config, daemon_commands, maintenance, model_commands, runtime
from vllamactl.commands.create import create
from vllamactl.commands.info import info
from vllamactl.commands.logs import logs as show_logs
from vllamactl.commands.run import Wishes, run, spell_think
from vllamactl.commands.search import search
from vllamactl.human import as_text

_EPILOG = """\
exit codes:
  0  done
  1  refused: the message says why
  2  usage: the command line makes no sense
  3  the daemon is not reachable
  4  not allowed
  130  interrupted by Ctrl-C

The control socket is --socket, else $VLLAMAD_CONTROL, else $VLLAMAD_HOME/run/control.sock,
else $XDG_RUNTIME_DIR/vllamad/control.sock, else /run/vllamad-control.sock.
"""

Run = Callable[[CommandContext, argparse.Namespace], None]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; `run` in what comes back is what to do. Leaves for --help."""
    parser = _parser()
    namespace = argparse.Namespace(json=False, quiet=False, socket=None)
    words = [as_text(word) for word in (sys.argv[1:] if argv is None else argv)]
    args, rest = parser.parse_known_args(spell_think(words), namespace)
    # argparse takes the words of a prompt only up to the next option.
    if rest and ("prompt" not in args or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.prompt = [*args.prompt, *rest]
    return args


def _parser() -> argparse.ArgumentParser:
    # Known before and after the command: a default there would undo what was said before it.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="answer in JSON")
    common.add_argument("-q", "--quiet", action="store_true", help="names only, or nothing")
    common.add_argument("--socket", metavar="PATH", help="the daemon's control socket")
    parser = argparse.ArgumentParser(
        prog="vllamactl",
        description="Look at vllamad and give it orders.",
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
    _add_runtime(commands.group("runtime", "the engines that can run models"))
    _add_config(commands)
    return parser


class _Commands:
    """The commands below one parser, every one of them with the common options."""

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
    commands.add("status", "the daemon in one look", lambda call, _: daemon_commands.status(call))
    loaded = commands.add(
        "ps",
        "what is loaded, on its way, or failed",
        lambda call, args: daemon_commands.ps(call, args.beginning),
    )
    _with_beginning(loaded)
    commands.add(
        "info", "what this machine has: CPU, memory, GPUs, runtimes", lambda call, _: info(call)
    )
    commands.add(
        "version", "versions of client and daemon", lambda call, _: daemon_commands.version(call)
    )
    reload = commands.add(
        "reload",
        "have the daemon read its configuration again",
        lambda call, args: daemon_commands.reload(call, wait=args.wait),
    )
    reload.add_argument("--wait", action="store_true", help="until the new configuration counts")
    logs = commands.add(
        "logs",
        "what a model's worker wrote, or the daemon",
        lambda call, args: show_logs(
            call, args.model, lines=args.lines, follow=args.follow, journal=args.journal
        ),
    )
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it writes")
    logs.add_argument(
        "-n", "--lines", type=_count, default=100, metavar="LINES", help="how many (default: 100)"
    )
    logs.add_argument(
        "--journal", action="store_true", help="from systemd's journal, the daemon's words included"
    )
    logs.add_argument(
        "model", metavar="MODEL", nargs="?", default="", help="without one: the daemon's own log"
    )


def _add_chat(commands: _Commands) -> None:
    chat = commands.add(
        "run",
        "talk to a model, or have one answer",
        lambda call, args: run(
            call,
            args.model,
            args.prompt,
            Wishes(
                format=args.format,
                think=args.think,
                hide_thinking=args.hidethinking,
                keep_alive=args.keepalive,
                verbose=args.verbose,
                wrap=not args.nowordwrap,
            ),
        ),
    )
    chat.add_argument("--format", default="", metavar="json|SCHEMA", help="json, or a schema file")
    chat.add_argument(
        "--think", metavar="LEVEL", help="true, false, low, medium or high: think before answering"
    )
    chat.add_argument("--hidethinking", action="store_true", help="do not show the thinking")
    chat.add_argument("--keepalive", default="", metavar="TIME", help="keep it loaded, as 5m")
    chat.add_argument("--verbose", action="store_true", help="show timings")
    chat.add_argument("--nowordwrap", action="store_true", help="do not break lines at words")
    chat.add_argument("model", metavar="MODEL")
    chat.add_argument(
        "prompt", metavar="PROMPT", nargs="*", default=[], help="without one: a conversation"
    )
    make = commands.add(
        "create",
        "make a model out of a Modelfile",
        lambda call, args: create(call, args.model, args.file),
    )
    make.add_argument(
        "-f", "--file", default="Modelfile", metavar="FILE", help="the Modelfile; - is stdin"
    )
    make.add_argument("model", metavar="NAME")


def _add_models(commands: _Commands) -> None:
    installed = commands.add(
        "list",
        "installed models",
        lambda call, args: model_commands.list_models(call, args.beginning),
        "ls",
    )
    _with_beginning(installed)
    _add_show(commands)
    pull = _with_model(
        commands,
        "pull",
        "download a model",
        lambda call, args: model_commands.pull(call, args.model, detach=args.detach),
    )
    pull.add_argument("--detach", action="store_true", help="leave it to the daemon")
    gone = commands.add(
        "rm", "remove models", lambda call, args: model_commands.remove(call, args.models)
    )
    gone.add_argument("models", metavar="MODEL", nargs="+")
    copy = commands.add(
        "cp",
        "give a model a second name",
        lambda call, args: model_commands.copy(call, args.model, args.destination),
    )
    copy.add_argument("model", metavar="MODEL")
    copy.add_argument("destination", metavar="NAME")
    orders = commands.group("model", "load, unload or restart a model")
    for verb, about in (
        ("load", "load a model and wait until it is ready"),
        ("unload", "unload a model once nobody uses it"),
        ("restart", "end a model's worker and start a new one"),
    ):
        _with_model(
            orders,
            verb,
            about,
            lambda call, args, verb=verb: model_commands.order(call, verb, args.model),
        )
    _with_model(
        commands,
        "stop",
        "unload a model once nobody uses it",
        lambda call, args: model_commands.order(call, "unload", args.model),
    )


def _add_show(commands: _Commands) -> None:
    show = _with_model(
        commands,
        "show",
        "what is known of a model",
        lambda call, args: model_commands.show(call, args.model, args.text, verbose=args.verbose),
    )
    show.add_argument(
        "-v", "--verbose", action="store_true", help="every tensor of its weights too"
    )
    which = show.add_mutually_exclusive_group()
    for text in model_commands.TEXTS:
        which.add_argument(
            f"--{text}", dest="text", action="store_const", const=text, default="",
            help=f"only its {'Modelfile' if text == 'modelfile' else text}",
        )  # fmt: skip


def _add_upkeep(commands: _Commands) -> None:
    verify = commands.add(
        "verify",
        "see that every file is as it was downloaded",
        lambda call, args: maintenance.verify(call, args.model),
    )
    verify.add_argument("model", metavar="MODEL", nargs="?", default="", help="without one: all")
    prune = commands.add(
        "prune",
        "remove what no model needs",
        lambda call, args: maintenance.prune(call, dry_run=args.dry_run),
    )
    prune.add_argument("--dry-run", action="store_true", help="only say what it would remove")


def _add_search(commands: _Commands) -> None:
    parser = commands.add(
        "search",
        "models that have a short name, by what they are called or are for",
        lambda call, args: search(call, args.words),
    )
    parser.add_argument("words", metavar="TEXT", nargs="*", help="without one: all of them")


def _with_model(commands: _Commands, name: str, about: str, run: Run) -> argparse.ArgumentParser:
    parser = commands.add(name, about, run)
    parser.add_argument("model", metavar="MODEL")
    return parser


def _with_beginning(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "beginning", metavar="PREFIX", nargs="?", default="", help="only names that begin so"
    )


def _add_runtime(commands: _Commands) -> None:
    install = commands.add(
        "install",
        "install an engine into an environment of its own",
        lambda call, args: runtime.install(
            call, device=args.device, version=args.version, repair=args.repair
        ),
    )
    device = install.add_mutually_exclusive_group()
    for name in ("cpu", "cuda"):
        device.add_argument(
            f"--{name}", dest="device", action="store_const", const=name, help=f"for {name.upper()}"
        )
    install.add_argument("--version", metavar="V", help="of the engine (default: the newest fit)")
    install.add_argument(
        "--repair",
        action="store_true",
        help="check each file of an installed one, replace what is damaged, try its engine",
    )
    commands.add("list", "installed runtimes", lambda call, _: runtime.show(call), "ls")
    use = commands.add(
        "use", "choose the runtime of new workers", lambda call, args: runtime.use(call, args.name)
    )
    use.add_argument("name", metavar="NAME")


def _add_config(commands: _Commands) -> None:
    parser = commands.add(
        "config",
        "the configuration as the daemon would read it",
        lambda call, args: config.check(call) if args.check else config.show(call),
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--show", action="store_true", help="print it (the default)")
    which.add_argument("--check", action="store_true", help="only say whether it is valid")


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number
