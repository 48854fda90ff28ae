"""``torch-cntk inpaint``: fill the missing pixels of an image."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.ranks import Mesh
from torch_cntk.cli import folders, options, pictures
from torch_cntk.cli.certainty import add_certainty, certainty_files, check_certainty, in_words, write_certainty
from torch_cntk.cli.process import is_done
from torch_cntk.images.automatic import passes_in_words
from torch_cntk.images.certainty import Passes, left_out_error
from torch_cntk.images.files import check_output
from torch_cntk.images.fill import NOTHING
from torch_cntk.images.inpaint import InpaintingResult, inpaint
from torch_cntk.images.patch_fill import PatchFill
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.solvers import ConjugateGradient, Direct, EigenPro, Solver
from torch_cntk.solvers.names import NAMES
from torch_cntk.zoo.loading import load_kernel

if TYPE_CHECKING:
    from torch_cntk.cli.options import Commands

__all__ = ["add", "solved", "summary", "warn_unless_converged"]

_RIDGE = 1e-4
"""As that of ``inpaint``."""


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "inpaint",
        help="fill the missing pixels of an image, or of all images of a folder",
        description="Fill the missing pixels of an image, or of all images of a folder: those that are "
        "in the folder OUT already are left as they are, and the exit status is 3 if some failed. Started as "
        "torchrun --nproc-per-node=N -m torch_cntk inpaint ..., N processes divide the files or the work on one image.",
    )
    pictures.add_files(parser)
    parser.add_argument(
        "--kernel",
        metavar="NAME|FILE",
        help="see torch-cntk kernels, or of Kernel.save (default: suits the mask's holes)",
    )
    parser.add_argument(
        "--ridge",
        type=options.ridge,
        default=_RIDGE,
        metavar="R|cv",
        help="more forgives more noise; cv chooses by leaving observed pixels out (default: %(default)g)",
    )
    parser.add_argument(
        "--solver",
        choices=("auto", *NAMES),
        default="auto",
        help="auto: direct for small images, else conjugate gradients (cg)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="T",
        help=f"relative residual at which cg or eigenpro is done (default: {ConjugateGradient.tolerance:g})",
    )
    parser.add_argument(
        "--max-iterations",
        type=int,
        metavar="N",
        help=f"of cg (default: {ConjugateGradient.max_iterations}), or epochs of eigenpro ({EigenPro.epochs})",
    )
    options.add_passes(parser, "quick, and 0 with another --ridge, which passes would undo")
    add_certainty(parser)
    folders.add_jobs(parser)
    options.add_machine(parser)
    parser.set_defaults(run=_inpaint, divides=True)


def _solver(arguments: argparse.Namespace) -> Solver | Literal["auto"]:
    """Make the solver that was asked for.

    Raises:
        ValueError: an option is out of range, or is none of this solver's.
    """
    name, tolerance, iterations = arguments.solver, arguments.tolerance, arguments.max_iterations
    if name == "direct":
        if tolerance is not None or iterations is not None:
            raise ValueError("expected --tolerance and --max-iterations with an iterative solver, got --solver direct")
        return Direct()
    if name == "auto" and tolerance is None and iterations is None:
        return "auto"
    tolerance = ConjugateGradient.tolerance if tolerance is None else tolerance
    if name == "eigenpro":
        return EigenPro(epochs=EigenPro.epochs if iterations is None else iterations, tolerance=tolerance)
    return ConjugateGradient(tolerance, ConjugateGradient.max_iterations if iterations is None else iterations)


def _inpaint(arguments: argparse.Namespace) -> int:
    """Fill the image, or those of the folder."""
    check_certainty(arguments)
    mesh = options.mesh(arguments)
    if arguments.image.is_dir():
        with mesh.together():
            _checked_options(arguments)
        return folders.fill_folder(arguments, _fill, mesh)
    options.report(f"{_fill(arguments, mesh)}: {arguments.output}", arguments.output)
    return 0


def _checked_options(arguments: argparse.Namespace) -> tuple[torch.device, Solver | Literal["auto"]]:
    """What does not depend on the image, before long work.

    Raises:
        ValueError: an option is out of range.
    """
    device, solver = options.device(arguments), _solver(arguments)
    if not isinstance(arguments.ridge, str):
        finite_number(arguments.ridge, "--ridge", minimum=0)
    return device, solver


def _fill(arguments: argparse.Namespace, mesh: Mesh | None = None) -> str:
    """Check all that can be checked, fill, write, and say what was done.

    Ranks that fill one image together all read it; rank 0 writes.
    """
    start = time.perf_counter()
    mesh = mesh or Mesh.alone()
    passes, progress = _passes(arguments), options.progress(arguments)
    with mesh.together():
        kernel_file = None if arguments.kernel is None else Path(arguments.kernel)
        pictures.check_files(arguments, {"--kernel": kernel_file}, certainty_files(arguments))
        if mesh.rank == 0:
            check_output(arguments.output)
        device, solver = _checked_options(arguments)
        task = pictures.read_task(arguments)
        kernel = _kernel_for(task.observed, arguments.kernel, progress) or task.kernel()
    result = inpaint(
        task.photograph.pixels.to(device),
        task.known.to(device),
        kernel,
        solver=solver,
        ridge=arguments.ridge,
        passes=passes,
        progress=progress,
        mesh=mesh if mesh.size > 1 else None,
    )
    with mesh.together():
        if mesh.rank > 0:
            return ""
        task.write(arguments.output, result.image)
        with is_done(f"{arguments.output} is written"):
            warn_unless_converged(result)
            pixels, known, observed = (each.to(device) for each in (task.photograph.pixels, task.known, task.observed))
            missed = left_out_error(pixels, known, observed, kernel, solver, result, passes, progress=progress)
            spread = write_certainty(arguments, task, known, kernel, result, passes)
        seconds = time.perf_counter() - start
        cv = arguments.ridge == "cv" and result.solver != NOTHING
        chosen = f"the ridge is {result.first_ridge:.2g}" if cv else ""
        told = summary(task.observed, result, seconds, passes), chosen, in_words(missed), spread
        return "; ".join(part for part in told if part) + solved(result)


def _passes(arguments: argparse.Namespace) -> Passes:
    """What was asked for, or else passes that make a better picture in some seconds.

    The ridge is that of the first fill: passes have their own, and would take the noise back that another one forgave.
    """
    if arguments.passes is not None:
        if arguments.passes != 0 and arguments.ridge != _RIDGE:
            options.warn(f"passes have a ridge of their own, and undo --ridge {arguments.ridge}; --fast keeps it")
        return cast("Passes", arguments.passes)
    return "quick" if arguments.ridge == _RIDGE else 0


def _kernel_for(observed: Tensor, name: str | None, progress: bool) -> Kernel | None:
    """Get the kernel that was asked for, or return None for the default one.

    Raises:
        ValueError: it is no kernel for this image.
    """
    if name is None:
        return None
    kernel = load_kernel(name, progress=progress)
    if kernel.ndim != observed.ndim:
        raise ValueError(f"expected a kernel for images, of 2 dimensions, got one of {kernel.ndim}: {name}")
    if kernel.size is not None:
        kernel.check_size(tuple(observed.shape))
    return kernel


def warn_unless_converged(result: InpaintingResult) -> None:
    """Say how the solver ended if that is not where it should have."""
    if not result.converged:
        options.warn(f"{result.status.value}; residual {result.residual:.1e}")


def summary(observed: Tensor, result: InpaintingResult, seconds: float, passes: Passes = 0) -> str:
    """What was filled and how, in a line.

    Args:
        observed: boolean [H, W].
        result: of the fill.
        seconds: that it took.
        passes: that were asked for.
    """
    missing, size = int((~observed).sum()), f"{observed.shape[1]} x {observed.shape[0]}"
    if not missing:
        return f"nothing is missing: all {observed.numel():,} pixels ({size}) are as they were, in {seconds:.1f} s"
    filled = f"filled {missing:,} of {observed.numel():,} pixels ({size}) in {seconds:.1f} s"
    made = passes if isinstance(passes, PatchFill) else next(iter(result.guidance), None)
    return f"{filled} by {result.choice or passes_in_words(made, result.passes)}"


def solved(result: InpaintingResult) -> str:
    """What the solver did, in brackets at the end of a line; empty where there was nothing to solve."""
    if result.solver == NOTHING:
        return ""
    iterations = f", {result.iterations} iterations" if result.iterations else ""
    return f" ({result.solver}{iterations}, residual {result.residual:.1e})"
