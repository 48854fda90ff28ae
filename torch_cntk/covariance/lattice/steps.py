"""The rule of each node, as a step that is run slab by slab and keeps what it needs between slabs.

A step takes the images of its parents, [2, *count, *period] (Sigma and Theta) or [1, *count, *period] (Sigma alone,
where no weight layer has been passed yet), and returns its own. It may overwrite the first of them. Steps belong to one
``Program``: variances and tiles that they keep are not seen by anybody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from torch_cntk.covariance.duals import Rectifier
from torch_cntk.covariance.duals.base import plain
from torch_cntk.covariance.lattice.attend import Attend
from torch_cntk.covariance.lattice.expression import (
    Activated,
    Attended,
    Averaged,
    AveragedInside,
    Dropped,
    Features,
    Lattice,
    Mixed,
    Multiplied,
    Normalised,
    Resampled,
    Stored,
    Subsampled,
)
from torch_cntk.covariance.lattice.shifts import (
    positions_of,
    repeated,
    shifted,
    tiled,
    tiled_entries,
    unshifted,
)
from torch_cntk.covariance.lattice.step import Pointwise, Step, as_pair, at_zero
from torch_cntk.covariance.means import SpareMemory
from torch_cntk.covariance.products import product_of
from torch_cntk.covariance.resampling import Nearest
from torch_cntk.covariance.table import Slab, Table

__all__ = ["step_of"]


class _LookUp(Step[Stored]):
    temporaries = 4

    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        geometry = self.node.geometry
        sigma = Table(self.node.table.values[:1], geometry)
        # Where all pixels are alike, so are the bands: one plan serves all of them.
        slab = replace(slab, band=None) if max(geometry.period) == 1 else slab
        return sigma.gather(slab, (Nearest(1),) * self.node.ndim, geometry.size, geometry.period)


class _Multiply(Step[Features]):
    """Products of the features with their shifts."""

    def __init__(self, node: Features, theta_alone: bool, spare: SpareMemory, tables: Mapping[Lattice, Table]) -> None:
        super().__init__(node, theta_alone, spare, tables)
        self._tiles: Tensor | None = None

    def kept_bytes(self) -> int:
        """Tiled channels, and these times their weight."""
        node = self.node
        return 2 * len(node.features) * tiled_entries(node.geometry.size, node.geometry.size) * node.dtype.itemsize

    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        node, period = self.node, self.node.geometry.period
        if self._tiles is None:
            # Not before the whole computation is known to fit into memory.
            self._tiles = tiled(node.features.to(node.dtype), period)
            self._weighted = self._tiles * (node.weight / len(self._tiles))
        sigma = self._spare.like(self._tiles, (1, *slab.count, *positions_of(period, slab)))
        here, there = unshifted(self._weighted, period, slab), shifted(self._tiles, period, slab)
        torch.mul(here[0], there[0], out=sigma[0])
        for k in range(1, len(here)):
            sigma[0].addcmul_(here[k], there[k])
        return sigma


class _Average(Step[Averaged]):
    temporaries = 2

    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        (images,) = inputs
        gains = self.node.gains
        if self.node.parent.untrained:
            return self._of_untrained(images, slab)
        sigma, theta = images[:1], images[1:]
        if gains.weight != 1:
            theta.mul_(gains.weight)
        theta.add_(sigma, alpha=gains.trained_weight)
        if self.theta_alone:
            return _plus(self._mean(theta, slab), gains.trained_bias)
        if gains.weight != 1:
            sigma.mul_(gains.weight)
        return self._plus_biases(self._mean(images, slab))

    def _of_untrained(self, sigma: Tensor, slab: Slab) -> Tensor:
        """Where Theta is 0 before."""
        gains = self.node.gains
        mean = self._mean(sigma, slab)
        if self.theta_alone:
            return _plus(_times(mean, gains.trained_weight), gains.trained_bias)
        pair = self._spare.like(mean, (2, *mean.shape[1:]))
        torch.mul(mean[0], gains.weight, out=pair[0])
        torch.mul(mean[0], gains.trained_weight, out=pair[1])
        self._spare.keep(mean)
        return self._plus_biases(pair)

    def _plus_biases(self, pair: Tensor) -> Tensor:
        gains = self.node.gains
        if gains.bias == gains.trained_bias:
            return _plus(pair, gains.bias)
        _plus(pair[:1], gains.bias)
        _plus(pair[1:], gains.trained_bias)
        return pair

    def _mean(self, images: Tensor, slab: Slab) -> Tensor:
        """The mean in the images' memory, or in other memory of their shape if the number of axes is odd."""
        node, given = self.node, images
        for axis, (q, p) in enumerate(zip(node.patches.width, node.geometry.period, strict=True)):
            offsets = node.patches.offsets(axis)
            if p > 1 and (q > 1 or offsets[0] != 0):
                # Of a band the first and the last rows get wrong values; they are cut off in the end.
                mean = given if images is not given else self._spare.like(images)
                self._spare.means.around(images, offsets, images.ndim - node.ndim + axis, mean)
                images, given = mean, images
        if given is not images:
            self._spare.keep(given)
        return images


class _AverageInside(_Average):
    temporaries = 4

    def _mean(self, images: Tensor, slab: Slab) -> Tensor:
        images = repeated(images, self.node.geometry.size)
        for axis in range(self.node.ndim):
            if self.node.patches.reach(axis):
                images = self._mean_inside(images, slab, axis)
        return images

    def _mean_inside(self, images: Tensor, slab: Slab, axis: int) -> Tensor:
        """Sum over the neighbours along ``axis`` of which both pixels, x + d and x' + d, are inside; over the width."""
        n, offsets = self.node.geometry.size[axis], self.node.patches.offsets(axis)
        first = torch.arange(n, device=images.device)
        second = (first + slab.displacements(axis, images.device)[:, None]) % n
        dim = axis - self.node.ndim
        shape = [1] * images.ndim
        shape[1 + axis] = slab.count[axis]
        weight = 1 / len(offsets)
        mean = images * (weight if 0 in offsets else 0.0)
        for offset in offsets:
            rest = n - abs(offset)
            if offset == 0 or rest <= 0:
                continue
            # Pixels x whose neighbour x + d is inside, and whether that of x' is.
            to, of = max(-offset, 0), max(offset, 0)
            shape[dim] = rest
            other = second[:, to : to + rest] + offset
            inside = ((other >= 0) & (other < n)).to(images.dtype).view(shape)
            mean.narrow(dim, to, rest).addcmul_(images.narrow(dim, of, rest), inside, value=weight)
        return mean


def _times(images: Tensor, factor: float) -> Tensor:
    """In place."""
    return images if factor == 1 else images.mul_(factor)


def _plus(images: Tensor, offset: float) -> Tensor:
    """In place."""
    return images.add_(offset) if offset else images


class _Activate(Pointwise[Activated]):
    def __init__(self, node: Activated, theta_alone: bool, spare: SpareMemory, tables: Mapping[Lattice, Table]) -> None:
        super().__init__(node, theta_alone, spare, tables)
        self._lengths: Tensor | None = None
        self._plain: bool | None = None

    def kept_bytes(self) -> int:
        """The variance image and its roots, tiled."""
        return 3 * super().kept_bytes()

    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        pair = as_pair(inputs[0])
        variance, dual = self._variance_of(pair[0], slab), self.node.dual
        if isinstance(dual, Rectifier):
            if self._plain is None:
                self._plain = plain(variance, variance)
            if self._plain:
                return self._rectify(dual, pair, variance, slab)
        sigma, theta = pair
        value, slope = dual(sigma, *self._variances(sigma, slab))
        # Before the value is put into its place, where some duals leave the slope.
        theta.mul_(slope)
        if value.data_ptr() != sigma.data_ptr():
            sigma.copy_(value)
        return pair

    def _rectify(self, dual: Rectifier, pair: Tensor, variance: Tensor, slab: Slab) -> Tensor:
        period = self.node.geometry.period
        if self._lengths is None:
            # Of the variance image, as roots take longer than products.
            self._lengths = tiled(torch.stack(dual.lengths(variance)), self.node.geometry.size)
        here, there = unshifted(self._lengths, period, slab), shifted(self._lengths, period, slab)
        # As large as both, as what a mean takes: the same memory.
        free = self._spare.like(pair)
        dual.by_arcsine(pair, here.unbind(), there.unbind(), *free)
        self._spare.keep(free)
        return pair


class _Normalise(Pointwise[Normalised]):
    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        node = self.node
        pair = as_pair(inputs[0])
        variance, other = self._variances(pair[0], slab)
        norm = torch.mul(variance + node.epsilon, other + node.epsilon, out=torch.empty_like(pair[0])).sqrt_()
        # Features that vanish stay so: 0 / 0 is 0.
        pair /= norm if node.epsilon else norm.clamp_min_(torch.finfo(norm.dtype).tiny)
        if node.affine:
            pair[1] += pair[0]
            pair[1] += 1
        return pair


class _Drop(Step[Dropped]):
    """The first displacement, if that is 0."""

    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        (images,) = inputs
        if slab.holds_zero:
            at_zero(images, self.node.ndim).div_(self.node.kept)
        return images


class _Mix(Step[Mixed]):
    temporaries = 0

    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        positions = positions_of(self.node.geometry.period, slab)
        weights = self.node.weights
        first = inputs[0] if self.node.untrained else self._wanted(0, inputs[0])
        total = repeated(first, positions)
        if weights[0] != 1:
            total *= weights[0]
        for place in range(1, len(inputs)):
            part = self._wanted(place, inputs[place]) if self.theta_alone else inputs[place]
            # Of a branch without weights Sigma only.
            self._add(total[: part.shape[0]], part, weights[place], positions)
        return total

    def _wanted(self, place: int, images: Tensor) -> Tensor:
        """Theta alone, where it is; or both."""
        if not self.node.branches[place].untrained:
            return images[-1:] if self.theta_alone else images
        return torch.zeros_like(images) if self.theta_alone else as_pair(images)

    def _add(self, total: Tensor, part: Tensor, weight: float, positions: tuple[int, ...]) -> None:
        ndim = self.node.ndim
        period = part.shape[-ndim:]
        # Adding float64 to float32 in place would copy the total twice.
        part = part.to(total.dtype)
        # Every axis of the total as [repetitions, period], over which the part broadcasts.
        view = total.view(
            *total.shape[:-ndim], *(n for p, q in zip(positions, period, strict=True) for n in (p // q, q))
        )
        view.add_(part.view(*part.shape[:-ndim], *(n for q in period for n in (1, q))), alpha=weight)


class _Multiplied(Step[Multiplied]):
    temporaries = 4

    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        positions = positions_of(self.node.geometry.period, slab)
        return product_of([repeated(part, positions) for part in inputs])


class _Subsample(Step[Subsampled]):
    temporaries = 0

    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        """T'[u][a] = T[r u][r a]; the parent's slab holds the displacements r u."""
        node = self.node
        pair = as_pair(inputs[0])
        for axis, (p, r) in enumerate(zip(node.parent.geometry.period, node.stride, strict=True)):
            if p == 1 or r == 1:
                continue
            dim = 1 + node.ndim + axis
            if p % r == 0:
                pair = pair[(slice(None),) * dim + (slice(None, None, r),)]
            else:
                kept = torch.arange(node.geometry.period[axis], device=pair.device) * r % p
                pair = pair.index_select(dim, kept)
        return pair.contiguous()


class _Resample(Step[Resampled]):
    """A gather from the finished table of the node before."""

    temporaries = 6

    def run(self, inputs: list[Tensor], slab: Slab) -> Tensor:
        node = self.node
        return self._tables[node.parent].gather(slab, node.resampling, node.geometry.size, node.geometry.period)


_STEPS: dict[type[Lattice], type[Step]] = {
    Stored: _LookUp,
    Features: _Multiply,
    Averaged: _Average,
    AveragedInside: _AverageInside,
    Activated: _Activate,
    Normalised: _Normalise,
    Dropped: _Drop,
    Mixed: _Mix,
    Multiplied: _Multiplied,
    Subsampled: _Subsample,
    Resampled: _Resample,
    Attended: Attend,
}


def step_of(node: Lattice, theta_alone: bool, spare: SpareMemory, tables: Mapping[Lattice, Table]) -> Step:
    """The step that computes a node."""
    return _STEPS[type(node)](node, theta_alone, spare, tables)
