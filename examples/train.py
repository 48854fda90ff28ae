"""One network, trained and infinitely wide: PSNR and seconds, side by side.

    python examples/train.py photo.png --missing 0.5 --crop 128 --minutes 6
    python examples/train.py photo.png --mask mask.png --shrink 2 --minutes 6

Trains a network of finite width on the observed pixels for so many minutes, and fills the same pixels with the exact
kernel of the same network as its width goes to infinity. Without a photograph, a small pattern is taken.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.images.files import read_image, read_mask


def psnr(filled: Tensor, image: Tensor) -> float:
    return -10 * math.log10(float((filled - image).square().mean()))


def pattern(size: int = 32) -> Tensor:
    rows, columns = torch.meshgrid(torch.linspace(0, 6, size), torch.linspace(0, 9, size), indexing="ij")
    return (0.5 + 0.25 * torch.sin(rows) + 0.2 * torch.cos(columns))[None]


def shrunk(image: Tensor, observed: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Means of blocks; a block is observed if all of its pixels are."""
    small = torch.nn.functional.avg_pool2d(image[None], factor)[0]
    return small, torch.nn.functional.avg_pool2d(observed.float()[None], factor)[0] == 1


def problem(arguments: argparse.Namespace) -> tuple[Tensor, Tensor]:
    image = pattern() if arguments.image is None else read_image(arguments.image).pixels
    generator = torch.Generator().manual_seed(0)
    if arguments.mask is not None:
        observed = read_mask(arguments.mask, (image.shape[1], image.shape[2]))
    else:
        observed = torch.rand(image.shape[1:], generator=generator) >= arguments.missing
    if arguments.shrink > 1:
        image, observed = shrunk(image, observed, arguments.shrink)
    if arguments.crop:
        top, left = ((n - arguments.crop) // 2 for n in image.shape[1:])
        window = (slice(top, top + arguments.crop), slice(left, left + arguments.crop))
        image, observed = image[:, *window], observed[window]
    return image, observed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", type=Path, help="PNG or JPEG (default: a pattern of 32 x 32 pixels)")
    parser.add_argument("--mask", type=Path, help="white = known")
    parser.add_argument("--missing", type=float, default=0.5, help="share of pixels to remove, where there is no mask")
    parser.add_argument("--shrink", type=int, default=1, help="factor")
    parser.add_argument("--crop", type=int, help="side of the square in the middle that is kept")
    parser.add_argument("--levels", type=int, default=5)
    parser.add_argument("--width", type=int, default=128, help="filters a layer")
    parser.add_argument("--skip", type=int, default=4, help="channels of the skip connections")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--minutes", type=float, default=6.0, help="to train at most")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    image, observed = problem(arguments)
    torch.manual_seed(arguments.seed)
    net = tc.hourglass(arguments.levels, arguments.width, arguments.skip, channels=image.shape[0])
    prior = tc.priors.Uniform(0, 0.1)
    print(f"{tuple(image.shape)}, {1 - float(observed.float().mean()):.1%} missing, {torch.get_num_threads()} threads")
    print(f"{sum(parameter.numel() for parameter in net.parameters()):,} weights")

    start = time.perf_counter()
    kernel = net.kernel(prior, dtype=torch.float32)
    built = time.perf_counter() - start
    result = tc.inpaint(image, observed, kernel)
    print(
        f"CNTK: {psnr(result.image.clamp(0, 1), image):.2f} dB; kernel {built:.2f} s, filled in {result.seconds:.2f} s"
    )
    infinite = built + result.seconds

    # As the deep image prior is trained: batch normalisation, jitter of the input, Adam, weights as torch has them.
    done = tc.train(
        net,
        image,
        observed,
        prior=prior,
        steps=arguments.steps,
        lr=arguments.lr,
        jitter=0.03,
        batch_norm=True,
        parameterisation="standard",
        seed=arguments.seed,
        truth=image,
        measure_every=10,
        callback=lambda step: step.seconds > 60 * arguments.minutes,
    )
    print("step   seconds   PSNR of the trained network")
    shown = [entry for k, entry in enumerate(done.psnr) if (k + 1) & k == 0 or k + 1 == len(done.psnr)]
    for step, seconds, quality in shown:
        print(f"{step:5d}  {seconds:8.1f}  {quality:6.2f} dB")
    best = max(done.psnr, key=lambda entry: entry[2])
    print(
        f"best: {best[2]:.2f} dB after {best[0]} steps, {best[1]:.1f} s, {best[1] / infinite:.0f} times the CNTK's time"
    )
    same = next((entry for entry in done.psnr if entry[2] >= psnr(result.image.clamp(0, 1), image)), None)
    print("the CNTK's PSNR " + ("was not reached" if same is None else f"after {same[1]:.1f} s"))


if __name__ == "__main__":
    main()
