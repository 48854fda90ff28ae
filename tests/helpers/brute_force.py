"""The textbook recursion on [*S, *S] arrays in float64, written apart from the package: no periods, no symmetry.

Slow and plain on purpose. Spatial maps are explicit matrices; what activations do is in ``expectations``.
"""

from __future__ import annotations

import functools
import itertools
import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import torch_cntk as tc
from tests.helpers import expectations
from tests.helpers.expectations import variances


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


def linear_matrix(n: int, factor: int, align_corners: bool, padding_mode: str) -> Tensor:
    """From torch's own interpolation of unit vectors; circular edges by interpolating three copies of the image."""
    unit = torch.eye(n, dtype=torch.float64)[:, None]
    if padding_mode == "circular" and not align_corners:
        unit = unit.repeat(1, 1, 3)
    image = torch.nn.functional.interpolate(unit, scale_factor=factor, mode="linear", align_corners=align_corners)
    if padding_mode == "circular" and not align_corners:
        image = image[..., n * factor : 2 * n * factor]
    return image[:, 0].T


def pool_matrix(n: int, layer: Any) -> Tensor:
    """From torch's own pooling of unit vectors."""
    unit = torch.eye(n, dtype=torch.float64)[:, None]
    if isinstance(layer, tc.SumPool1d | tc.SumPool2d | tc.SumPool3d):
        pooled = (
            torch.nn.functional.avg_pool1d(unit, layer.kernel_size, layer.stride, layer.padding) * layer.kernel_size
        )
    else:
        options = (layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, layer.count_include_pad)
        pooled = torch.nn.functional.avg_pool1d(unit, *options)
    return pooled[:, 0].T


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


def independent_prior(size: tuple[int, ...], mean: float, second_moment: float) -> Tensor:
    pixels = math.prod(size)
    flat = torch.full((pixels, pixels), mean**2, dtype=torch.float64)
    flat.fill_diagonal_(second_moment)
    return flat.reshape(*size, *size)


def feature_prior(features: Tensor) -> Tensor:
    channels, *size = features.shape
    flat = features.double().reshape(channels, -1)
    return (flat.T @ flat / channels).reshape(*size, *size)


def normalise(sigma: Tensor, theta: Tensor, eps: float, affine: bool) -> tuple[Tensor, Tensor]:
    v, other = variances(sigma)
    norm = torch.sqrt((v + eps) * (other + eps))
    return sigma / norm, theta / norm + (sigma / norm + 1 if affine else 0)


def attention_weights(layer: Any, sigma: Tensor) -> Tensor:
    """Of one image's own [*S, *S], as [pixels, pixels]."""
    logits = layer.logit_scale * sigma.reshape((math.isqrt(sigma.numel()),) * 2)
    match layer.mechanism:
        case "softmax":
            # The largest of each row is taken off, as the exponential of hundreds is infinite.
            share = torch.exp(logits - logits.amax(1, keepdim=True))
            return share / share.sum(1, keepdim=True)
        case "relu":
            return torch.where(logits > 0, logits, 0.0)
        case "abs":
            return torch.where(logits > 0, logits, -logits)
    return logits


def attend(layer: Any, weights: Tensor, sigma: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sums over pixels, then two weight layers, of which the last one may have a bias."""
    sums = [(weights @ k.reshape(weights.shape) @ weights.T).reshape(k.shape) for k in (sigma, theta)]
    values = SimpleNamespace(weight_std=1.0, bias=None, parameterisation=layer.parameterisation)
    return dense(layer, layer.fan_in, *dense(values, layer.in_channels, *sums))


def dense(layer: Any, fan_in: int, sigma: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    variance, bias = layer.weight_std**2, 0.0 if layer.bias is None else layer.bias_std**2
    learnt = variance * sigma + bias
    if layer.parameterisation == "standard":
        learnt = fan_in * sigma + float(layer.bias is not None)
    return variance * sigma + bias, variance * theta + learnt


def drop(layer: Any, kernel: Tensor) -> Tensor:
    """Of one image: a pixel has the same mask as itself, or all pixels have, if masks are those of channels."""
    pixels = math.isqrt(kernel.numel())
    same = torch.ones(pixels, pixels) if layer.channels else torch.eye(pixels)
    return torch.where(same.reshape(kernel.shape) == 1, kernel / (1 - layer.p), kernel)


def taps_matrix(layer: Any, axis: int, n: int, tap: int) -> Tensor:
    """What one tap along an axis reads: for each output pixel the input pixel, or none beyond a border of zeros."""
    q, r, d = layer.kernel_size[axis], layer.stride[axis], layer.dilation[axis]
    reach = d * (q - 1)
    if hasattr(layer, "output_padding"):
        low = layer.padding[axis] if layer.padding != "same" else max(0, math.ceil((reach + 1 - r) / 2))
        size = n * r if layer.padding == "same" else (n - 1) * r - 2 * low + reach + layer.output_padding[axis] + 1
        # Input i adds to output i r - low + tap d; around the edge, of as many copies of the image as it takes.
        copies = range(-3 * n, 4 * n) if layer.padding_mode == "circular" else range(n)
        pairs = [(i * r - low + tap * d, i % n) for i in copies]
        pairs = [(output, i) for output, i in pairs if 0 <= output < size]
    else:
        low, total = (reach // 2, reach) if layer.padding == "same" else (layer.padding[axis], 2 * layer.padding[axis])
        size = (n + total - reach - 1) // r + 1
        pairs = [(output, output * r - low + tap * d) for output in range(size)]
        if layer.padding_mode == "circular":
            pairs = [(output, i % n) for output, i in pairs]
        pairs = [(output, i) for output, i in pairs if 0 <= i < n]
    matrix = torch.zeros(size, n, dtype=torch.float64)
    for output, i in pairs:
        matrix[output, i] += 1
    return matrix


def convolve(layer: Any, sigma: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Every tap by itself, as explicit matrices: K'(y, y') = mean over taps of K(x, x') of the pixels that it reads."""
    size = sigma.shape[: sigma.ndim // 2]
    standard = layer.parameterisation == "standard"
    fan_in = layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    variance, bias = layer.weight_std**2, 0.0 if layer.bias is None else layer.bias_std**2
    learnt = fan_in if standard else variance
    trained_bias = bias if not standard else float(layer.bias is not None)
    means = []
    for kernel in (sigma, theta):
        total: Tensor | float = 0.0
        for taps in itertools.product(*(range(q) for q in layer.kernel_size)):
            matrices = [taps_matrix(layer, axis, n, tap) for axis, (n, tap) in enumerate(zip(size, taps, strict=True))]
            total = total + apply_both_sides(kernel, matrices)
        means.append(total / math.prod(layer.kernel_size))
    mean, mean_theta = means
    return variance * mean + bias, variance * mean_theta + learnt * mean + trained_bias


def matrices_of(layer: Any, size: tuple[int, ...]) -> list[Tensor] | None:
    """A resampling as a matrix an axis; None for other layers."""
    match layer:
        case tc.NearestUp():
            return [nearest_matrix(n, layer.scale_factor) for n in size]
        case tc.BilinearUp():
            return [linear_matrix(n, layer.scale_factor, layer.align_corners, layer.padding_mode) for n in size]
        case tc.AvgPool1d() | tc.AvgPool2d() | tc.AvgPool3d() | tc.SumPool1d() | tc.SumPool2d() | tc.SumPool3d():
            return [pool_matrix(n, layer) for n in size]
        case tc.GaussianBlur():
            return [gaussian_matrix(n, layer.kernel_size, layer.sigma) for n in size]
        case tc.LanczosDown():
            return [lanczos_matrix(n, layer.scale_factor, layer.lobes) for n in size]
    return None


def channels_after(layer: Any, channels: int) -> int:
    match layer:
        case tc.Sequential():
            for member in layer.layers:
                channels = channels_after(member, channels)
            return channels
        case tc.Concat(dim=1):
            return sum(channels_after(branch, channels) for branch in layer.branches)
        case tc.Concat() | tc.Sum() | tc.Product():
            return channels_after(layer.branches[0], channels)
        case tc.Graph():
            return channels_of_values(layer, channels)[-1]
    return getattr(layer, "out_channels", None) or channels


def channels_of_values(graph: tc.Graph, channels: int) -> list[int]:
    values = [channels]
    for node in graph.nodes:
        given = [values[k] for k in node.inputs]
        match node.does:
            case "concat":
                values.append(sum(given))
            case str():
                values.append(given[0])
            case layer:
                values.append(channels_after(layer, given[0]))
    return values


def mixed(kernels: list[tuple[Tensor, Tensor]], weights: list[float]) -> tuple[Tensor, Tensor]:
    sigmas, thetas = ([w * pair[k] for w, pair in zip(weights, kernels, strict=True)] for k in (0, 1))
    return torch.stack(sigmas).sum(0), torch.stack(thetas).sum(0)


def multiplied(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return first[0] * second[0], first[1] * second[0] + first[0] * second[1]


def through_graph(graph: tc.Graph, sigma: Tensor, theta: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    values, widths = [(sigma, theta)], channels_of_values(graph, channels)
    for node in graph.nodes:
        given, own = [values[k] for k in node.inputs], [widths[k] for k in node.inputs]
        match node.does:
            case "sum":
                values.append(mixed(given, [1.0] * len(given)))
            case "concat":
                values.append(mixed(given, [w / sum(own) for w in own]))
            case "product":
                values.append(functools.reduce(multiplied, given))
            case str(along):
                axis = int(along.removeprefix("concat:")) - 2
                sigmas, thetas = (side_by_side(list(kernels), axis) for kernels in zip(*given, strict=True))
                values.append((sigmas, thetas))
            case layer:
                values.append(step(layer, given[0][0], given[0][1], own[0]))
    return values[-1]


def side_by_side(kernels: list[Tensor], axis: int) -> Tensor:
    """Blocks on the diagonal, along an axis of both pixels; zeros between pixels of two branches."""
    ndim = kernels[0].ndim // 2
    rows = []
    for place, kernel in enumerate(kernels):
        row = []
        for other, beside in enumerate(kernels):
            shape = [*kernel.shape[:ndim], *beside.shape[ndim:]]
            row.append(kernel if other == place else torch.zeros(shape, dtype=kernel.dtype))
        rows.append(torch.cat(row, ndim + axis))
    return torch.cat(rows, axis)


def step(layer: Any, sigma: Tensor, theta: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    matrices = matrices_of(layer, tuple(sigma.shape[: sigma.ndim // 2]))
    if matrices is not None:
        return apply_both_sides(sigma, matrices), apply_both_sides(theta, matrices)
    match layer:
        case tc.Sequential():
            for member in layer.layers:
                sigma, theta = step(member, sigma, theta, channels)
                channels = channels_after(member, channels)
            return sigma, theta
        case tc.Product():
            return functools.reduce(multiplied, [step(branch, sigma, theta, channels) for branch in layer.branches])
        case tc.Sum() | tc.Concat():
            outputs = [step(branch, sigma, theta, channels) for branch in layer.branches]
            if isinstance(layer, tc.Concat) and layer.dim > 1:
                both = [side_by_side(list(kernels), layer.dim - 2) for kernels in zip(*outputs, strict=True)]
                return both[0], both[1]
            widths = [channels_after(branch, channels) for branch in layer.branches]
            weights = [w / sum(widths) if isinstance(layer, tc.Concat) else 1 for w in widths]
            return mixed(outputs, weights)
        case tc.Graph():
            return through_graph(layer, sigma, theta, channels)
        case tc.Linear():
            return dense(layer, layer.in_features, sigma, theta)
        case tc.SelfAttention():
            return attend(layer, attention_weights(layer, sigma), sigma, theta)
        case tc.layers.Activation():
            return expectations.activate(layer, sigma, theta)
        case tc.ChannelNorm():
            return normalise(sigma, theta, layer.eps, layer.affine)
        case tc.Scale():
            return layer.factor**2 * sigma, layer.factor**2 * theta
        case tc.Dropout(in_kernel=True):
            return drop(layer, sigma), drop(layer, theta)
        case tc.Identity() | tc.MultipleOf() | tc.Dropout():
            return sigma, theta
    return convolve(layer, sigma, theta)


def propagate(net: Any, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """(NNGP, NTK) of the network's output, [*S, *S] each."""
    return step(net, sigma, torch.zeros_like(sigma), net.in_channels or 1)
