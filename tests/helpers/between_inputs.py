"""The textbook recursion between images: a joint kernel [n, *S, n, *S] of all of them, by the arrays of one image.

The images lie side by side along one more axis, in which no layer has a width. No pairs, no displacements.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import torch_cntk as tc
from tests.helpers import brute_force


def flattened(kernel: Tensor) -> Tensor:
    """The mean over the pixels of K(A at a, B at a)."""
    n, pixels = kernel.shape[0], math.prod(kernel.shape[1 : kernel.ndim // 2])
    return kernel.reshape(n, pixels, n, pixels).diagonal(dim1=1, dim2=3).mean(-1)


def pooled(kernel: Tensor) -> Tensor:
    """The mean over all pixels of A and of B, which stay as axes of one pixel."""
    ndim = kernel.ndim // 2 - 1
    axes = (*range(1, 1 + ndim), *range(2 + ndim, 2 + 2 * ndim))
    return kernel.mean(axes, keepdim=True)


def block_diagonal(blocks: list[Tensor]) -> Tensor:
    made: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return made


def step(layer: Any, sigma: Tensor, theta: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    size = tuple(sigma.shape[1 : sigma.ndim // 2])
    match layer:
        case tc.Sequential():
            for member in layer.layers:
                sigma, theta = step(member, sigma, theta, channels)
                channels = brute_force.channels_after(member, channels)
            return sigma, theta
        case tc.Sum() | tc.Concat():
            outputs = [step(branch, sigma, theta, channels) for branch in layer.branches]
            if isinstance(layer, tc.Concat) and layer.dim > 1:
                # Behind the axis of images.
                both = [brute_force.side_by_side(list(k), layer.dim - 1) for k in zip(*outputs, strict=True)]
                return both[0], both[1]
            widths = [brute_force.channels_after(branch, channels) for branch in layer.branches]
            weights = [w / sum(widths) if isinstance(layer, tc.Concat) else 1 for w in widths]
            return brute_force.mixed(outputs, weights)
        case tc.Flatten():
            return flattened(sigma), flattened(theta)
        case tc.GlobalAvgPool():
            sigma, theta = pooled(sigma), pooled(theta)
            return (sigma, theta) if layer.keepdim else (flattened(sigma), flattened(theta))
        case tc.SelfAttention():
            own_images = [sigma[i].select(len(size), i) for i in range(len(sigma))]
            mixing = block_diagonal([brute_force.attention_weights(layer, image) for image in own_images])
            return brute_force.attend(layer, mixing, sigma, theta)
        case tc.Dropout(in_kernel=True):
            n, pixels = len(sigma), math.prod(size)
            alike = torch.ones(pixels, pixels) if layer.channels else torch.eye(pixels)
            same = block_diagonal([alike] * n).reshape(sigma.shape) == 1
            return tuple(torch.where(same, k / (1 - layer.p), k) for k in (sigma, theta))  # type: ignore[return-value]
        case tc.layers.spatial.Spatial():
            # One more axis, along which nothing happens; of "same" padding there is none either way.
            neutral = {"kernel_size": 1, "stride": 1, "dilation": 1, "padding": 0, "output_padding": 0}
            own = {name: getattr(layer, name) for name in neutral if hasattr(layer, name)}
            axes = {name: (neutral[name], *value) for name, value in own.items() if value != "same"}
            kept = ("bias", "bias_std", "weight_std", "padding_mode", "parameterisation", "in_channels", "groups")
            wide = SimpleNamespace(**{name: getattr(layer, name) for name in kept} | own | axes)
            return brute_force.convolve(wide, sigma, theta)
    matrices = brute_force.matrices_of(layer, size)
    if matrices is not None:
        wide_matrices = [torch.eye(len(sigma), dtype=torch.float64), *matrices]
        return tuple(brute_force.apply_both_sides(k, wide_matrices) for k in (sigma, theta))  # type: ignore[return-value]
    return brute_force.step(layer, sigma, theta, channels)


def propagate(net: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """(NNGP, NTK) between images [n, C, *size]: [n, n], or [n, *S, n, *S] if the network ends in pixels."""
    sigma = brute_force.feature_prior(images.movedim(1, 0))
    return step(net, sigma, torch.zeros_like(sigma), net.in_channels or images.shape[1])
