"""A small module before the inpainting, trained by the gradient of the error through it.

Half of a photograph's pixels are missing, and a tenth of the others are black or white by a defect that the mask does
not know. What is filled is a weighted sum of the observed pixels, so that one of them spoils all holes around it. A
module of 26 numbers compares each observed pixel with those around it and takes back what is too far off; it and the
ridge are trained on other photographs, by the error of the pixels that were filled.

    python examples/preprocess.py
"""

from __future__ import annotations

import argparse

import skimage.data
import torch
from torch import Tensor

import torch_cntk as tc


class Clip(torch.nn.Module):
    """Observed pixels, no further from a weighted mean of their neighbours than a threshold, softly."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(1, 1, width, width))
        self.log_threshold = torch.nn.Parameter(torch.tensor(0.5).log())

    def forward(self, image: Tensor, observed: Tensor) -> Tensor:
        """Clip images [batch, 1, H, W], of which masks of that shape say what is observed."""
        known = observed.to(image)
        weights = self.logits.exp()
        total, share = (torch.nn.functional.conv2d(part, weights, padding="same") for part in (image * known, known))
        mean, threshold = total / share.clamp_min(1e-6), self.log_threshold.exp()
        return mean + threshold * torch.tanh((image - mean) / threshold)


class Pipeline(torch.nn.Module):
    """The module, then the filling, whose ridge is a parameter."""

    def __init__(self, kernel: tc.Kernel) -> None:
        super().__init__()
        self.clip, self.kernel = Clip(), kernel
        self.log_ridge = torch.nn.Parameter(torch.tensor(1e-3).log())

    def forward(self, image: Tensor, observed: Tensor, *, clip: bool = True) -> Tensor:
        """Fill images [batch, 1, H, W]."""
        cleaned = self.clip(image, observed) if clip else image
        return tc.inpaint(cleaned, observed, self.kernel, ridge=self.log_ridge.exp()).image


def patches(names: tuple[str, ...], side: int, count: int, generator: torch.Generator) -> Tensor:
    """Pieces of photographs, [count, 1, side, side], by the means of blocks of 3 x 3 pixels."""
    found = []
    for k in range(count):
        image = torch.as_tensor(getattr(skimage.data, names[k % len(names)])()).float() / 255
        image = image.mean(-1) if image.ndim == 3 else image
        small = torch.nn.functional.avg_pool2d(image[None], 3)
        top, left = (int(torch.randint(n - side, (), generator=generator)) for n in small.shape[1:])
        found.append(small[:, top : top + side, left : left + side])
    return torch.stack(found)


def error(filled: Tensor, clean: Tensor, observed: Tensor) -> Tensor:
    """Mean squared error of the pixels that were missing."""
    return (filled - clean).square()[~observed.expand_as(clean)].mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--side", type=int, default=24, help="pixels of a patch")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)

    def draw(names: tuple[str, ...], count: int) -> tuple[Tensor, Tensor, Tensor]:
        clean = patches(names, arguments.side, count, generator)
        spoilt = torch.rand(clean.shape, generator=generator) < 0.1
        extreme = (torch.rand(clean.shape, generator=generator) < 0.5).float()
        observed = torch.rand(clean.shape, generator=generator) < 0.5
        return clean, torch.where(spoilt, extreme, clean), observed

    kernel = tc.load_kernel("uniform-fine-3x128-leaky0.3")
    pipeline = Pipeline(kernel)
    held_out = draw(("camera",), 8)

    def decibels(clip: bool) -> float:
        clean, spoilt, observed = held_out
        with torch.no_grad():
            filled = pipeline(spoilt, observed, clip=clip)
        return float(-10 * torch.log10(error(filled, clean, observed)))

    before = decibels(False)
    optimiser = torch.optim.Adam(pipeline.parameters(), lr=0.1)
    for _ in range(arguments.steps):
        clean, spoilt, observed = draw(("astronaut", "coffee", "rocket"), 4)
        loss = error(pipeline(spoilt, observed), clean, observed)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    ridge, threshold = pipeline.log_ridge.exp().item(), pipeline.clip.log_threshold.exp().item()
    print("camera, never seen in training, half of the pixels missing, a tenth of the others spoilt:")
    print(f"filled as it is, ridge 0.001: {before:.2f} dB")
    print(f"as it is, ridge trained, {ridge:.3g}: {decibels(False):.2f} dB")
    print(f"clipped at {threshold:.2f}, module and ridge trained through the filling: {decibels(True):.2f} dB")


if __name__ == "__main__":
    main()
