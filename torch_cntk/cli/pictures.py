"""Photographs and masks as people have them: what is to be filled, from what, and how it goes back into the file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from torch_cntk.cli import options
from torch_cntk.cli.outputs import check_apart
from torch_cntk.cli.process import complain
from torch_cntk.images.files import Photograph, check_output, read_image
from torch_cntk.images.mask_files import Mask, find_mask, grow, share
from torch_cntk.images.photographs import LEAST, Task, growth, own_mask

__all__ = ["add_files", "check_files", "read_task"]

_EIGHT_BITS = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP", ".bmp": "BMP", ".avif": "AVIF"}


def add_files(parser: argparse.ArgumentParser) -> None:
    """The image, its mask and the output."""
    parser.add_argument(
        "image", type=Path, metavar="IMAGE", help="PNG, JPEG, TIFF, WebP, BMP or AVIF, or a folder of them"
    )
    parser.add_argument(
        "--mask",
        "--masks",
        type=Path,
        metavar="MASK",
        help="a picture of the image's size: white is known, black is missing, and so is all between; strokes on a "
        "transparent layer or on a copy of the image are missing; or a folder with a mask of each image's name "
        "(default: what was erased in the image is missing)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="the filled image, or the folder of them"
    )
    parser.add_argument("--invert-mask", action="store_true", help="black is known, white is missing")
    parser.add_argument(
        "--mask-color",
        "--mask-colour",
        metavar="COLOR",
        help="missing is what has this colour in the mask, or in the image if there is no mask: red, #ff0000",
    )
    parser.add_argument(
        "--mask-threshold", type=float, metavar="LEVEL", help="of 255: from this grey level on, the mask is white"
    )
    parser.add_argument(
        "--grow",
        type=int,
        metavar="N",
        help="let the missing part grow by N pixels (default: 3 in a JPEG image, 1 if the mask's edges are soft, else "
        "0; none if less than half of the known pixels were left)",
    )


def check_files(
    arguments: argparse.Namespace, read: Mapping[str, Path | None], more: Mapping[str, Path | None]
) -> None:
    """Refuse to write one file over another; the filled image may take the place of the one that it came from.

    Args:
        arguments: with an image, perhaps a mask, and an output.
        read: what else is read, by what it is called.
        more: what else is written.

    Raises:
        ValueError: two of them are one file.
    """
    given = {"the image": arguments.image, "the mask": arguments.mask, **read}
    check_apart(given, {"the output": arguments.output, **more}, replaced=("the output", "the image"))


def read_task(arguments: argparse.Namespace) -> Task:
    """Read the image and its mask, and say what is doubtful about them.

    Raises:
        ValueError: the mask does not belong to the photograph, or there is nothing to fill from.
    """
    options.at_most(arguments.grow, 10_000, "--grow")
    if arguments.grow is not None and arguments.grow < 0:
        raise ValueError(f"expected --grow to be at least 0, got {arguments.grow}")
    photograph = read_image(arguments.image)
    check_output(
        arguments.output,
        alpha=photograph.alpha is not None,
        channels=len(photograph.pixels),
        metadata=photograph.metadata,
    )
    _warn_of_depth(photograph, arguments.output)
    mask = _mask(photograph, arguments)
    _check(mask, arguments)
    observed = _grown(mask, photograph, arguments)
    try:
        return Task.of(photograph, observed)
    except ValueError as error:
        raise ValueError(f"{error}: {arguments.image}") from error


def _warn_of_depth(photograph: Photograph, output: Path) -> None:
    kind = _EIGHT_BITS.get(output.suffix.lower())
    if photograph.metadata.depth == 16 and kind is not None:
        options.warn(f"the image has 16 bits a channel, of which {kind} keeps 8: {output}; PNG and TIFF keep all")


def _mask(photograph: Photograph, arguments: argparse.Namespace) -> Mask:
    """From the file that was named, or the image itself.

    Raises:
        ValueError: there is neither, or a folder was named.
    """
    path = arguments.mask
    if path is None and arguments.mask_color is None:
        own = own_mask(photograph)
        if own is None or bool(own.observed.all()):
            got = "none of them" if own is None else own.found
            raise ValueError(f"expected --mask, or --mask-color, or an image with transparent pixels, got {got}")
        return own
    if path is not None and path.is_dir():
        raise ValueError(f"expected a mask's file for one image, got the folder {path}")
    height, width = photograph.pixels.shape[1:]
    return find_mask(
        arguments.image if path is None else path,
        (height, width),
        arguments.invert_mask,
        threshold=arguments.mask_threshold,
        colour=arguments.mask_color,
        image=None if path is None else photograph.pixels,
    )


def _check(mask: Mask, arguments: argparse.Namespace) -> None:
    """Refuse what leaves nothing to fill from, and say what may have been meant otherwise.

    Raises:
        ValueError: nothing is known.
    """
    source = arguments.image if arguments.mask is None else arguments.mask
    flag = "without --invert-mask" if arguments.invert_mask else "with --invert-mask"
    missing, pixels = int((~mask.observed).sum()), mask.observed.numel()
    if not bool(mask.observed.any()):
        known, hint = ("black", "") if arguments.invert_mask else ("white", "; with --invert-mask black is known")
        raise ValueError(f"expected some {known} (known) pixels in the mask, got none but {mask.found}: {source}{hint}")
    if mask.reading:
        complain(f"note: {mask.reading}")
    if missing == 0:
        options.warn(f"there is nothing to fill: all of {source} is known ({mask.found}); {flag} it is missing")
    elif missing > pixels / 2:
        options.warn(
            f"{share(missing, pixels)} of the image are missing by {source} ({mask.found}); {flag} it would be the "
            f"other {share(pixels - missing, pixels)}"
        )


def _grown(mask: Mask, photograph: Photograph, arguments: argparse.Namespace) -> Tensor:
    """The mask with what was damaged around its holes."""
    if arguments.grow is not None:
        observed, steps = grow(mask.observed, arguments.grow)
        if steps < arguments.grow:
            options.warn(f"the mask grew by {steps} pixels only, as nothing would be left to fill from")
        return observed
    wanted, why = growth(mask, photograph.metadata)
    observed, steps = grow(mask.observed, wanted, least=LEAST)
    if steps:
        complain(
            f"note: the missing part grew by {steps} pixel{'s' if steps > 1 else ''}, as {why}; --grow 0 leaves it"
        )
    return observed
