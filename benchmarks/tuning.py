"""Options by gradient beside a grid: left-out pixels of photographs and held-out rows of a table.

``python -m benchmarks.tuning``. Half of the pixels of scikit-image's photographs, made 64 pixels wide, are filled by a
small network: as it is, with the slope, the prior's lower bound and the ridge of a grid, and with those of ``tc.tune``.
Grid and gradient look at the same pixels by the same objective, on one thread; the grid needs no gradients, and its
kernels are computed without. The table is scikit-learn's diabetes, half of which is held out, on a network with biases.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import torch_cntk as tc
from benchmarks.timing import print_table, seconds_text
from torch_cntk.tuning.data import Data, Pixels, Rows
from torch_cntk.tuning.objectives import Objective, score

SLOPES = (-1.0, -0.5, 0.0, 0.1, 0.3, 0.6)
LOWS = (-1.0, -0.3, 0.0, 0.5)
BIASES = (0.1, 0.3, 1.0, 3.0)
RIDGES = tuple(10.0 ** (k / 2) for k in range(-10, 1))
"""Of the grids."""
START = 1e-3
"""The ridge of what is not tuned, and where the search begins."""


def photographs(names: list[str], side: int) -> Iterator[tuple[str, Tensor]]:
    """Square photographs [channels, side, side] in float64, by the means of blocks."""
    import skimage.data

    for name in names:
        pixels = torch.as_tensor(getattr(skimage.data, name)(), dtype=torch.float64) / 255
        image = pixels[..., None] if pixels.ndim == 2 else pixels
        block = min(image.shape[:2]) // side
        yield name, torch.nn.functional.avg_pool2d(image[: block * side, : block * side].movedim(-1, 0), block)


def of_pixels(slope: float, bias: float, low: float) -> tuple[tc.Layer, tc.priors.Prior]:
    def conv(layer: Callable[..., tc.Layer], inputs: int) -> tc.Layer:
        return layer(inputs, 8, 3, bias=True, bias_std=bias)

    body = [conv(tc.StridedConv2d, 2), tc.LeakyReLU(slope), tc.NearestUp(2), conv(tc.Conv2d, 8), tc.LeakyReLU(slope)]
    return tc.Sequential(*body, conv(tc.Conv2d, 8)), tc.priors.Uniform(low, 1)


def of_rows(slope: float, bias: float) -> tuple[tc.Layer, None]:
    def linear(inputs: int, outputs: int) -> tc.Layer:
        return tc.Linear(inputs, outputs, bias=True, bias_std=bias)

    return tc.Sequential(linear(10, 8), tc.LeakyReLU(slope), linear(8, 8), tc.LeakyReLU(slope), linear(8, 1)), None


def best_of_grid(
    data: Data, objective: Objective, make: Callable[..., Any], *numbers: tuple[float, ...]
) -> tuple[tuple[Any, ...], int]:
    """Network, prior and ridge of the largest objective, and how many there were."""
    best, found, count = -math.inf, (), 0
    with torch.no_grad():
        for options in itertools.product(*numbers):
            parts = list(data.parts(make(*options)[0], make(*options)[1], "ntk"))
            for ridge in RIDGES:
                count += 1
                value = sum(float(score(k, y, ridge, objective)) * len(k) for k, y in parts)
                if value > best:
                    best, found = value, (*make(*options), ridge)
    return found, count


def psnr(image: Tensor, observed: Tensor, net: tc.Layer, prior: tc.priors.Prior, ridge: float) -> float:
    filled = tc.inpaint(image, observed, net.kernel(prior), ridge=ridge).image
    return float(-10 * torch.log10((filled - image)[:, ~observed].square().mean()))


def pixels(names: list[str], side: int, points: int, objective: Objective) -> None:
    rows: list[list[object]] = []
    for name, image in photographs(names, side):
        observed = torch.rand(side, side, generator=torch.Generator().manual_seed(0)) < 0.5
        net, prior = of_pixels(0.1, 1.0, 0.0)
        start = time.process_time()
        data = Pixels.of(net, prior, image, observed, points, torch.Generator().manual_seed(0))
        grid, count = best_of_grid(data, objective, of_pixels, SLOPES, BIASES, LOWS)
        middle = time.process_time()
        tuned = tc.tune(net, prior, image, observed, points=points, objective=objective, ridge=START)
        end = time.process_time()
        assert tuned.prior is not None
        values = [
            psnr(image, observed, net, prior, START),
            psnr(image, observed, *grid),
            psnr(image, observed, tuned.network, tuned.prior, tuned.ridge),
        ]
        rows.append(
            [
                name,
                *(f"{value:.2f}" for value in values),
                f"{seconds_text(middle - start)}, {count} points",
                f"{seconds_text(end - middle)}, {len(tuned.trace) - 1} steps",
            ]
        )
    print_table(["photograph", "as it is, dB", "grid, dB", "tuned, dB", "time of the grid", "of tune"], rows)


def table(objective: Objective) -> None:
    from sklearn.datasets import load_diabetes

    x, y = (torch.as_tensor(part) for part in load_diabetes(return_X_y=True))
    x = x / x.std(0)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    known, held = order[: len(x) // 2], order[len(x) // 2 :]

    def error(net: tc.Layer, ridge: float) -> float:
        predicted = tc.KernelRegressor(net, ridge=ridge).fit(x[known], y[known]).predict(x[held])
        return float((predicted - y[held]).square().mean().sqrt())

    net, _ = of_rows(0.1, 1.0)
    start = time.process_time()
    data = Rows.of(x[known], y[known], 1000, torch.Generator().manual_seed(0))
    grid, count = best_of_grid(data, objective, of_rows, SLOPES, BIASES)
    middle = time.process_time()
    tuned = tc.tune(net, x=x[known], y=y[known], objective=objective, ridge=START)
    end = time.process_time()
    values = [
        float((y[held] - y[known].mean()).square().mean().sqrt()),
        error(net, START),
        error(grid[0], grid[2]),
        error(tuned.network, tuned.ridge),
    ]
    row: list[object] = [f"{value:.1f}" for value in values]
    row += [
        f"{seconds_text(middle - start)}, {count} points",
        f"{seconds_text(end - middle)}, {len(tuned.trace) - 1} steps",
    ]
    print("\nDiabetes, root of the mean squared error of the half that is held out:\n")
    print_table(["mean", "as it is", "grid", "tuned", "time of the grid", "of tune"], [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", nargs="*", default=["camera", "astronaut", "coffee", "moon"])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--points", type=int, default=800, help="pixels that are looked at")
    parser.add_argument("--objective", choices=["left-out", "likelihood", "error"], default="error")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pixels(arguments.photographs, arguments.side, arguments.points, arguments.objective)
    table(arguments.objective)


if __name__ == "__main__":
    main()
