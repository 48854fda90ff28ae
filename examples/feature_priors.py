"""What the feature prior does: heat maps of kernels, and a prior by which networks translate pixels.

    python examples/feature_priors.py -o feature_priors
    python examples/feature_priors.py photo.png --levels 5 --padding zeros -o zeros

Writes into a folder: ``heatmaps.png``, which pixels fill a given one under three priors, by number of levels;
``translation.png``, a photograph with a hole, filled under the identity prior and under independent pixels by the CNTK
and by a trained network of the same layers; and ``translation.csv``, where the content of the hole comes from.

The identity prior is the same after a step along the diagonal. A network that halves the resolution s times commutes
with translations by p = 2^s pixels, so that whatever its weights it gives pixels x and x + (p, p) the same value: holes
are filled with translated copies. Without circular padding that is not so. Needs matplotlib and scikit-image.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

import torch_cntk as tc
from torch_cntk._internal.files import writing
from torch_cntk.images.files import read_image
from torch_cntk.operators.base import DenseOperator

PRIORS = {"uniform": tc.priors.Uniform(0, 0.1), "identity": tc.priors.Identity(), "meshgrid": tc.priors.Meshgrid()}
SLOPE = 0.1


Padding = Literal["circular", "zeros"]


def network(levels: int, width: int = 1, padding: Padding = "circular", inputs: int = 1, channels: int = 3) -> tc.Layer:
    """Down: a strided convolution and another one a level; up: nearest upsampling, convolutions of width 3 and 1."""
    layers: list[tc.Layer] = []
    for level in range(levels):
        layers += [tc.StridedConv2d(width if level else inputs, width, 3, padding_mode=padding), tc.LeakyReLU(SLOPE)]
        layers += [tc.Conv2d(width, width, 3, padding_mode=padding), tc.LeakyReLU(SLOPE)]
    for _ in range(levels):
        layers += [tc.NearestUp(2), tc.Conv2d(width, width, 3, padding_mode=padding), tc.LeakyReLU(SLOPE)]
        layers += [tc.Conv2d(width, width, 1), tc.LeakyReLU(SLOPE)]
    return tc.Sequential(*layers, tc.Conv2d(width, channels, 1))


def heatmaps(size: int, most_levels: int, path: Path) -> None:
    from matplotlib.figure import Figure

    pixel = (size * 5 // 8, size * 5 // 16)
    figure = Figure(figsize=(2.6 * most_levels, 2.5 * len(PRIORS)), layout="constrained")
    rows = figure.subplots(len(PRIORS), most_levels, squeeze=False)
    todo = [(name, level) for name in PRIORS for level in range(1, most_levels + 1)]
    for name, level in tqdm(todo, desc="heat maps", unit="kernel"):
        kernel = network(level, inputs=PRIORS[name].channels(2) or 1).kernel(PRIORS[name], size=(size, size))
        axes = tc.plotting.heatmap(kernel, pixel, (size, size), axes=rows[list(PRIORS).index(name)][level - 1])
        axes.set_title(f"{name}, {level} level{'s' if level > 1 else ''}", fontsize=9)
        axes.set_axis_off()
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=75)


@dataclass(frozen=True)
class Row:
    """Where a hole's content comes from.

    Attributes:
        prior: of the input.
        method: CNTK or finite network.
        levels: of the network.
        padding: of its convolutions.
        down: rows from the hole to where the photograph is most like what fills it.
        right: columns.
        alike: their correlation; of colours less their means.
        alike_truth: correlation with what was in the hole.
        asymmetry: largest difference between the method's pixels x and x + (p, p), in grey levels of 1.
        psnr_hole: in dB, within the hole.
        psnr: over the whole photograph, with the observed pixels restored.
        seconds: wall time.
    """

    prior: str
    method: str
    levels: int
    padding: Padding
    down: int
    right: int
    alike: float
    alike_truth: float
    asymmetry: float
    psnr_hole: float
    psnr: float
    seconds: float


def fold(images: Tensor, period: int) -> Tensor:
    """[..., n, n] to [n / period, ..., period, n]: pixels that differ by steps of (period, period), side by side."""
    return torch.stack([strip.roll(-k * period, -1) for k, strip in enumerate(torch.split(images, period, -2))])


def unfold(strip: Tensor, period: int, copies: int) -> Tensor:
    """[..., period, n] to [..., n, n]: the same in all copies."""
    return torch.cat([strip.roll(k * period, -1) for k in range(copies)], -2)


def cntk(net: tc.Layer, prior: str, image: Tensor, observed: Tensor, period: int, circular: bool) -> Tensor:
    """What kernel regression makes of all pixels, the observed ones included.

    Under the identity prior and circular padding K is singular: x and x + (p, p) are the same to it. Without a ridge,
    regression on all pixels is regression on the means over those that are the same, of which the first p rows have
    one each.
    """
    size = tuple(image.shape[1:])
    kernel = net.kernel(PRIORS[prior], size=size, dtype=torch.float32)
    targets, known = torch.where(observed, image, 0), observed
    operator = kernel.operator(size)
    if prior == "identity" and circular:
        count = fold(observed.float(), period).sum(0)
        targets, known = fold(targets, period).sum(0) / count.clamp_min(1), count > 0
        operator = DenseOperator(kernel.dense()[:period, :, :period].contiguous())
    regression = tc.Regression(operator, known, ridge=1e-4)
    solver = tc.ConjugateGradient() if prior == "uniform" else tc.Direct()
    output = (operator @ solver.factorise(regression).solve(targets, progress=True).weights).float()
    return output if output.shape == image.shape else unfold(output, period, size[0] // period)


def trained(net: tc.Layer, prior: str, image: Tensor, observed: Tensor, options: argparse.Namespace) -> Tensor:
    """As the deep image prior is trained, for so many minutes."""
    torch.manual_seed(options.seed)
    done = tc.train(
        net,
        image,
        observed,
        prior=PRIORS[prior],
        steps=options.steps,
        lr=0.01,
        batch_norm=True,
        parameterisation="standard",
        seed=options.seed,
        callback=lambda step: step.seconds > 60 * options.minutes,
        progress=True,
    )
    print(f"{prior}: {len(done.losses)} steps, loss {float(done.losses[-1]):.5f}")
    return done.output


def correlation(first: Tensor, second: Tensor) -> float:
    """Of two images [channels, H, W], without the means of their channels."""
    first, second = (part - part.mean((1, 2), keepdim=True) for part in (first, second))
    return float((first * second).sum() / (first.norm() * second.norm()).clamp_min(1e-12))


def source(content: Tensor, image: Tensor, observed: Tensor, corner: tuple[int, int]) -> tuple[int, int, float]:
    """The translation to where the observed photograph is most like ``content`` of the hole, around its edges as well.

    Returns:
        rows, columns (of the smallest size, on the torus) and the correlation.
    """
    channels, side, _ = content.shape
    size = image.shape[1]
    around = torch.nn.functional.pad(torch.cat([image, observed[None].float()])[None], (0, side - 1) * 2, "circular")
    pixels, known = around[:, :-1].double(), around[:, -1:].double()
    template = (content - content.mean((1, 2), keepdim=True)).double()
    box = torch.ones(channels, 1, side, side, dtype=torch.float64)
    means = torch.nn.functional.conv2d(pixels, box, groups=channels) / side**2
    squares = torch.nn.functional.conv2d(pixels.square(), box, groups=channels) - side**2 * means.square()
    products = torch.nn.functional.conv2d(pixels, template[None])[0, 0]
    alike = products / (template.norm() * squares.sum(1)[0].clamp_min(1e-9).sqrt()).clamp_min(1e-12)
    complete = torch.nn.functional.conv2d(known, box[:1])[0, 0] > side**2 - 0.5
    place = int(torch.where(complete, alike, -1).argmax())
    shift = [(x - start) % size for x, start in zip(divmod(place, size), corner, strict=True)]
    down, right = (s - size if s > size // 2 else s for s in shift)
    return down, right, float(alike.flatten()[place])


def psnr(image: Tensor, truth: Tensor) -> float:
    return -10 * math.log10(float((image.clamp(0, 1) - truth).square().mean()))


def photograph(options: argparse.Namespace) -> Tensor:
    """[3, size, size]: the middle of a photograph, reduced by the largest whole factor."""
    if options.image is None:
        import skimage.data

        image = torch.from_numpy(skimage.data.coffee().copy()).permute(2, 0, 1) / 255
    else:
        image = read_image(options.image).pixels
    factor = max(min(image.shape[1:]) // options.size, 1)
    image = torch.nn.functional.avg_pool2d(image[None], factor)[0]
    top, left = ((n - options.size) // 2 for n in image.shape[1:])
    return image[:, top : top + options.size, left : left + options.size].expand(3, -1, -1)


def translation(options: argparse.Namespace) -> list[Row]:
    from matplotlib.figure import Figure

    image, period = photograph(options), 2**options.levels
    side, corner = options.size // 4, (options.size * 3 // 16, options.size // 4)
    hole = (slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side))
    observed = torch.ones(image.shape[1:], dtype=torch.bool)
    observed[hole] = False
    rows, pictures = [], {"hole": torch.where(observed, image, 1)}
    for prior in ("identity", "uniform"):
        for method in ("CNTK", "finite"):
            start = time.perf_counter()
            net = network(options.levels, options.width if method == "finite" else 1, options.padding)
            if method == "CNTK":
                output = cntk(net, prior, image, observed, period, options.padding == "circular")
            else:
                output = trained(net, prior, image, observed, options)
            filled = torch.where(observed, image, output)
            rows.append(
                Row(
                    prior,
                    method,
                    options.levels,
                    options.padding,
                    *source(output[:, *hole], image, observed, corner),
                    correlation(output[:, *hole], image[:, *hole]),
                    float((output - output.roll((period, period), (1, 2))).abs().max()),
                    psnr(output[:, *hole], image[:, *hole]),
                    psnr(filled, image),
                    time.perf_counter() - start,
                )
            )
            pictures[f"{prior}, {method}: all pixels"] = output
            pictures[f"{prior}, {method}: filled"] = filled
    pictures["truth"] = image
    figure = Figure(figsize=(2.4 * 5, 2.6 * 2), layout="constrained")
    places = iter(figure.subplots(2, 5).flat)
    for name, picture in pictures.items():
        axes = next(places)
        axes.imshow(picture.clamp(0, 1).permute(1, 2, 0).numpy())
        axes.set_title(name, fontsize=8)
        axes.set_axis_off()
    with writing(options.output / "translation.png") as temporary:
        figure.savefig(temporary, dpi=75)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path, help="PNG or JPEG (default: a sample photograph)")
    parser.add_argument("-o", "--output", type=Path, default=Path("feature_priors"), help="folder of what is written")
    parser.add_argument("--size", type=int, default=128, help="side of the photograph, a multiple of 2^levels")
    parser.add_argument("--levels", type=int, default=6, help="of the networks that fill the hole")
    parser.add_argument("--padding", choices=("circular", "zeros"), default="circular")
    parser.add_argument("--heatmap-size", type=int, default=64, help="side of the heat maps")
    parser.add_argument("--heatmap-levels", type=int, default=5, help="they have up to so many levels")
    parser.add_argument("--width", type=int, default=32, help="filters of the trained networks")
    parser.add_argument("--minutes", type=float, default=4.0, help="to train each network at most")
    parser.add_argument("--steps", type=int, default=3000, help="to train each network at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fast", action="store_true", help="small and short: to see that it works")
    options = parser.parse_args()
    if options.fast:
        options.size, options.levels, options.heatmap_size, options.heatmap_levels = 32, 4, 16, 2
        options.width, options.steps = 16, 150
    if options.size % 2**options.levels:
        parser.error(f"expected a size that is a multiple of {2**options.levels} for {options.levels} levels")

    options.output.mkdir(parents=True, exist_ok=True)
    heatmaps(options.heatmap_size, options.heatmap_levels, options.output / "heatmaps.png")
    rows = translation(options)
    with writing(options.output / "translation.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    print("where the content of the hole comes from (rows, columns), and how like it is to that and to the truth:")
    for row in rows:
        print(
            f"{row.prior:9s} {row.method:7s} ({row.down:4d}, {row.right:4d})  {row.alike:6.3f} {row.alike_truth:6.3f}  "
            f"hole {row.psnr_hole:5.2f} dB, all {row.psnr:5.2f} dB, asymmetry {row.asymmetry:.1e}, {row.seconds:.0f} s"
        )
    kernel, finite = ((row.down, row.right) for row in rows if row.prior == "identity")
    print(f"identity: CNTK and trained network take it from {'the same place' if kernel == finite else 'two places'}")


if __name__ == "__main__":
    main()
