"""Options that several subcommands have, and what they tell the user."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from torch_cntk._internal.checks import positive_int, shape_text
from torch_cntk._internal.ranks import Mesh
from torch_cntk.cli.process import complain, several_ranks

if TYPE_CHECKING:
    from torch_cntk.images.patch_fill import PatchFill

    # Not at run time: the class of the group that add_subparsers returns is private to argparse.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = [
    "add_device",
    "add_machine",
    "add_passes",
    "at_most",
    "check_levels",
    "device",
    "mesh",
    "progress",
    "report",
    "ridge",
    "warn",
]

_MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))
"""More threads than this only wait for each other, and systems with a limit on processes end the program."""
_PATCHES: dict[str, dict[str, float]] = {"patch-fill": {}, "patch-fill-sharp": {"blend": 1.0}}
"""Words of ``--passes`` for a patch fill, and its settings; the usual ones have the least error."""
_PATIENCE = 3600.0
"""Seconds for which ranks that have nothing left to do wait for the last file of another one."""
_MOST_PASSES = 100
"""Passes settle within ten; a larger number is a slip of the finger that would compute for hours."""


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Options of every command that computes; ``device`` and ``progress`` read them."""
    add_device(parser)
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a bar (default: a bar on a terminal, else a line every ten seconds)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where to compute; ``device`` reads it."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default: cpu)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: the idle cores)")


def device(arguments: argparse.Namespace) -> torch.device:
    """Return the device that was asked for, and set the number of threads.

    Raises:
        ValueError: there is no CUDA device, or the number of threads is out of range.
    """
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a CUDA device for --device cuda, got none that torch can use; leave the option out")
    threads = _idle_cores() if arguments.threads is None else positive_int(arguments.threads, "--threads")
    at_most(threads, _MOST_THREADS, "--threads", " on this machine")
    torch.set_num_threads(threads)
    return torch.device(arguments.device)


def mesh(arguments: argparse.Namespace) -> Mesh:
    """The processes that torchrun has started, or this one alone.

    Raises:
        ValueError: there are fewer GPUs than processes of this machine, or versions differ between them.
        RuntimeError: not all of them have come.
    """
    from torch_cntk import distributed

    backend: Literal["gloo", "nccl"] = "nccl" if arguments.device == "cuda" else "gloo"
    return distributed.mesh(_PATIENCE, backend) if several_ranks() else Mesh.alone()


def at_most(value: int | None, most: int, name: str, why: str = "") -> None:
    """Refuse a number that would keep the machine busy for hours or fill its memory.

    Raises:
        ValueError: the number is larger than the most.
    """
    if value is not None and value > most:
        raise ValueError(f"expected {name} to be at most {most}{why}, got {value}")


def check_levels(levels: int | None, size: Sequence[int], room: int = 1) -> None:
    """Refuse more halvings of the resolution than an image of this size has, or ``room`` times that.

    Raises:
        ValueError: there are more.
    """
    most = int(math.log2(room * max(size)))
    at_most(levels, most, "--levels", f" for {shape_text(size)} pixels")


def _idle_cores() -> int:
    """Threads of torch for which there is a core to spare, at least 1.

    Threads that share a core with another program are far worse than none: each of the thousands of small steps of a
    solve waits until all of them have had their turn.
    """
    most = torch.get_num_threads()
    try:
        busy = os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        return most
    return max(1, min(most, round((os.cpu_count() or most) - busy)))


def progress(arguments: argparse.Namespace) -> bool:
    """Whether to show bars, which are lines where ``lines_for_bars`` makes them such."""
    if arguments.progress is None:
        return sys.stderr is not None
    return bool(arguments.progress)


def add_passes(parser: argparse.ArgumentParser, default: str) -> None:
    """The options of the content-aware passes.

    Args:
        parser: of the command.
        default: in words; ``passes`` is None where no option is given.
    """
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--passes",
        type=_passes,
        metavar="N|WORD",
        help="what follows the first fill: N content-aware passes, each guided by the last result; quick: passes for "
        "thin holes, patches from elsewhere for thick ones; auto: the same, chosen by leaving observed pixels out; "
        "sharp: as auto, but thick holes look sharp rather than have the least error; patch-fill or patch-fill-sharp: "
        f"the patches alone (default: {default})",
    )
    group.add_argument("--fast", dest="passes", action="store_const", const=0, help="the first fill alone: --passes 0")


def _passes(text: str) -> int | str | PatchFill:
    """Read ``--passes``.

    Raises:
        ArgumentTypeError: it is no number and no such word, or out of range.
    """
    # Not before it is asked for: the command's help shall not wait for these.
    from torch_cntk.images.automatic import WORDS
    from torch_cntk.images.patch_fill import PatchFill

    if text in WORDS:
        return text
    if text in _PATCHES:
        return PatchFill(blend=_PATCHES[text].get("blend", PatchFill.blend))
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= _MOST_PASSES:
        words = ", ".join((*WORDS, *_PATCHES))
        raise argparse.ArgumentTypeError(f"expected {words} or a number from 0 to {_MOST_PASSES}, got {text}")
    return number


def ridge(text: str) -> float | str:
    """Read ``--ridge``.

    Raises:
        ArgumentTypeError: it is neither.
    """
    try:
        return text if text == "cv" else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected cv or a number, got {text!r}") from error


def warn(message: object) -> None:
    """Write a warning in one line on stderr."""
    complain(f"warning: {message}")


def report(message: str, output: Path) -> None:
    """Write what was done on stdout, or on stderr where the output itself went to stdout."""
    print(message, file=sys.stderr if _is_stdout(output) else sys.stdout)


def _is_stdout(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError, AttributeError):  # closed, or no stream of the system's
        return False
