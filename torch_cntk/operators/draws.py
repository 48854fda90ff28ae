"""Images drawn from the Gaussian process whose covariance is a kernel: K^(1/2) z for white noise z.

Three routes, of which the operator's structure chooses:

* A kernel with a period of few pixels is block-circulant: a Hermitian matrix between phases for each frequency of the
  cells, each of which has a root. A kernel without a period is one such matrix. Exact.
* Otherwise by Lanczos' iteration (Chow & Saad 2014, "Preconditioned Krylov subspace methods for sampling multivariate
  Gaussian distributions"): with S the stationary average of K, whose root is a Fourier transform away, or else its
  diagonal, K = S^(1/2) A S^(1/2), and S^(1/2) A^(1/2) z has the covariance K. A is near the identity, so that a few
  products with K suffice. To a tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk._internal.grids import join_cells, split_cells
from torch_cntk._internal.memory import require_bytes
from torch_cntk.operators.base import Operator

__all__ = ["Drawing", "drawing"]

_BLOCKS, _MATRIX = 1e9, 2e10
"""Most operations for the roots of all blocks, phases^2 x pixels: beyond, Lanczos' iteration is quicker where the
stationary average is known, and needed where it is not, as the root would take many seconds."""
_TOLERANCE = 1e-4
"""Largest relative change of a draw in the last steps of the iteration: far below the error of any number of draws."""
_STEPS, _EVERY = 150, 5
"""Most steps of Lanczos' iteration, and how often its change is looked at."""
_BYTES = 1 << 28
"""Of the basis of the iteration: so many images are drawn at once."""


@dataclass(frozen=True)
class Drawing:
    """A way to make images of white noise.

    Attributes:
        root: takes noise [n, *size] in float64 to images of the covariance K, and the relative error that is left.
        text: how, in words.
    """

    root: Callable[[Tensor], tuple[Tensor, float]]
    text: str


def drawing(operator: Operator, told: Callable[[], object] | None = None) -> Drawing:
    """Prepare to draw images from the Gaussian process with mean 0 whose covariance is the operator.

    Eigenvalues below 0, which rounding or a cut-off leaves, count as 0.

    Args:
        operator: the covariance.
        told: is called after each step of an iteration, to show that it goes on.

    Raises:
        OutOfMemoryError: there is no way but by the matrix, and it would not fit.
    """
    period = operator.period or operator.size
    phases, pixels = math.prod(period), math.prod(operator.size)
    small = phases**2 * pixels <= (_MATRIX if operator.stationary is None else _BLOCKS)
    if not small and (operator.stationary is not None or operator.period is None):
        return _by_lanczos(operator, told)
    require_bytes(
        6 * 8 * phases * pixels,
        f"the root of a kernel between {phases:,} phases",
        lambda free: "take a smaller image",
        operator.device,
    )
    return _by_blocks(operator, period)


def _by_blocks(operator: Operator, period: tuple[int, ...]) -> Drawing:
    size, ndim = operator.size, len(operator.size)
    cells = tuple(n // p for n, p in zip(size, period, strict=True))
    phases, axes = math.prod(period), tuple(range(1, ndim + 1))
    numbers = torch.arange(math.prod(size), device=operator.device).reshape(size)
    first = numbers[tuple(slice(p) for p in period)].flatten()
    rows = operator.entries(first, numbers.flatten()).reshape(phases, *size)
    # K(a, b + m period) of phases a and b and cells m, whose transform over m is Hermitian between phases.
    blocks = split_cells(rows, period).reshape(phases, *cells, phases)
    transform = torch.fft.fftn(blocks, dim=axes).reshape(phases, -1, phases).transpose(0, 1)
    blocks = ((transform + transform.mH) / 2).conj().resolve_conj()
    # A single cell has no frequencies but 0.
    root = _roots(blocks if len(blocks) > 1 else blocks.real)

    def draw(noise: Tensor) -> tuple[Tensor, float]:
        count = len(noise)
        split = split_cells(noise, period).reshape(count, *cells, phases)
        spectrum = torch.fft.fftn(split, dim=axes).reshape(count, -1, phases)
        drawn = torch.einsum("fab,nfb->nfa", root, spectrum if root.is_complex() else spectrum.real)
        values = torch.fft.ifftn(drawn.reshape(count, *cells, phases), dim=axes).real
        return join_cells(values.movedim(-1, 1).reshape(count, phases, *cells), period), 0.0

    return Drawing(draw, "exact" if phases < math.prod(size) else "exact, by the matrix")


def _roots(blocks: Tensor) -> Tensor:
    """A root R of each Hermitian matrix, R R^H; eigenvalues below 0 count as 0."""
    root: Tensor
    root, failed = torch.linalg.cholesky_ex(blocks)
    if bool(failed.any()):
        values, vectors = torch.linalg.eigh(blocks)
        root = vectors * values.clamp_min(0).sqrt()[:, None, :]
    return root


def _by_lanczos(operator: Operator, told: Callable[[], object] | None) -> Drawing:
    outer, inner = _scaling(operator)

    def average_free(images: Tensor) -> Tensor:
        product = inner(operator.multiply(inner(images)))
        if told is not None:
            told()
        return product

    at_once = max(_BYTES // (8 * _STEPS * math.prod(operator.size)), 1)

    def draw(noise: Tensor) -> tuple[Tensor, float]:
        drawn, worst = [], 0.0
        for part in torch.split(noise, at_once):
            values, error = _lanczos_root(average_free, part)
            drawn.append(outer(values))
            worst = max(worst, error)
        return torch.cat(drawn), worst

    return Drawing(draw, "by Lanczos' iteration")


def _scaling(operator: Operator) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """S^(1/2) and S^(-1/2), of the stationary average of K, or else of its diagonal."""
    if operator.stationary is None:
        root = operator.diagonal.sqrt()
        return (lambda images: images * root), (lambda images: images / root)
    axes = tuple(range(-len(operator.size), 0))
    values = torch.fft.rfftn(operator.stationary.double()).real
    # What S has not, K has not either: the form of a vector is the sum of those of its shifts.
    held = values > values.max() * torch.finfo(operator.entry_dtype).eps
    scale = torch.where(held, values, 0).sqrt()
    inverse = torch.where(held, 1 / torch.where(held, scale, 1), 0)

    def filtered(images: Tensor, by: Tensor) -> Tensor:
        result: Tensor = torch.fft.irfftn(torch.fft.rfftn(images, dim=axes) * by, s=operator.size, dim=axes)
        return result

    return (lambda images: filtered(images, scale)), (lambda images: filtered(images, inverse))


def _lanczos_root(multiply: Callable[[Tensor], Tensor], noise: Tensor) -> tuple[Tensor, float]:
    """A^(1/2) z of each image z [n, *size]; and by how much the last steps still changed it, relative to its norm.

    What differs from the textbook: each vector is made orthogonal to all before it, twice.
    """
    flat = noise.flatten(1)
    norm = flat.norm(dim=1)
    basis = [flat / norm[:, None]]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    before, change = torch.zeros(len(flat), 0, dtype=flat.dtype, device=flat.device), math.inf
    for step in range(1, min(_STEPS, flat.shape[1]) + 1):
        next_one = multiply(basis[-1].reshape(noise.shape)).flatten(1)
        diagonal.append((basis[-1] * next_one).sum(1))
        stacked = torch.stack(basis, 1)
        for _ in range(2):
            next_one = next_one - torch.einsum("nk,nkp->np", torch.einsum("nkp,np->nk", stacked, next_one), stacked)
        length = next_one.norm(dim=1)
        if step % _EVERY == 0 or float(length.max()) <= _TOLERANCE:
            weights = _root_of_tridiagonal(diagonal, beside)
            change = _change(weights, before)
            before = weights
            if change <= _TOLERANCE or float(length.max()) <= torch.finfo(flat.dtype).eps:
                break
        beside.append(length)
        basis.append(next_one / length.clamp_min(torch.finfo(flat.dtype).tiny)[:, None])
    stacked = torch.stack(basis[: before.shape[1]], 1)
    root: Tensor = torch.einsum("nk,nkp->np", before, stacked) * norm[:, None]
    return root.reshape(noise.shape), change


def _root_of_tridiagonal(diagonal: list[Tensor], beside: list[Tensor]) -> Tensor:
    """First column of T^(1/2), [n, steps]."""
    matrix = torch.diag_embed(torch.stack(diagonal, 1))
    if beside:
        off = torch.stack(beside, 1)
        matrix = matrix + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    values, vectors = torch.linalg.eigh(matrix)
    column: Tensor = torch.einsum("nij,nj,nj->ni", vectors, values.clamp_min(0).sqrt(), vectors[:, 0])
    return column


def _change(weights: Tensor, before: Tensor) -> float:
    """Relative to the norm; infinite where there is nothing to compare with."""
    if not before.shape[1]:
        return math.inf
    padded = torch.nn.functional.pad(before, (0, weights.shape[1] - before.shape[1]))
    norm = weights.norm(dim=1).clamp_min(torch.finfo(weights.dtype).tiny)
    return float(((weights - padded).norm(dim=1) / norm).max())
