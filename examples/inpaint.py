"""Remove half of a photograph's pixels and fill them again: ``python examples/inpaint.py [photo.png]``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import torch_cntk as tc
from torch_cntk.images.files import read_image, write_image


def sample_photograph() -> Tensor:
    import skimage.data  # of the extra: pip install 'torch-cntk[examples]'

    return torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1) / 255


def network(channels: int) -> tc.Layer:
    layers: list[tc.Layer] = []
    for level in range(3):
        layers += [tc.StridedConv2d(128 if level else 32, 128, 3, stride=2), tc.LeakyReLU(0.3)]
        layers += [tc.Conv2d(128, 128, 3), tc.LeakyReLU(0.3)]
    for up in (tc.NearestUp(2), tc.NearestUp(2), tc.BilinearUp(2)):
        layers += [up, tc.Conv2d(128, 128, 3), tc.LeakyReLU(0.3)]
        layers += [tc.Conv2d(128, 128, 3), tc.LeakyReLU(0.3)]
    return tc.Sequential(*layers, tc.Conv2d(128, channels, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", type=Path, help="PNG or JPEG (default: a sample photograph)")
    parser.add_argument("--missing", type=float, default=0.5, help="share of the pixels to remove")
    parser.add_argument("-o", "--output", type=Path, default=Path("inpainted.png"), help="picture before and after")
    arguments = parser.parse_args()

    image = sample_photograph() if arguments.image is None else read_image(arguments.image).pixels

    # One mask for all channels. True = known.
    observed = torch.rand(image.shape[1:], generator=torch.Generator().manual_seed(0)) >= arguments.missing

    # The exact kernel of this network, infinitely wide, fed with noise. No weight is trained or even used.
    kernel = network(channels=image.shape[0]).kernel(tc.priors.Uniform(0, 0.1))
    print(kernel)

    result = tc.inpaint(image, observed, kernel)
    print(f"{result.status.value} in {result.iterations} iterations, {result.seconds:.1f} s")

    filled = result.image.clamp(0, 1)
    print(f"PSNR {-10 * torch.log10((filled - image).square().mean()):.2f} dB")

    before = torch.where(observed, image, 0)
    write_image(arguments.output, torch.cat([before, filled], dim=2))
    print(f"before and after: {arguments.output}")


if __name__ == "__main__":
    main()
