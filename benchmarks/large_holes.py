"""Large holes (the paper's Fig. 3, S4 and S5). ``python -m benchmarks.large_holes``.

kate, library and vase with their masks, and the other images with made-up ones: a hole of about a sixth of the image,
and strokes; and eight photographs of scikit-image with two holes each, on request. A second table measures the missing
pixels alone: PSNR, SSIM, similarity of gradients, and the energy of fine detail relative to the truth's. With
``--images FOLDER``, or TORCH_CNTK_DATA naming the folder above; without, sample photographs of scikit-image. The finite
network is trained on request, for so many minutes an image:

    python -m benchmarks.large_holes
    python -m benchmarks.large_holes --shrink 2
    python -m benchmarks.large_holes --kinds 'two holes' --crop 192
    python -m benchmarks.large_holes --shrink 2 --methods finite --minutes 15
    python -m benchmarks.large_holes --shrink 2 --report

Rows are merged into results/large_holes/rows.jsonl.
"""

from __future__ import annotations

import argparse

from benchmarks import experiment
from benchmarks.experiment import Task, reduced
from benchmarks.images import (
    PHOTOGRAPHS,
    eight_photographs,
    folder,
    grey_images,
    large_holes,
    photographs,
    square_hole,
    strokes,
    two_holes,
)


def tasks(options: argparse.Namespace) -> list[Task]:
    """All of them; an image whose hole is not in the part that is kept is left out."""
    found = []
    others = grey_images(options.images) if options.images or folder() else photographs(PHOTOGRAPHS)
    if options.fast:
        others = {"coffee": photographs()["coffee"]}
    elif options.images or folder():
        for name, (image, observed) in large_holes(options.images).items():
            image, mask = reduced(image, observed, options)
            assert mask is not None
            if not bool(mask.all()):
                found.append(Task(name, "its mask", None, image, mask))
    made = (("hole", square_hole, others), ("strokes", strokes, others), ("two holes", two_holes, eight_photographs()))
    for kind, make, images in made:
        for place, (name, whole) in enumerate(images.items()):
            image, _ = reduced(whole, None, options)
            size = (image.shape[1], image.shape[2])
            # Each image has its own place of the hole.
            seed = 100 * options.seed + place
            found.append(Task(name, kind, seed, image, make(size, seed)))
    return [task for task in found if task.kind in options.kinds]


KINDS = ("its mask", "hole", "strokes", "two holes")


def main(arguments: list[str] | None = None) -> None:
    parser = experiment.parser(__doc__, "large_holes", network="uniform-6x128-leaky0.1")
    parser.add_argument("--seed", type=int, default=0, help="of the made-up masks")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS[:3]), help="of masks (default: the first three)"
    )
    experiment.main("large_holes", parser, arguments, tasks)


if __name__ == "__main__":
    main()
