"""Whether deviations are as large as errors: ``python -m benchmarks.coverage``.

Pixels of ten photographs, and entries of drug response data, are left out and filled; counted is how many lie within
the central intervals of a normal distribution around what is filled. A table of the 50, 90 and 95 % intervals;
``--plot FILE`` draws all of them, ``--picture FILE`` a hole with its standard deviations and two samples.

Photographs are crops from the middle, grey, so that every deviation is exact: those of the folder that TORCH_CNTK_DATA
names, and of scikit-image.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.color
import skimage.data
import torch
from torch import Tensor

import torch_cntk as tc
from benchmarks.images import NAMES, folder, square_hole
from benchmarks.learned import Kept
from benchmarks.timing import print_table
from torch_cntk.images.certainty import posterior_after, std_picture
from torch_cntk.matrices.drug_response import read_drug_response

LEVELS = (0.5, 0.9, 0.95)
SHOWN = (*(k / 20 for k in range(1, 20)), 0.98)
SAMPLES = ("camera", "astronaut", "chelsea", "coffee", "rocket", "moon", "coins", "page", "text", "clock")
"""Photographs of scikit-image that are on the disk when it is installed."""
SCALED = ", times the factor of left-out pixels"
GENES, HELD_OUT = 60, 0.1
"""Rows of the drug response matrix that are taken, and the share of its entries that is left out."""


def middle(image: Tensor, side: int) -> Tensor:
    """[H, W] of the middle."""
    top, left = ((n - side) // 2 for n in image.shape)
    return image[top : top + side, left : left + side]


def pictures(side: int, count: int) -> dict[str, Tensor]:
    """Name to [side, side] in [0, 1] in float64."""
    found: dict[str, Tensor] = {}
    given = folder()
    for name in NAMES if given is not None else ():
        assert given is not None
        found[name] = tc.images.read_image(given / f"{name}.png").pixels.double().mean(0)
    for name in SAMPLES:
        if len(found) >= count:
            break
        pixels = getattr(skimage.data, name)()
        grey = skimage.color.rgb2gray(pixels[..., :3]) if pixels.ndim == 3 else pixels / 255
        found[name] = torch.from_numpy(np.ascontiguousarray(grey, dtype=np.float64))
    return {name: middle(image, side) for name, image in list(found.items())[:count]}


def scores(truth: Tensor, found: Tensor, std: Tensor) -> Tensor:
    """Errors in deviations."""
    return ((truth - found) / std).abs().flatten()


def of_pictures(
    images: dict[str, Tensor], masks: Callable[[int], Tensor], *, scaled: bool = False, **options: Any
) -> tuple[Tensor, ...]:
    """Scores of the missing pixels of all photographs, and perhaps the same with the factor of left-out pixels."""
    plain, parts = [], []
    for number, grey in enumerate(images.values()):
        image, observed = grey[None], masks(number)
        result = tc.inpaint(image, observed, **options)
        std = posterior_after(image, observed, None, result, samples=1).std[0]
        missing = ~observed
        plain.append(scores(image[:, missing], result.image[:, missing], std[:, missing]))
        if scaled:
            parts.append(plain[-1] / tc.images.std_factor(image, observed, **options))
    return (torch.cat(plain), torch.cat(parts)) if scaled else (torch.cat(plain),)


def of_drugs(path: Path, seed: int) -> Tensor:
    """Scores of entries of log2 fold changes [genes, drugs in cell types] that were left out."""
    data = read_drug_response(path).fold_change()
    drugs, cells = data.observed.nonzero(as_tuple=True)
    table = data.tensor[drugs, cells].T[:: max(data.tensor.shape[2] // GENES, 1)][:GENES]
    features = torch.cat([torch.nn.functional.one_hot(index).double() for index in (drugs, cells)], 1)
    held = torch.rand(table.shape, generator=torch.Generator().manual_seed(seed)) < HELD_OUT
    model = tc.MatrixCompletion(hidden_layers=1).fit(torch.where(held, torch.nan, table), features=features)
    found, std = model.predict(return_std=True)
    return scores(table[held], found[held], std[held])


def share(found: Tensor, level: float) -> float:
    """Of the scores within the central interval of a level."""
    deviations = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
    return float((found <= deviations).double().mean())


def large_hole(side: int, seed: int) -> Tensor:
    """[side, side], where a third of both sides is missing, with known pixels on all sides."""
    width = side // 3
    top, left = torch.randint(2, side - width - 1, (2,), generator=torch.Generator().manual_seed(seed)).tolist()
    observed = torch.ones(side, side, dtype=torch.bool)
    observed[top : top + width, left : left + width] = False
    return observed


def as_lists(work: Callable[[], tuple[Tensor, ...]]) -> tuple[list[list[float]], float]:
    """What a file can keep."""
    return [part.tolist() for part in work()], 0.0


def measured(side: int, count: int, drugs: Path, seed: int, kept: Kept) -> dict[str, Tensor]:
    """Scores by what was left out."""
    images = pictures(side, count)

    def scattered(number: int) -> Tensor:
        return torch.rand(side, side, generator=torch.Generator().manual_seed(seed + number)) < 0.5

    def holes(number: int) -> Tensor:
        return square_hole((side, side), seed + number)

    def large(number: int) -> Tensor:
        return large_hole(side, seed + number)

    works: dict[str, Callable[[], tuple[Tensor, ...]]] = {
        "one hole in each photograph": partial(of_pictures, images, holes, scaled=True),
        "one hole of a third of the side": partial(of_pictures, images, large, scaled=True),
        f"half of the pixels of {len(images)} photographs": partial(of_pictures, images, scattered),
        "the same after two content-aware passes": partial(of_pictures, images, scattered, passes=2),
    }
    if drugs.is_file():
        works["a tenth of the drug response"] = lambda: (of_drugs(drugs, seed),)
    patches = tc.images.PatchFill(blend=1)
    works["one hole of a third of the side, filled by patches"] = partial(
        of_pictures, images, large, scaled=True, passes=patches
    )
    found: dict[str, Tensor] = {}
    for name, work in works.items():
        every, _ = kept.of((name, str(side), str(seed)), partial(as_lists, work))
        for more, values in zip(("", SCALED), every, strict=False):
            found[name + more] = torch.tensor(values, dtype=torch.float64)
    return found


def plot(found: dict[str, Tensor], path: Path) -> None:
    """Shares against levels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for name, values in found.items():
        style = "dotted" if name.endswith(SCALED) else "solid"
        axes.plot(SHOWN, [share(values, level) for level in SHOWN], marker=".", label=name, linestyle=style)
    axes.set(xlabel="level of the interval", ylabel="share of left-out values within it", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", fontsize="small")
    figure.savefig(path, dpi=110)


def picture(path: Path, side: int = 112, enlarged: int = 2) -> None:
    """A photograph with a hole, how it is filled, its standard deviations, and two samples."""
    pixels = torch.from_numpy(skimage.data.chelsea().copy()).permute(2, 0, 1).double() / 255
    image = pixels[:, 80 : 80 + side, 110 : 110 + side]
    observed = torch.ones(side, side, dtype=torch.bool)
    observed[44:60, 34:50] = False
    # As many draws as there are missing pixels, so that deviations are exact.
    result = tc.inpaint(image, observed, samples=86)
    assert result.std is not None
    assert result.samples is not None
    spread, largest = std_picture(result.std, image)
    shown = [image * observed, result.image, spread, *result.samples[:2]]
    row = torch.cat([torch.nn.functional.pad(one.clamp(0, 1), (0, 4), value=1.0) for one in shown], 2)[..., :-4]
    tc.images.write_image(path, row.repeat_interleave(enlarged, 1).repeat_interleave(enlarged, 2).float(), quality=90)
    print(f"{path}: deviations up to {255 * largest:.0f} of 255, {result.std_how}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=48, help="of the photographs' crops (default: %(default)s)")
    parser.add_argument("--count", type=int, default=10, help="photographs (default: %(default)s)")
    parser.add_argument("--drugs", type=Path, default=Path("../shared/data/drug/cmap_l1000_20x24x978.npz"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, metavar="FILE", help="keep scores here, and go on where a run ended")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--picture", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = measured(options.side, options.count, options.drugs, options.seed, Kept(options.results))
    rows = [
        [name, f"{len(values):,}", *(f"{100 * share(values, level):.0f}" for level in LEVELS)]
        for name, values in found.items()
    ]
    print_table(["left out", "values", *(f"within the {100 * level:.0f} % interval, %" for level in LEVELS)], rows)
    if options.plot is not None:
        plot(found, options.plot)
    if options.picture is not None:
        picture(options.picture)


if __name__ == "__main__":
    main()
