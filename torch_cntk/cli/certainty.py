"""How sure a fill is, in words and files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk.cli import options
from torch_cntk.images.calibration import factor_of
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
        try:
            check_output(arguments.std)
        except ValueError as error:
            raise ValueError(f"{error}; --std also takes {_NUMBERS}, for numbers") from error
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
    files = _samples(arguments)
    for path, sample in zip(files, posterior.samples[: arguments.samples, 0], strict=True):
        task.write(path, sample)
    told = [f"wrote {_named(files)}, which what is known leaves possible"] if files else []
    if arguments.std is None:
        return told[0]
    std = posterior.std[0].cpu() * ~task.observed
    picture, largest = std_picture(std, task.photograph.pixels)
    shown = " (yellow; of the colours together)"
    if arguments.std.suffix.lower() == _NUMBERS:
        np.save(arguments.std, std.numpy())
        largest, shown = float(std.max()), ""
    else:
        write_image(arguments.std, picture.float())
    if not bool((~task.observed).any()):
        return "; ".join([*told, "standard deviations of 0: nothing is missing"])
    low, high = (float(level) for level in torch.aminmax(pixels[:, known]))
    told.append(f"standard deviations up to {_size(largest, low, high)}{shown}, {posterior.how}")
    return "; ".join([*told, _factor(pixels, known, kernel, result, passes, progress=progress)])


def _named(files: list[Path]) -> str:
    """The first and the last of some files."""
    return files[0].name if len(files) == 1 else f"{files[0].name} to {files[-1].name}"


def _factor(
    pixels: Tensor,
    known: Tensor,
    kernel: Kernel | None,
    result: InpaintingResult,
    passes: Passes,
    *,
    progress: bool,
) -> str:
    """What deviations are to be multiplied by, as left-out pixels tell, or why they cannot tell."""
    again: Passes | Chosen = result.chosen[0] if result.chosen else passes
    as_filled: dict[str, Any] = {"ridge": result.first_ridge, "passes": again, "progress": progress}
    try:
        factor = factor_of(pixels, known, kernel, count=_TRIED, **as_filled)
    except (ValueError, MemoryError) as reason:  # a part may be too small for passes, or for holes beside the others
        return f"the file holds them as they are, and left-out pixels cannot tell a factor: {reason}"
    lie = "nine of ten known pixels that were left out lie within 1.645 of them"
    if factor == 1:
        return f"the file holds them as they are, and they need no factor: at least {lie}"
    return f"the file holds them as they are: multiply them by {factor:.2g}, by which {lie}"


def in_words(missed: Missed | str | None) -> str:
    """A part of a sentence; of why it cannot be told too, and empty where there is nothing to tell."""
    if not missed:
        return ""
    if isinstance(missed, str):
        return f"how far off it is cannot be told, as {missed}"
    return f"known pixels that were left out were off by {_size(missed.error, missed.low, missed.high)}"


def _size(error: float, low: float, high: float) -> str:
    """An error of values of a range: in grey levels where they are from 0 to 1."""
    if low < 0 or high > 1:
        return f"{error:.2g}, of values from {low:.4g} to {high:.4g}"
    levels = _LEVELS * error
    return f"{f'{levels:.0f}' if levels >= 1 else 'less than 1'} of {_LEVELS}"
