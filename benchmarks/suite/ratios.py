"""Each row is a ratio of two things that are timed in turns in one run, or a difference in dB: machines cancel out.

`asv run --python=same` measures them, `asv publish` draws them over commits; `python -m benchmarks.suite.ratios` prints
them without asv.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from skimage import data
from torch import Tensor

import torch_cntk as tc
from benchmarks.others import biharmonic
from benchmarks.timing import medians

UNITS = {
    "track_default_fill": "of biharmonic's time",
    "track_default_quality": "dB above biharmonic",
    "track_guided_quality": "dB above biharmonic",
    "track_dense_kernel": "passes of atan2 over its numbers",
    "track_gram_matrix": "passes of atan2 over its numbers",
    "track_gram_product": "of torch.mm's time",
    "track_periodic_product": "copies of the image",
    "track_shipped_kernel": "of the time to compute it",
}


def _photograph(side: int = 128) -> tuple[Tensor, Tensor]:
    image = torch.from_numpy(data.camera()[100 : 100 + side, 150 : 150 + side].copy())[None] / 255
    return image, torch.rand(side, side, generator=torch.Generator().manual_seed(0)) < 0.5


def _ratio(work: Callable[[], object], beside: Callable[[], object]) -> float:
    first, second = medians([work, beside])
    return first / second


def _atan2(numbers: int) -> Callable[[], object]:
    """One pass of atan2 over so many numbers, in pieces that fit the cache."""
    pieces = [torch.rand(1 << 15, dtype=torch.float64) for _ in range(3)]

    def work() -> None:
        for _ in range(max(numbers >> 15, 1)):
            torch.atan2(pieces[0], pieces[1], out=pieces[2])

    return work


def track_default_fill() -> float:
    image, observed = _photograph()
    return _ratio(lambda: tc.inpaint(image, observed), lambda: biharmonic(image, observed))


def _gain(filled: Tensor) -> float:
    image, observed = _photograph()
    other = biharmonic(image, observed)
    errors = [(result - image)[:, ~observed].square().mean() for result in (other, filled)]
    return float(10 * torch.log10(errors[0] / errors[1]))


def track_default_quality() -> float:
    return _gain(tc.inpaint(*_photograph()).image)


def track_guided_quality() -> float:
    return _gain(tc.inpaint(*_photograph(), passes=3).image)


def track_dense_kernel() -> float:
    depth, side = 3, 24
    layers = [layer for k in range(depth) for layer in (tc.Conv2d(3 if k == 0 else 8, 8, 3), tc.ReLU())]
    net, prior = tc.Sequential(*layers), tc.priors.Tensor(torch.randn(3, side, side, dtype=torch.float64))
    return _ratio(lambda: net.kernel(prior), _atan2(depth * side**4))


def track_gram_matrix() -> float:
    depth, count, side = 3, 6, 12
    layers = [layer for k in range(depth) for layer in (tc.Conv2d(3 if k == 0 else 8, 8, 3), tc.ReLU())]
    net = tc.Sequential(*layers, tc.GlobalAvgPool())
    images = torch.randn(count, 3, side, side, dtype=torch.float64)
    return _ratio(lambda: net.gram(images), _atan2(depth * side**4 * count * (count + 1) // 2))


def track_gram_product() -> float:
    net = tc.Sequential(tc.Linear(64, 8), tc.ReLU(), tc.Linear(8, 1))
    x, w = torch.randn(1500, 64, dtype=torch.float64), torch.randn(1500, 8, dtype=torch.float64)
    operator = net.gram_operator(x)
    return _ratio(lambda: operator @ w.T, lambda: torch.mm(x @ x.T, w))


def track_periodic_product() -> float:
    kernel = tc.load_kernel("uniform-fine-3x128-leaky0.3")
    operator, w = kernel.operator((256, 256)), torch.randn(1, 256, 256)
    return _ratio(lambda: operator @ w, w.clone)


def track_shipped_kernel() -> float:
    recipe = tc.zoo.catalogue.recipe("uniform-fine-5x128-leaky0.3")
    assert recipe is not None
    return _ratio(
        lambda: tc.load_kernel(recipe.name),
        lambda: recipe.blank.kernel(recipe.prior, recipe.size, dtype=torch.float32),
    )


for _name, _unit in UNITS.items():
    globals()[_name].unit = _unit


def main() -> None:
    for name, unit in UNITS.items():
        print(f"{name.removeprefix('track_')}: {globals()[name]():.3g} {unit}")


if __name__ == "__main__":
    main()
