"""The command ``torch-cntk``: from arguments to an exit status.

Importing torch takes a second, in which the user may press Ctrl-C: this module imports it inside ``main`` only. Each
subcommand has a module whose ``add`` adds its parser and names, as ``run``, the function that does its work.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence

from torch_cntk.cli import process

__all__ = ["command", "main"]

_USER_ERRORS = (ValueError, TypeError, IndexError, ArithmeticError, OSError, MemoryError, ImportError)
_DEBUG = "TORCH_CNTK_DEBUG"
_HEAD_START = 1.0
"""Seconds after which a rank ends that leaves it to rank 0 to tell: torchrun ends all as soon as one has failed."""
_BROKEN_PIPE = 141
"""What shells report of a program that wrote to a pipe nobody reads: 128 + SIGPIPE."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``torch-cntk``.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        the exit status: 0, or 2 after an error, which is told in one line on stderr, or 3 if some files of a folder
        failed, or 1 after an error that the program did not foresee, or 130 after Ctrl-C, or 141 where stdout is a pipe
        that nobody reads. With the environment variable TORCH_CNTK_DEBUG set, errors are raised with their traceback
        instead.
    """
    try:
        return _guarded(argv)
    except KeyboardInterrupt as error:
        process.complain("; ".join(("interrupted", *map(str, error.args))))
        return 130


def command() -> int:
    """Run ``torch-cntk`` as a process of its own, which also governs signals and the standard streams.

    Returns:
        the exit status; see ``main``.
    """
    with process.governed():
        return main()


def _guarded(argv: Sequence[str] | None) -> int:
    """Run the subcommand and turn errors into lines and statuses.

    Raises:
        Exception: any error, if the user debugs.
        KeyboardInterrupt: Ctrl-C.
    """
    try:
        try:
            status = _run(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk or a broken pipe shows itself here, not after the end of main
    except BrokenPipeError:
        _forget_stdout()
        return _BROKEN_PIPE
    except Exception as error:
        if process.interrupted():
            raise KeyboardInterrupt from error
        if os.environ.get(_DEBUG):
            raise
        return _tell(error)
    return status


def _refused() -> int:
    """Say, on rank 0, that a command is one for a single process; the exit status."""
    if process.rank():
        time.sleep(_HEAD_START)
    else:
        process.complain("error: expected one process, got several of torchrun: this command does not divide its work")
    return 2


def _tell(error: Exception) -> int:
    """Say what went wrong in a line, and return the exit status.

    Rank 0 alone tells what all ranks have raised.
    """
    from torch_cntk._internal.shared_errors import is_known_to_all

    status = 2 if isinstance(error, _USER_ERRORS) else 1
    if process.rank() and is_known_to_all(error):
        time.sleep(_HEAD_START)
        return status
    where = f"on rank {process.rank()}, " if process.rank() else ""
    if isinstance(error, _USER_ERRORS):
        process.complain(f"{where}error: {str(error) or type(error).__name__}")
        return status
    process.complain(f"{where}unexpected {type(error).__name__}: {error} ({_DEBUG}=1 in the environment shows where)")
    return status


def _run(argv: Sequence[str] | None) -> int:
    from torch_cntk._internal.memory import allocating
    from torch_cntk.cli.progress import lines_for_bars

    with process.quiet() if process.rank() else contextlib.nullcontext():
        arguments = _parser().parse_args(argv)
        run: Callable[[argparse.Namespace], int | None] = arguments.run
        if process.several_ranks() and not getattr(arguments, "divides", False):
            return _refused()
        # Who asks for bars gets them, be there a terminal or not.
        lines = contextlib.nullcontext() if getattr(arguments, "progress", None) else lines_for_bars()
        with allocating("the command"), lines:
            return run(arguments) or 0


def _forget_stdout() -> None:
    """Let nothing be written to a broken pipe any more, not even what Python flushes at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # no stream of the system's, as under a test
        return


def _parser() -> argparse.ArgumentParser:
    from torch_cntk import __version__
    from torch_cntk.cli import app, complete, demo, inpaint, kernels, train

    parser = argparse.ArgumentParser(
        prog="torch-cntk", description="Complete images and matrices with infinitely wide neural networks."
    )
    parser.add_argument("--version", action="version", version=f"torch-cntk {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for subcommand in (inpaint, app, train, complete, demo, kernels):
        subcommand.add(commands)
    return parser
