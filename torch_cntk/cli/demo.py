"""``torch-cntk demo``: fill the missing pixels of a sample photograph."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number
from torch_cntk.cli import options
from torch_cntk.cli.inpaint import solved, summary, warn_unless_converged
from torch_cntk.cli.outputs import check_apart
from torch_cntk.images.files import read_image, write_image
from torch_cntk.images.inpaint import inpaint

if TYPE_CHECKING:
    from torch_cntk.cli.options import Commands

__all__ = ["add"]

_SMALLEST = 7
"""Side of the window with which SSIM compares two images."""
_PICTURES = ("original.png", "mask.png", "before.png", "after.png", "comparison.png")
"""What is written, the last one after passes."""


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "demo",
        help="fill the missing pixels of a sample photograph",
        description="Remove pixels of a photograph at random, fill them, and write the pictures before and after.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("demo"), metavar="FOLDER", help="for the pictures (default: ./demo)"
    )
    parser.add_argument("--image", type=Path, help="PNG, JPEG or TIFF to take in place of the sample photograph")
    parser.add_argument(
        "--missing", type=float, default=0.5, metavar="SHARE", help="of the pixels, to remove (default: %(default)g)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the pixels' choice (default: %(default)s)")
    options.add_passes(parser, "0")
    options.add_machine(parser)
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    """Check all that can be checked, fill, measure, write."""
    _check_folder(arguments.output)
    check_apart({"--image": arguments.image}, {name: arguments.output / name for name in _PICTURES})
    device = options.device(arguments)
    metrics = _scikit_image("metrics")
    original = _sample() if arguments.image is None else read_image(arguments.image).pixels
    observed = _random_mask(original, arguments.missing, arguments.seed)
    start = time.perf_counter()
    passes = arguments.passes or 0
    result = inpaint(original.to(device), observed.to(device), passes=passes, progress=options.progress(arguments))
    seconds = time.perf_counter() - start
    after = result.image.cpu().clamp(0, 1)
    pictures = {
        "original.png": original,
        "mask.png": observed[None].to(original.dtype),
        "before.png": torch.where(observed, original, 0),
        "after.png": after,
    }
    others: dict[str, Tensor] = {}
    if passes != 0:
        others = _without_passes(original, observed, device)
        pictures["comparison.png"] = torch.cat([others["periodic kernel"], after, others["biharmonic"], original], 2)
    _write_together(arguments.output, pictures)
    warn_unless_converged(result)

    def quality(picture: Tensor) -> str:
        psnr = metrics.peak_signal_noise_ratio(original.numpy(), picture.numpy(), data_range=1)
        ssim = metrics.structural_similarity(original.numpy(), picture.numpy(), data_range=1, channel_axis=0)
        return f"PSNR {psnr:.2f} dB, SSIM {ssim:.4f}"

    print(f"{summary(observed, result, seconds, passes)}{solved(result)}")
    print(f"{quality(after)} over the whole image")
    for name, picture in others.items():
        print(f"{quality(picture)} of the {name}")
    print(f"wrote {', '.join(pictures)} into {arguments.output}")


def _without_passes(original: Tensor, observed: Tensor, device: torch.device) -> dict[str, Tensor]:
    """What the periodic kernel alone makes of the picture, and what biharmonic inpainting does."""
    periodic = inpaint(original.to(device), observed.to(device)).image.cpu().clamp(0, 1)
    known = torch.where(observed, original, 0).permute(1, 2, 0).numpy()
    filled = _scikit_image("restoration").inpaint_biharmonic(known, (~observed).numpy(), channel_axis=-1)
    biharmonic = torch.where(observed, original, torch.from_numpy(filled).permute(2, 0, 1).to(original.dtype))
    return {"periodic kernel": periodic, "biharmonic": biharmonic.clamp(0, 1)}


def _scikit_image(part: str) -> ModuleType:
    """Import a part of scikit-image, which not every installation has.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    import importlib

    try:
        return importlib.import_module(f"skimage.{part}")
    except ImportError as error:
        raise ImportError(f"the demo needs scikit-image: pip install 'torch-cntk[examples]' ({error})") from error


def _sample() -> Tensor:
    """The photograph of an astronaut that comes with scikit-image, [3, 512, 512] in [0, 1]."""
    values = torch.from_numpy(_scikit_image("data").astronaut().copy())
    return values.permute(2, 0, 1).to(torch.float32) / 255


def _random_mask(image: Tensor, missing: float, seed: int) -> Tensor:
    """Draw which pixels of [channels, H, W] are observed, all but this share of them.

    Raises:
        ValueError: the image is too small to be measured, the share leaves nothing to fill or to fill it from, or
            the seed is too large.
    """
    size = tuple(image.shape[1:])
    if min(size) < _SMALLEST:
        raise ValueError(f"expected an image of at least {_SMALLEST} x {_SMALLEST} pixels, got {size[1]} x {size[0]}")
    count = image[0].numel()
    removed = round(finite_number(missing, "--missing", minimum=0) * count)
    if not 0 < removed < count:
        raise ValueError(f"expected --missing between 0 and 1, so that pixels are left and missing, got {missing:g}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"expected --seed to fit into 64 bits, got {seed}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    observed = torch.ones(count, dtype=torch.bool)
    observed[order[:removed]] = False
    return observed.reshape(size)


def _check_folder(folder: Path) -> None:
    """Find out before long work whether files can be written into a folder, which need not exist yet.

    Raises:
        NotADirectoryError: there is a file of that name, or of a folder's above.
        PermissionError: nothing may be written there.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"expected a folder for the pictures, got {folder}: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"expected a folder that can be written to, got {existing}")


def _write_together(folder: Path, pictures: Mapping[str, Tensor]) -> None:
    """Write all pictures or none into a folder, which is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
        for name, pixels in pictures.items():
            write_image(Path(unfinished, name), pixels)
        for name in pictures:
            Path(unfinished, name).replace(folder / name)
