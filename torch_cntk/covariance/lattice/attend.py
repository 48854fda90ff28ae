"""Self-attention in the displacement-major form: a product of matrices of all pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from torch_cntk.covariance.attention import attended, places
from torch_cntk.covariance.lattice.expression import Attended, Lattice
from torch_cntk.covariance.lattice.step import Step
from torch_cntk.covariance.means import SpareMemory
from torch_cntk.covariance.table import Slab, Table

__all__ = ["Attend"]


class Attend(Step[Attended]):
    """A product of matrices of all pixels, made once, of which each slab is a part."""

    temporaries = 4

    def __init__(self, node: Attended, theta_alone: bool, spare: SpareMemory, tables: Mapping[Lattice, Table]) -> None:
        super().__init__(node, theta_alone, spare, tables)
        self._mixed: Tensor | None = None

    def kept_bytes(self) -> int:
        """The product, and while it is made both factors, half of the product, its transpose and where that lies."""
        pixels, rows = (math.prod(shape) for shape in (self.node.geometry.size, self.node.geometry.period))
        return (3 * pixels + 8 * rows) * pixels * torch.float64.itemsize

    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        """See ``Step``."""
        geometry, device = self.node.geometry, self.node.device
        if self._mixed is None:
            self._mixed = self._product()
        positions = [torch.arange(p, device=device) for p in geometry.period]
        displacements = [slab.displacements(axis, device) for axis in range(geometry.ndim)]
        other = places(geometry.size, displacements, positions)
        index = torch.arange(other.shape[1], device=device) * math.prod(geometry.size) + other
        found = torch.gather(self._mixed, 1, index.reshape(1, -1).expand(2, -1))
        return found.view(2, *slab.count, *geometry.period)

    def _product(self) -> Tensor:
        """Sigma' and Theta' of the pixels of one period and all others, [2, rows * pixels]."""
        geometry, table = self.node.geometry, self._tables[self.node.parent]
        size, pixels = geometry.size, math.prod(geometry.size)
        axes = torch.meshgrid([torch.arange(n, device=self.node.device) for n in size], indexing="ij")
        here, there = ([axis.reshape(shape) for axis in axes] for shape in ((-1, 1), (1, -1)))
        matrices = table.lookup([b - a for a, b in zip(here, there, strict=True)], here)
        weights = self.node.attention.weights(matrices[0])
        rows = weights.view(*size, pixels)[tuple(slice(p) for p in geometry.period)].reshape(-1, pixels)
        return self._symmetric(attended(matrices, rows, weights)).flatten(1)

    def _symmetric(self, product: Tensor) -> Tensor:
        """The mean with the transpose: activations behind it turn a last digit into half of the digits.

        Args:
            product: [2, rows, pixels]. What is not among its rows is as far from a pixel that is.
        """
        geometry, device = self.node.geometry, self.node.device
        here = torch.meshgrid([torch.arange(p, device=device) for p in geometry.period], indexing="ij")
        there = torch.meshgrid([torch.arange(n, device=device) for n in geometry.size], indexing="ij")
        row = column = torch.zeros(1, 1, dtype=torch.int64, device=device)
        for n, p, x, y in zip(geometry.size, geometry.period, here, there, strict=True):
            own = y.reshape(1, -1) % p
            row, column = row * p + own, column * n + (x.reshape(-1, 1) - (y.reshape(1, -1) - own)) % n
        return (product + product[:, row, column]) / 2
