"""A preconditioner by parts: each of several ranks inverts the kernel's stationary average on a band of the image.

Additive Schwarz with a partition of unity (Smith, Bjorstad and Gropp, Domain Decomposition, 1996): bands overlap, a
residual is weighted by the roots of weights that fall across the overlaps and sum to 1, each band is solved by itself,
and what is found is weighted likewise and added. That is symmetric and positive definite. What all pixels have in
common belongs to no band; it is dealt with on the whole image, as in ``Circulant``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torch_cntk._internal.ranks import Mesh
from torch_cntk.operators.base import Operator, transforms_cost
from torch_cntk.operators.layout import Interval
from torch_cntk.solvers.base import Regression
from torch_cntk.solvers.common import Common
from torch_cntk.solvers.preconditioner import Map, Preconditioner
from torch_cntk.solvers.preconditioners import Circulant, Nested

__all__ = ["Bands", "band_count"]

_OVERLAP = 32
"""Pixels over which the weights of two bands cross; a band sees half as many more. With 16 to 32 of them the outer
iteration took as many steps as without bands, on images of 256 to 512 pixels and kernels of period 8 to 64."""
_LEAST = 96
"""Pixels of a band at least: the overlap is a third more work on it."""
_ROUND = 16
"""Sizes of bands are multiples of it, which Fourier transforms like."""


def band_count(size: tuple[int, ...], ranks: int) -> int:
    """How many bands an image of a size is cut into, along its longest axis: at most one a rank, perhaps only one."""
    return max(min(ranks, max(size) // _LEAST), 1)


class _Average(Operator):
    """The stationary average of a kernel, without what all pixels have in common, on a torus that is as long as a band.

    Args:
        operator: the kernel.
        common: what all pixels have in common.
        axis: along which bands are cut.
        length: of the band.
    """

    def __init__(self, operator: Operator, common: float, axis: int, length: int) -> None:
        assert operator.stationary is not None
        n = operator.stationary.shape[axis]
        displacement = torch.arange(length, device=operator.device)
        displacement = torch.where(displacement > length // 2, displacement - length, displacement)
        near = (operator.stationary - common).index_select(axis, displacement % n)
        cost = transforms_cost(tuple(near.shape))
        super().__init__(tuple(near.shape), operator.dtype, operator.device, stationary=near, cost=cost)

    def _multiply(self, images: Tensor) -> Tensor:
        assert self.stationary is not None
        dims = tuple(range(1, images.ndim))
        spectrum = torch.fft.rfftn(self.stationary) * torch.fft.rfftn(images.double(), dim=dims)
        product: Tensor = torch.fft.irfftn(spectrum, s=self.size, dim=dims)
        return product.to(images.dtype)


class Bands(Preconditioner):
    """``Nested`` on overlapping bands, one a rank; ranks beyond the number of bands have nothing to do.

    Args:
        regression: the equations, whose operator's products the ranks divide.
        mesh: the ranks.

    Raises:
        ValueError: the operator has no stationary average.
    """

    iterates = True

    def __init__(self, regression: Regression, mesh: Mesh) -> None:
        operator = regression.operator
        assert operator.stationary is not None
        self._mesh, self._common, self._layout = mesh, Circulant(regression).common, operator.layout
        size = tuple(operator.stationary.shape)
        axis = max(range(len(size)), key=lambda axis: size[axis])
        n, count = size[axis], band_count(size, mesh.size)
        edges = [(n * rank // count, n * (rank + 1) // count) for rank in range(count)]
        wanted = [_with_overlaps(n, *band) for band in edges] + [(0, 0)] * (mesh.size - count)
        self._sections = self._layout.sections(axis, n, wanted)
        self._weights: Tensor | None = None
        if mesh.rank < count:
            weights = _root_weights(*edges[mesh.rank], *wanted[mesh.rank])
            shape = [-1 if place == axis else 1 for place in range(len(size))]
            self._weights = weights.to(operator.device, operator.dtype).reshape(shape)
            local = _Average(operator, self._common, axis, len(weights))
            every = torch.ones(local.size, dtype=torch.bool, device=operator.device)
            equations = Regression(local, every, 0.0)
            equations.ridge = regression.ridge  # as a number: the mean of K's diagonal is that of the whole
            self._nested = Nested(equations)

    def restricted(self, mask: Tensor) -> Map:
        """Each rank solves its band, and all add what they have found."""
        solve: Map | None = None
        own = self._sections.fetch(mask)
        if self._weights is not None:
            empty = ~own.flatten(1).any(1).reshape(-1, *(1,) * (own.ndim - 1))
            # Where nothing is observed the residual is 0, whatever the mask.
            solve = self._nested.restricted(own.masked_fill(empty, 1))

        def apply(residual: Tensor) -> Tensor:
            found = self._sections.fetch(residual)
            with self._mesh.together("a preconditioner", self._layout.alike(residual)):
                if self._weights is not None and solve is not None:
                    found = solve(found * self._weights) * self._weights
            return self._sections.fold(found)

        whole = Common(apply, mask, self._common, self._layout)
        return lambda residual: whole.settle(whole(residual), residual)


def _with_overlaps(n: int, start: int, stop: int) -> Interval:
    """The rows of a band with its overlaps, around the edges of the image."""
    length = min(-(-(stop - start + 2 * _OVERLAP) // _ROUND) * _ROUND, n)
    return start - (length - (stop - start)) // 2, length


def _root_weights(start: int, stop: int, first: int, length: int) -> Tensor:
    """The roots of the weights of rows from a first one on, of a band: across each overlap those of two sum to 1."""
    middle = torch.arange(first, first + length) + 0.5
    ramps = torch.minimum(middle - (start - _OVERLAP / 2), stop + _OVERLAP / 2 - middle) / _OVERLAP
    return ramps.clamp(0, 1).sqrt()
