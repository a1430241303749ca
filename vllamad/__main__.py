"""Reads the command line, picks the role (supervisor or gateway), runs it."""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import trio

from vllamad import __version__
from vllamad.config.load import load_settings
from vllamad.config.paths import home_of
from vllamad.config.settings import Settings
from vllamad.errors import ConfigError, HostProblem, VllamadError
from vllamad.host.listeners import HTTP
from vllamad.host.machine.fd_limit import raise_limit
from vllamad.host.systemd.notify import passed_descriptors

EXIT_PROBLEM = 1
EXIT_CONFIG = 78  # EX_CONFIG: the unit file tells systemd not to restart on it

_EPILOG = """\
exit status: 0 stopped as asked, 1 a problem of the machine, 2 usage, 78 faults in the configuration
(1 with --check-config). Signals: TERM or INT drains and stops, a second one stops at once; HUP
reads the configuration again. Settings: vllamad.toml(5), and `vllamactl config --show`.
"""


def main() -> None:
    """The command `vllamad`."""
    faulthandler.enable()
    raise_limit()
    arguments = _parser().parse_args()
    if arguments.gateway:
        from vllamad.gateway.run import main as gateway

        sys.exit(gateway())
    named = dict(passed_descriptors(os.environ, os.getpid()))
    read = partial(_settings, arguments, listening=HTTP in named)
    try:
        settings = read()
        if arguments.check_config:
            _check_catalogues(settings)
    except ConfigError as error:
        print(*error.problems, sep="\n", file=sys.stderr)
        if arguments.check_config:
            sys.exit(EXIT_PROBLEM)
        _last_words([error])
        sys.exit(EXIT_CONFIG)
    if arguments.check_config:
        _say_checked(settings)
    else:
        sys.exit(_supervise(settings, read))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vllamad",
        description="Supervise vLLM workers and answer the Ollama API.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="read only this file")
    parser.add_argument("--check-config", action="store_true", help="name every fault, and exit")
    parser.add_argument("--listen", metavar="ADDRESS", help="same as --set server.listen=ADDRESS")
    parser.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error")
    parser.add_argument("--log-format", metavar="FORMAT", help="text or json")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any setting, for example scheduler.keep_alive=10m; may be repeated",
    )
    parser.add_argument("--version", action="version", version=f"vllamad {__version__}")
    parser.add_argument("--gateway", action="store_true", help=argparse.SUPPRESS)
    return parser


def _settings(arguments: argparse.Namespace, *, listening: bool) -> Settings:
    pairs: Sequence[str] = arguments.set
    for pair in pairs:
        if "=" not in pair:
            _parser().error(f"argument --set: {pair!r} is not KEY=VALUE")
    cli = dict(pair.split("=", 1) for pair in pairs)
    short = {
        "server.listen": arguments.listen,
        "logging.level": arguments.log_level,
        "logging.format": arguments.log_format,
    }
    cli |= {key: value for key, value in short.items() if value is not None}
    euid = os.geteuid()
    return load_settings(
        cli,
        os.environ,
        cwd=_cwd(),
        home=home_of(os.environ, euid),
        euid=euid,
        only=arguments.config,
        listening=listening,
    )


def _cwd() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:  # removed since
        return Path("/")


def _check_catalogues(settings: Settings) -> None:
    """Read what models the operator makes known; a fault there does not keep the daemon down."""
    from vllamad.models.registry.registry_file import load_registry

    load_registry(settings.paths.registry_files)


def _say_checked(settings: Settings) -> None:
    files = ", ".join(str(path) for path in settings.paths.config_files) or "no file, defaults only"
    print(f"the configuration is good: {files}")
    for remark in settings.remarks:
        print(remark)


def _supervise(settings: Settings, read: Callable[[], Settings]) -> int:
    from vllamad.host import log
    from vllamad.host.systemd.notify import inherited_sockets
    from vllamad.supervisor.run import run

    log.configure(settings.logging.format, settings.logging.level)
    problems: list[VllamadError] = []
    try:
        sockets = inherited_sockets(os.environ, os.getpid())
        trio.run(run, settings, sockets, dict(os.environ), read)
    except* VllamadError as group:
        problems += _leaves(group)
    for problem in problems:
        hint = f"\n  {problem.hint}" if problem.hint else ""
        print(f"vllamad: {problem.message}{hint}", file=sys.stderr)
    _last_words(problems)
    if any(isinstance(problem, ConfigError) for problem in problems):
        return EXIT_CONFIG
    return EXIT_PROBLEM if problems else 0


def _last_words(problems: Sequence[VllamadError]) -> None:
    """Tell systemd why we end, and wait until it has read it: from the dead it takes nothing."""
    from vllamad.host.systemd.notify import Notifier

    notify = Notifier(os.environ)
    for problem in problems:
        notify.status(problem.message)
        if isinstance(problem, HostProblem) and problem.errno:
            notify.errno(problem.errno)
    notify.barrier()
    notify.close()


def _leaves(group: BaseExceptionGroup[VllamadError]) -> Iterator[VllamadError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    main()
