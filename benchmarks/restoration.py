"""Scratched, spotted, overwritten photographs, restored by us and by others. ``python -m benchmarks.restoration``.

Four photographs that ship with scikit-image get each of five damages (``benchmarks.damages``, seeds fixed), and masks
as a person draws them: grown by 0 to 3 pixels, with soft edges, of which every touched pixel is missing. All methods
get the same masks. PSNR and SSIM are those of the pixels that the damage itself covers, whatever the mask; seconds are
those of the processor.

    python -m benchmarks.restoration --size 256
    python -m benchmarks.restoration --size 256 --pictures docs/images

OpenCV's two methods need opencv-python-headless, two more opencv-contrib-python-headless; they are left out without.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from skimage.metrics import structural_similarity
from torch import Tensor

import torch_cntk as tc
from benchmarks.damages import DAMAGES, all_at_once, drawn_mask
from benchmarks.gsr import gsr
from benchmarks.others import Fill, biharmonic, idbp, opencv, patch_match, xphoto
from benchmarks.timing import print_table
from torch_cntk.images import write_image

Rows = dict[tuple[str, str], list[tuple[float, float, float]]]

NAMES = ("astronaut", "coffee", "chelsea", "rocket")
"""Colour photographs among the files of scikit-image's wheel: nothing is downloaded."""
GROWN = (0, 1, 2, 3)
_SLOW = ("IDBP, BM3D", "GSR")
"""Minutes a photograph: only where they are asked for."""
_LARGEST = 300_000
"""Bytes of a picture for the documentation."""


def photograph(name: str, size: int) -> Tensor:
    """The square in the middle, float32 [3, size, size] in [0, 1], of 8 bits."""
    whole = Image.fromarray(getattr(skimage.data, name)())
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    square = whole.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(square, dtype=np.float32) / 255).permute(2, 0, 1).contiguous()


def _kernel(image: Tensor, observed: Tensor) -> Tensor:
    return tc.inpaint(image, observed).image


def _passes(image: Tensor, observed: Tensor) -> Tensor:
    return tc.inpaint(image, observed, passes=2).image


def _chosen_passes(image: Tensor, observed: Tensor) -> Tensor:
    return tc.inpaint(image, observed, passes="auto").image


def methods() -> dict[str, Fill]:
    """Those that are installed."""
    found: dict[str, Fill | None] = {
        "CNTK": _kernel,
        "CNTK, 2 passes": _passes,
        "CNTK, auto": _chosen_passes,
        "biharmonic": biharmonic,
        "Telea": opencv("INPAINT_TELEA"),
        "Navier-Stokes": opencv("INPAINT_NS"),
        "FSR": xphoto("INPAINT_FSR_FAST"),
        "shift map": xphoto("INPAINT_SHIFTMAP"),
        "PatchMatch": patch_match(),
        "IDBP, BM3D": idbp(),
        "GSR": gsr,
    }
    return {name: fill for name, fill in found.items() if fill is not None}


def measured(filled: Tensor, truth: Tensor, missing: Tensor) -> tuple[float, float]:
    """PSNR in dB and SSIM of the missing pixels."""
    filled = filled.clamp(0, 1)
    error = float((filled - truth)[:, missing].square().mean())
    _, similar = structural_similarity(truth.numpy(), filled.numpy(), data_range=1, channel_axis=0, full=True)
    return -10 * math.log10(max(error, 1e-12)), float(similar[:, missing.numpy()].mean())


def run(size: int, seed: int, names: Sequence[str], chosen: Sequence[str]) -> Rows:
    """PSNR, SSIM and processor seconds of each photograph, by damage and method."""
    rows: Rows = defaultdict(list)
    fills = methods()
    for place, name in enumerate(NAMES):
        if name not in names:
            continue
        truth = photograph(name, size)
        for number, (kind, make) in enumerate(DAMAGES.items()):
            damage = make((size, size), seed + 10 * place + number)
            grown = GROWN[(place + number) % len(GROWN)]
            observed = drawn_mask(damage.missing, grown, seed) == 255
            for method in chosen:
                start = time.process_time()
                filled = fills[method](damage.on(truth), observed)
                seconds = time.process_time() - start
                rows[kind, method].append((*measured(filled, truth, damage.missing), seconds))
    return rows


def report(rows: Rows, names: Sequence[str]) -> None:
    """Print the means."""
    means = {key: np.mean(values, axis=0) for key, values in rows.items()}
    table = []
    for kind in DAMAGES:
        table.append([kind, *(f"{means[kind, name][0]:.2f} / {means[kind, name][1]:.3f}" for name in names)])
    every = {name: np.mean([means[kind, name] for kind in DAMAGES], axis=0) for name in names}
    table.append(["mean", *(f"{every[name][0]:.2f} / {every[name][1]:.3f}" for name in names)])
    table.append(["processor seconds", *(f"{every[name][2]:.2f}" for name in names)])
    print_table(["dB / SSIM in the holes", *names], table)


def pictures(folder: Path, size: int, seed: int) -> None:
    """Write a page of damaged photographs, masks and restored ones, and one photograph with all damages."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for place, (name, (kind, make)) in enumerate(zip((*NAMES, NAMES[0]), DAMAGES.items(), strict=False)):
        truth = photograph(name, size)
        damage = make((size, size), seed + 10 * place)
        rows.append(_row(truth, damage.on(truth), damage.missing, 1 + place % 3, seed))
        print(f"{kind}: {name}")
    _write(folder / "restoration.jpg", torch.cat(rows, 1))
    truth = damaged = photograph("astronaut", size)
    missing = torch.zeros(size, size, dtype=torch.bool)
    for damage in all_at_once((size, size), seed):
        damaged, missing = damage.on(damaged), missing | damage.missing
    _write(folder / "restored.jpg", _row(truth, damaged, missing, 1, seed))


def _row(truth: Tensor, damaged: Tensor, missing: Tensor, grown: int, seed: int) -> Tensor:
    """Damaged, mask, restored."""
    mask = drawn_mask(missing, grown, seed)
    filled = tc.inpaint(damaged, mask == 255, passes=2).image.clamp(0, 1)
    parts = [damaged, (mask / 255).expand_as(truth), filled]
    border = torch.ones(3, truth.shape[1], max(truth.shape[1] // 64, 2))
    return torch.cat([parts[0], border, parts[1], border, parts[2]], 2)


def _write(path: Path, picture: Tensor) -> None:
    for quality in range(90, 40, -5):
        write_image(path, picture, quality=quality)
        if path.stat().st_size < _LARGEST:
            return


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="of the photographs, in pixels (default: 512)")
    parser.add_argument("--seed", type=int, default=0, help="of the damages (default: 0)")
    parser.add_argument("--images", nargs="+", choices=NAMES, default=NAMES, help="which (default: all)")
    every = list(methods())
    usual = [name for name in every if name not in _SLOW]
    parser.add_argument(
        "--methods", nargs="+", choices=every, default=usual, help="default: all installed but slow ones"
    )
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write pictures there in place of a table")
    options = parser.parse_args(arguments)
    if options.pictures is not None:
        pictures(options.pictures, options.size, options.seed)
        return
    report(run(options.size, options.seed, options.images, options.methods), options.methods)


if __name__ == "__main__":
    main()
