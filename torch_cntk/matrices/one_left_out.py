"""Each entry of a system of equations left out by itself, in closed form: errors, and how sure the others are of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_cntk.matrices.systems import System, patterns
from torch_cntk.solvers.shared_inverse import inverse_pays, restricted_inverse

__all__ = ["MOST_EQUATIONS", "Left", "left_out"]

MOST_EQUATIONS = 4_000
"""Most equations of which an eigendecomposition is taken: a core takes a minute or two."""
_SOUND = 1e-9
"""Least ridge, relative to the kernel's diagonal, with which an inverse of the whole has digits left for its parts."""


@dataclass(frozen=True)
class Left:
    """With G = K_OO + ridge I: errors (G^-1 y) / diag(G^-1), and the same of targets 1; all of the targets' shape.

    Attributes:
        errors: each target less what the others say of it; zero where not observed.
        of_ones: the errors if all targets were 1 (times the scale, where there is one); likewise.
        variances: 1 / diag(G^-1), of each target given the others, noise included.
    """

    errors: Tensor
    of_ones: Tensor
    variances: Tensor


def left_out(system: System, ridge: float) -> Left:
    """Leave out each target of a system.

    Args:
        system: of at most ``MOST_EQUATIONS`` equations a right-hand side.
        ridge: absolute, at least 0.
    """
    size = system.operator.size
    if len(size) == 2 or system.shared:
        return _shared(system, ridge)
    result = Left(*(torch.zeros_like(system.targets) for _ in range(3)))
    every = torch.arange(size[0], device=system.targets.device)
    kernel = system.operator.entries(every, every)
    ones = _ones(system)
    if ridge > _SOUND * system.mean_diagonal and size[0] <= MOST_EQUATIONS and inverse_pays(system.observed):
        return _together(kernel, system, ones, ridge)
    for columns, rows in patterns(system.observed):
        places = (rows[:, None], columns)
        parts = _of_block(kernel[columns[:, None], columns], system.targets[places], ones[columns], ridge)
        for whole, part in zip((result.errors, result.of_ones, result.variances), parts, strict=True):
            whole[places] = part
    return result


def _ones(system: System) -> Tensor:
    """What the targets are if all entries are 1, of the operator's size."""
    ones = torch.ones(system.operator.size, dtype=system.targets.dtype, device=system.targets.device)
    return ones if system.scale is None else ones * system.scale


def _shared(system: System, ridge: float) -> Left:
    index = system.observed.flatten().nonzero()[:, 0]
    targets = system.targets.reshape(-1, system.observed.numel())[:, index]
    parts = _of_block(system.operator.entries(index, index), targets, _ones(system).flatten()[index], ridge)
    wholes = []
    for part in parts:
        whole = torch.zeros_like(system.targets)
        whole[..., system.observed] = part.expand(len(targets), -1).reshape(whole[..., system.observed].shape)
        wholes.append(whole)
    return Left(*wholes)


def _of_block(kernel: Tensor, targets: Tensor, ones: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Errors [k, n], errors of ones [n] and variances [n] of [n, n] equations with targets [k, n]."""
    values, vectors = torch.linalg.eigh(kernel)
    # Without a ridge the inverse needs a floor: eigenvalues below it are rounding.
    values = values.clamp_min(float(values[-1]) * len(values) * torch.finfo(values.dtype).eps)
    if float(values[-1]) + ridge <= 0:
        # A kernel of zeros says nothing, of anything.
        return targets, ones, torch.ones_like(ones)
    inverse = 1 / (values + ridge)
    diagonal = vectors.square() @ inverse
    errors, of_ones = (right @ vectors * inverse @ vectors.T / diagonal for right in (targets, ones))
    return errors, of_ones, 1 / diagonal


def _together(kernel: Tensor, system: System, ones: Tensor, ridge: float) -> Left:
    """Of many masks that leave out little, from the inverse of the whole."""
    values, vectors = torch.linalg.eigh(kernel)
    inverse = (vectors / (values + ridge)) @ vectors.T
    seen = system.observed
    found, diagonals = restricted_inverse(inverse, seen, system.targets, diagonal=True)
    of_ones, _ = restricted_inverse(inverse, seen, torch.where(seen, ones, 0))
    assert diagonals is not None
    return Left(*(torch.where(seen, part / diagonals, 0) for part in (found, of_ones, torch.ones_like(found))))
