"""`vllamactl`: reads the command line, runs one command, returns its exit code."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from vllamactl.command_context import CommandContext
from vllamactl.commandline import Run, parse
from vllamactl.control_client import ControlClient, sockets
from vllamactl.render import Screen
from vllamad.errors import HostProblem, NotAllowed, VllamadError

EXIT_REFUSED = 1
EXIT_CODES = {"not-reachable": 3, "not-allowed": 4}
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = parse(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # the locale may lack our symbols
    screen = Screen(
        json=args.json, quiet=args.quiet, out=sys.stdout, err=sys.stderr, environ=os.environ
    )
    client = ControlClient(sockets(args.socket, os.environ))
    run: Run = args.run
    try:
        run(CommandContext(screen=screen, client=client, environ=os.environ), args)
        sys.stdout.flush()
    except VllamadError as error:
        return _failed(screen, error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader has left, as in `vllamactl logs ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # from commands that work on files, without the daemon
        kind = NotAllowed if isinstance(error, PermissionError) else HostProblem
        return _failed(screen, kind(f"cannot finish: {error}"))
    return 0


def _failed(screen: Screen, error: VllamadError) -> int:
    screen.error(error)
    return EXIT_CODES.get(error.kind, EXIT_REFUSED)


if __name__ == "__main__":
    sys.exit(main())
