"""Pixels missing at random (the paper's Fig. S6). ``python -m benchmarks.reconstruction``.

The eleven images of the deep image prior's table, with ``--images FOLDER``, or TORCH_CNTK_DATA naming the folder above;
without, sample photographs of scikit-image. The finite network is trained on request; to keep that short, all methods
may be run on the middle of the images:

    python -m benchmarks.reconstruction --missing 0.5 --seeds 0 1 2
    python -m benchmarks.reconstruction --missing 0.75 0.9
    python -m benchmarks.reconstruction --crop 128
    python -m benchmarks.reconstruction --crop 128 --methods finite --filters 32 --minutes 5
    python -m benchmarks.reconstruction --crop 128 --filters 32 --report

Rows are merged into results/reconstruction/rows.jsonl.
"""

from __future__ import annotations

import argparse

from benchmarks import experiment
from benchmarks.experiment import Published, Task, reduced
from benchmarks.images import PHOTOGRAPHS, folder, grey_images, photographs
from torch_cntk.images import random_mask

DEEP_IMAGE_PRIOR = Published(
    "deep image prior, published",
    "50 % missing",
    {
        "barbara": 32.22,
        "boat": 33.06,
        "house": 39.16,
        "Lena512": 36.16,
        "peppers256": 33.05,
        "Cameraman256": 29.8,
        "couple": 32.52,
        "fingerprint": 32.84,
        "hill": 32.77,
        "man": 32.20,
        "montage": 34.54,
    },
    "Deep image prior: as published (Ulyanov, Vedaldi & Lempitsky, 2018), not measured here; its protocol differs: "
    "other masks, 11,000 steps of training on a GPU.",
)


def tasks(options: argparse.Namespace) -> list[Task]:
    """Each image, share of missing pixels and seed."""
    images = grey_images(options.images) if options.images or folder() else photographs(PHOTOGRAPHS)
    if options.fast:
        images = {"coffee": photographs()["coffee"][:1]}
    found = []
    for missing in options.missing:
        for name, whole in images.items():
            image, _ = reduced(whole, None, options)
            for seed in options.seeds:
                observed = random_mask(tuple(image.shape[1:]), missing, seed)
                found.append(Task(name, f"{missing * 100:g} % missing", seed, image, observed))
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = experiment.parser(__doc__, "reconstruction", network="uniform-skip-5x128-leaky0.2", ridge=1e-4)
    parser.add_argument("--missing", type=float, nargs="+", default=[0.5], help="shares of the pixels (default 0.5)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the masks (default 0)")
    experiment.main("reconstruction", parser, arguments, tasks, DEEP_IMAGE_PRIOR)


if __name__ == "__main__":
    main()
