"""How sure a fill is, in words and files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk.cli import options
from torch_cntk.images.calibration import std_factor
from torch_cntk.images.certainty import Missed, Passes, posterior_after, std_picture
from torch_cntk.images.chosen import Chosen
from torch_cntk.images.files import check_output, write_image
from torch_cntk.images.inpaint import InpaintingResult
from torch_cntk.images.photographs import Task
from torch_cntk.kernels.kernel import Kernel

__all__ = ["add_certainty", "certainty_files", "check_certainty", "in_words", "write_certainty"]

_LEVELS = 255
_NUMBERS = ".npy"
_USUAL = 8
"""Images that are drawn where only deviations are asked for: with three colours they tell them to an eighth."""
_MOST = 1000
_TRIED = 2
"""How many times holes are moved to see whether deviations are right: each takes as long as the deviations."""


def add_certainty(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--std",
        type=Path,
        metavar="FILE",
        help="write the standard deviation of each filled pixel: a picture, yellow where it is largest, or .npy, "
        "[channels, H, W] in [0, 1]",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=0,
        metavar="N",
        help="write N images that what is known leaves possible, beside OUT: OUT-sample-1 and so on",
    )


def check_certainty(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be written, before long work.

    Raises:
        ValueError: the number is out of range, or there is more than one image.
        FileNotFoundError: the folder of the numbers does not exist.
        OSError: a file cannot be written.
    """
    if positive_int(arguments.samples, "--samples", least=0) > _MOST:
        raise ValueError(f"expected --samples of at most {_MOST}, got {arguments.samples}")
    if arguments.image.is_dir():
        if arguments.std is not None or arguments.samples:
            raise ValueError("expected one image for --std and --samples, got a folder")
        return
    if arguments.std is None:
        return
    if arguments.std.suffix.lower() != _NUMBERS:
        check_output(arguments.std)
    elif not arguments.std.parent.is_dir():
        raise FileNotFoundError(f"expected an existing folder for {arguments.std}, got {arguments.std.parent}")


def certainty_files(arguments: argparse.Namespace) -> dict[str, Path | None]:
    """What is to be written beside the filled image."""
    return {"--std": arguments.std} | {f"sample {k}": path for k, path in enumerate(_samples(arguments), start=1)}


def _samples(arguments: argparse.Namespace) -> list[Path]:
    """Where the samples go."""
    output = arguments.output
    return [output.with_stem(f"{output.stem}-sample-{number}") for number in range(1, arguments.samples + 1)]


def write_certainty(
    arguments: argparse.Namespace,
    task: Task,
    known: Tensor,
    kernel: Kernel | None,
    result: InpaintingResult,
    passes: Passes,
) -> str:
    """Write what was asked for, and say what it is; empty if nothing was.

    Args:
        arguments: of the command.
        task: the photograph.
        known: boolean [H, W], on the device.
        kernel: that filled it.
        result: of the fill.
        passes: that were asked for.
    """
    if arguments.std is None and not arguments.samples:
        return ""
    pixels = task.photograph.pixels.to(known.device)
    samples, progress = arguments.samples or _USUAL, options.progress(arguments)
    posterior = posterior_after(pixels, known, kernel, result, samples=samples, progress=progress)
    for path, sample in zip(_samples(arguments), posterior.samples[: arguments.samples, 0], strict=True):
        task.write(path, sample)
    if arguments.std is None:
        return ""
    std = posterior.std[0].cpu() * ~task.observed
    picture, largest = std_picture(std, task.photograph.pixels)
    if arguments.std.suffix.lower() == _NUMBERS:
        np.save(arguments.std, std.numpy())
    else:
        write_image(arguments.std, picture.float())
    told = f"standard deviations up to {_levels(largest)}, {posterior.how}"
    return told + _factor(pixels, known, kernel, result, passes, progress=progress)


def _factor(
    pixels: Tensor,
    known: Tensor,
    kernel: Kernel | None,
    result: InpaintingResult,
    passes: Passes,
    *,
    progress: bool,
) -> str:
    """What deviations are to be multiplied by, as left-out pixels tell; empty where they cannot."""
    again: Passes | Chosen = result.chosen[0] if result.chosen else passes
    as_filled: dict[str, Any] = {"ridge": result.first_ridge, "passes": again, "progress": progress}
    try:
        factor = std_factor(pixels, known, kernel, count=_TRIED, **as_filled)
    except (ValueError, MemoryError):  # a part may be too small for passes, or for holes beside the ones there are
        return ""
    if factor == 1:
        return "; at least nine of ten known pixels that were left out lie within 1.645 of them"
    return f"; times {factor:.2g}, nine of ten known pixels that were left out lie within 1.645 of them"


def in_words(missed: Missed | str | None) -> str:
    """A part of a sentence; of why it cannot be told too, and empty where there is nothing to tell."""
    if not missed:
        return ""
    if isinstance(missed, str):
        return f"how far off it is cannot be told, as {missed}"
    if missed.low < 0 or missed.high > 1:
        size = f"{missed.error:.2g}, of values from {missed.low:.4g} to {missed.high:.4g}"
    else:
        size = _levels(missed.error)
    return f"known pixels that were left out were off by {size}"


def _levels(error: float) -> str:
    """An error of values from 0 to 1, in grey levels."""
    levels = _LEVELS * error
    return f"{f'{levels:.0f}' if levels >= 1 else 'less than 1'} of {_LEVELS}"
