"""The textbook recursion on [*S, *S] arrays in float64, written apart from the package: no periods, no symmetry.

Slow and plain on purpose. Spatial maps are explicit matrices; angles come from arccos with the diagonal re-imposed.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

import torch_cntk as tc


def shifts(width: int) -> range:
    return range(-(width // 2), width // 2 + 1)


def average_patches(kernel: Tensor, widths: tuple[int, ...]) -> Tensor:
    ndim = kernel.ndim // 2
    total = torch.zeros_like(kernel)
    for offset in itertools.product(*(shifts(q) for q in widths)):
        total += torch.roll(kernel, [-o for o in offset] * 2, list(range(2 * ndim)))
    return total / math.prod(widths)


def apply_both_sides(kernel: Tensor, matrices: list[Tensor]) -> Tensor:
    ndim = kernel.ndim // 2
    for axis in range(2 * ndim):
        kernel = torch.movedim(torch.tensordot(matrices[axis % ndim], kernel, dims=([1], [axis])), 0, axis)
    return kernel


def nearest_matrix(n: int, factor: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64).repeat_interleave(factor, 0)


def stride_matrix(n: int, stride: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)[::stride]


def linear_matrix(n: int, factor: int, align_corners: bool, padding_mode: str) -> Tensor:
    """From torch's own interpolation of unit vectors; circular edges by interpolating three copies of the image."""
    unit = torch.eye(n, dtype=torch.float64)[:, None]
    if padding_mode == "circular" and not align_corners:
        unit = unit.repeat(1, 1, 3)
    image = torch.nn.functional.interpolate(unit, scale_factor=factor, mode="linear", align_corners=align_corners)
    if padding_mode == "circular" and not align_corners:
        image = image[..., n * factor : 2 * n * factor]
    return image[:, 0].T


def average_matrix(n: int, width: int) -> Tensor:
    return torch.nn.functional.avg_pool1d(torch.eye(n, dtype=torch.float64)[:, None], width)[:, 0].T


def gaussian_matrix(n: int, width: int, sigma: float) -> Tensor:
    matrix = torch.zeros(n, n, dtype=torch.float64)
    for output in range(n):
        for offset in shifts(width):
            matrix[output, (output + offset) % n] += math.exp(-(offset**2) / (2 * sigma**2))
    return matrix / matrix.sum(1, keepdim=True)


def lanczos_matrix(n: int, factor: int, lobes: int) -> Tensor:
    """By the distance of every input pixel, on every copy of the image, from the output pixel's centre."""
    matrix = torch.zeros(n // factor, n, dtype=torch.float64)
    for output in range(n // factor):
        centre = (output + 0.5) * factor - 0.5
        for pixel in range(-20 * n, 21 * n):
            distance = torch.tensor((pixel - centre) / factor, dtype=torch.float64)
            if abs(distance) < lobes:
                matrix[output, pixel % n] += torch.sinc(distance) * torch.sinc(distance / lobes)
    return matrix / matrix.sum(1, keepdim=True)


def rectify(sigma: Tensor, theta: Tensor, slope: float) -> tuple[Tensor, Tensor]:
    ndim = sigma.ndim // 2
    pixels = math.prod(sigma.shape[:ndim])
    flat = sigma.reshape(pixels, pixels)
    variance = flat.diagonal()
    norm = torch.sqrt(variance[:, None] * variance[None, :])
    cosine = torch.where(norm > 0, flat / norm, 1.0).clamp(-1, 1)
    # Equal features: rounding must not make an angle of them (arccos(1 - 1e-15) is 4e-8).
    cosine = torch.where((cosine - 1).abs() < 4e-15, 1.0, cosine)
    angle = torch.arccos(cosine)
    k0 = (math.pi - angle) / math.pi
    k1 = (cosine * (math.pi - angle) + torch.sqrt(1 - cosine**2)) / math.pi
    weight = 2 * slope / (1 + slope**2)
    value = norm * ((1 - weight) * k1 + weight * cosine)
    factor = (1 - weight) * k0 + weight
    return value.reshape(sigma.shape), theta * factor.reshape(sigma.shape)


def independent_prior(size: tuple[int, ...], mean: float, second_moment: float) -> Tensor:
    pixels = math.prod(size)
    flat = torch.full((pixels, pixels), mean**2, dtype=torch.float64)
    flat.fill_diagonal_(second_moment)
    return flat.reshape(*size, *size)


def feature_prior(features: Tensor) -> Tensor:
    channels, *size = features.shape
    flat = features.double().reshape(channels, -1)
    return (flat.T @ flat / channels).reshape(*size, *size)


def propagate(net: tc.Sequential, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(NNGP, NTK) of the network's output, [*S, *S] each."""
    theta = torch.zeros_like(sigma)
    for layer in net.layers:
        ndim = sigma.ndim // 2
        size = sigma.shape[:ndim]
        match layer:
            case tc.ReLU():
                sigma, theta = rectify(sigma, theta, 0.0)
            case tc.LeakyReLU():
                sigma, theta = rectify(sigma, theta, layer.negative_slope)
            case tc.NearestUp():
                matrices = [nearest_matrix(n, layer.scale_factor) for n in size]
                sigma, theta = apply_both_sides(sigma, matrices), apply_both_sides(theta, matrices)
            case tc.BilinearUp():
                options = (layer.scale_factor, layer.align_corners, layer.padding_mode)
                matrices = [linear_matrix(n, *options) for n in size]
                sigma, theta = apply_both_sides(sigma, matrices), apply_both_sides(theta, matrices)
            case tc.AvgPool1d() | tc.AvgPool2d() | tc.AvgPool3d():
                matrices = [average_matrix(n, layer.kernel_size) for n in size]
                sigma, theta = apply_both_sides(sigma, matrices), apply_both_sides(theta, matrices)
            case tc.GaussianBlur():
                matrices = [gaussian_matrix(n, layer.kernel_size, layer.sigma) for n in size]
                sigma, theta = apply_both_sides(sigma, matrices), apply_both_sides(theta, matrices)
            case tc.LanczosDown():
                matrices = [lanczos_matrix(n, layer.scale_factor, layer.lobes) for n in size]
                sigma, theta = apply_both_sides(sigma, matrices), apply_both_sides(theta, matrices)
            case _:
                bias = 0.0 if layer.bias is None else layer.bias_std**2
                theta = average_patches(theta + sigma, layer.kernel_size) + bias
                sigma = average_patches(sigma, layer.kernel_size) + bias
                matrices = [stride_matrix(n, r) for n, r in zip(size, layer.stride, strict=True)]
                sigma, theta = apply_both_sides(sigma, matrices), apply_both_sides(theta, matrices)
    return sigma, theta
