"""The command ``flowalign``: from folders of files to answers, without a line of Python.

Each command is a module of its own, which is imported when the command is called. So help is
printed without loading the libraries that do the work.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flowalign.command.options import parser_of

__all__ = ["main"]

# These commands can also be called as python -m flowalign.encoders and flowalign.benchmark.
FORWARDED = {"encode": "flowalign.encoders.__main__", "benchmark": "flowalign.benchmark.__main__"}
INTERRUPTED = 130  # the status that shells give to an interrupted program


def main(arguments: Sequence[str] | None = None, *, prog: str = "flowalign") -> int:
    """Run a command.

    Parameters
    ----------
    arguments : sequence of str or None, default=None
        For instance ``["fit", "pictures", "--out", "pets.flowalign"]``. None takes the arguments of
        the process.
    prog : str, default="flowalign"
        The name of the program in help and errors.

    Returns
    -------
    int
        The exit status: 0, or 130 after an interruption.

    Raises
    ------
    SystemExit
        With status 2 for bad input, after a line on the error output. With status 0 after help.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in FORWARDED:
            forwarded = importlib.import_module(FORWARDED[given[0]])
            forwarded.main(given[1:], prog=f"{prog} {given[0]}")
            return 0
        parser = parser_of(prog)
        args = parser.parse_args(given)
        with _plain_warnings(f"{prog} {args.command}"), _no_log():
            try:
                importlib.import_module(f"flowalign.command.{args.command}").run(args)
                sys.stdout.flush()
            except BrokenPipeError:  # the reader, such as head, has seen enough
                sys.stdout = None  # or Python would try to write the rest when it ends
            except (OSError, ValueError, ImportError) as error:
                parser.exit(2, f"{prog} {args.command}: error: {error}\n")
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    return 0


@contextmanager
def _no_log() -> Iterator[None]:
    """Silence what libraries log below errors, such as retries of a download."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _plain_warnings(name: str) -> Iterator[None]:
    """Show warnings as short lines for a user, without the place in the code."""

    def show(message: Warning | str, *others: Any, **more: Any) -> None:
        print(f"{name}: note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # meant for programmers
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = show
        yield
