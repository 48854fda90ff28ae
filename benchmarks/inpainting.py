"""Half of the pixels are missing: the exact CNTK against biharmonic inpainting. ``python -m benchmarks.inpainting``.

Set TORCH_CNTK_DATA to a folder with ``images/`` for the eleven images of the deep image prior's table; without it two
sample photographs are used. Whole-image PSNR with the observed pixels restored.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor

import torch_cntk as tc
from benchmarks.images import grey_images, psnr
from benchmarks.others import biharmonic
from benchmarks.timing import medians, print_table, seconds_text
from torch_cntk.images import random_mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missing", type=float, default=0.5, help="share of the pixels (default 0.5)")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="relative residual (default 1e-4)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", nargs="*", help="names (default: all)")
    options = parser.parse_args()

    kernel = tc.default_network(3).kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float32)
    solver = tc.ConjugateGradient(tolerance=options.tolerance)
    rows, quality = [], []
    for name, image in grey_images().items():
        if options.images and name not in options.images:
            continue
        observed = random_mask(tuple(image.shape[1:]), options.missing)

        def ours(image: Tensor = image, observed: Tensor = observed) -> tc.InpaintingResult:
            return tc.inpaint(image, observed, kernel, solver=solver)

        seconds, theirs = medians([ours, partial(biharmonic, image, observed)], options.repeats)
        result = ours()
        quality.append((psnr(result.image, image), psnr(biharmonic(image, observed), image)))
        rows.append(
            (
                name,
                f"{image.shape[1]} x {image.shape[2]}",
                seconds_text(seconds),
                seconds_text(theirs),
                f"{theirs / seconds:.2f}",
                str(result.iterations),
                f"{result.residual:.1e}",
                f"{quality[-1][0]:.2f}",
                f"{quality[-1][1]:.2f}",
            )
        )
    means = [sum(column) / len(column) for column in zip(*quality, strict=True)]
    rows.append(("mean", "", "", "", "", "", "", f"{means[0]:.2f}", f"{means[1]:.2f}"))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {options.missing:.0%} of the pixels missing")
    header = ("image", "size", "CNTK", "biharmonic", "ratio", "iterations", "residual", "PSNR CNTK", "PSNR biharmonic")
    print_table(header, rows)


if __name__ == "__main__":
    main()
