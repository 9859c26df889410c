"""The command ``flowalign``: from folders of files to answers, without a line of Python.

Help is printed without the libraries that do the work; each command is a module of its own, which
is imported when it is called.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flowalign.command.options import parser_of

__all__ = ["main"]

# Commands that are python -m flowalign.encoders and python -m flowalign.benchmark as well.
FORWARDED = {"encode": "flowalign.encoders.__main__", "benchmark": "flowalign.benchmark.__main__"}
INTERRUPTED = 130  # as shells have it


def main(arguments: Sequence[str] | None = None, *, prog: str = "flowalign") -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str or None, default=None
        Such as ``["fit", "pictures", "--out", "pets.flowalign"]``; None takes those of the process.
    prog : str, default="flowalign"
        What help and errors call the program.

    Returns
    -------
    int
        The exit status: 0, or 130 after an interruption.

    Raises
    ------
    SystemExit
        With status 2 for bad input, after a line on the error output; with 0 after help.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in FORWARDED:
            forwarded = importlib.import_module(FORWARDED[given[0]])
            forwarded.main(given[1:], prog=f"{prog} {given[0]}")
            return 0
        parser = parser_of(prog)
        args = parser.parse_args(given)
        with _plain_warnings(f"{prog} {args.command}"):
            try:
                importlib.import_module(f"flowalign.command.{args.command}").run(args)
                sys.stdout.flush()
            except BrokenPipeError:  # the reader, such as head, has seen enough
                sys.stdout = None  # the rest is not to be written at the end
            except (OSError, ValueError, ImportError) as error:
                parser.exit(2, f"{prog} {args.command}: error: {error}\n")
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    return 0


@contextmanager
def _plain_warnings(name: str) -> Iterator[None]:
    """Show warnings as lines for a reader, not for who would debug the program."""

    def show(message: Warning | str, *others: Any, **more: Any) -> None:
        print(f"{name}: note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of libraries, to their programmers
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = show
        yield
