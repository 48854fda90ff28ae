"""The one storage form of image kernels: a stack of images, one per displacement, periodic in the position.

``T[u][a] = K(a, a + u)`` on a torus. Displacements come first, positions last; positions are stored for one period
only (the phases), displacements only where symmetry does not give them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import product
from operator import and_

import torch
from torch import Tensor

from torch_cntk.covariance.resampling import Resampling

__all__ = ["Geometry", "Slab", "Table"]

_KEPT_INDEX = 1 << 14
"""Index arrays of at most this many entries (128 kB) are kept: kernels that small are bound by the number of calls."""

_FINER = 8
"""Slabs of square boxes are so many times as small: the finer they are, the fewer displacements are computed twice."""

_KEPT_PLANS = 128
"""How many lists of them: a kernel of ten levels takes some twenty, of one to four arrays."""


@dataclass(frozen=True)
class Slab:
    """A box of displacements ``start + step * (0 .. count - 1)`` along each axis.

    Attributes:
        start: an entry an axis, as the others.
        count: of the displacements.
        step: between them.
        band: (first, count) of the rows of positions that are wanted, where not all of them are.
    """

    start: tuple[int, ...]
    count: tuple[int, ...]
    step: tuple[int, ...]
    band: tuple[int, int] | None = None

    @property
    def holds_zero(self) -> bool:
        """Whether the first displacement is zero."""
        return not any(self.start)

    def strided(self, stride: Sequence[int]) -> Slab:
        """The displacements ``stride * u`` for u of this slab."""
        return Slab(
            tuple(s * r for s, r in zip(self.start, stride, strict=True)),
            self.count,
            tuple(s * r for s, r in zip(self.step, stride, strict=True)),
        )

    def displacements(self, axis: int, device: torch.device) -> Tensor:
        """The displacements along ``axis``, [count]."""
        return self.start[axis] + self.step[axis] * torch.arange(self.count[axis], device=device)


@dataclass(frozen=True)
class Geometry:
    """Which entries a table stores, and where any other entry is found among them.

    Attributes:
        size: pixels of the torus, an entry an axis.
        period: the table is invariant to joint shifts by this many pixels; divides the size.
        reflective: whether mirroring an axis (a -> p - 1 - a with u -> -u) leaves the table as it is. If so, each
            axis keeps displacements 0 .. n // 2; if not, only the first axis does, by K(x, x') = K(x', x).
        square: whether exchanging the first two axes leaves the table as it is; they have the same size and period
            then. All entries are kept in memory, but only half of them are computed, and written to files.
    """

    size: tuple[int, ...]
    period: tuple[int, ...]
    reflective: bool
    square: bool = False

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.size)

    @property
    def box(self) -> tuple[int, ...]:
        """Stored displacements of each axis: 0 .. box - 1."""
        return _stored_displacements(self.size, self.reflective)

    @property
    def entries(self) -> int:
        """Numbers stored in one channel."""
        return math.prod(self.box) * math.prod(self.period)

    def independent(self, first: int) -> tuple[int, int]:
        """Displacements along the second axis that give the others, where the first axis is displaced by ``first``.

        Returns:
            the first of them and the one after the last; everything unless the table is square.
        """
        if not self.square:
            return 0, self.box[1]
        return first, self.box[1] if self.reflective else min(self.size[1], self.size[1] - first + 1)

    def holds(self, displacement: Sequence[Tensor]) -> Tensor | bool:
        """Whether displacements (as for ``index``) are in the table; it is taken to be 0 at others."""
        return True

    def slabs(self, displacements: int) -> Iterator[Slab]:
        """Cut the box into slabs of about so many displacements; the first one starts at displacement zero.

        A square box that is cut at all is cut to its independent displacements; ``complete`` gives the others.
        """
        if self.square:
            displacements //= _FINER
        if math.prod(self.box) <= displacements:
            yield Slab((0,) * self.ndim, self.box, (1,) * self.ndim)
            return
        if not self.square:
            yield from _slabs((0,) * self.ndim, self.box, displacements)
            return
        first = 0
        while first < self.box[0]:
            low, high = self.independent(first)
            rest = (high - low, *self.box[2:])
            count = min(max(displacements // math.prod(rest), 1), self.box[0] - first)
            yield from _slabs((first, low, *(0,) * (self.ndim - 2)), (count, *rest), displacements)
            first += count

    def complete(self, values: Tensor) -> None:
        """Fill in what follows from the independent displacements of a square table, [channels, *box, *period]."""
        if not self.square:
            return
        n, axis = self.size[0], self.ndim
        for u in range(1, self.box[0]):
            values[:, u, :u] = values[:, :u, u].transpose(axis, axis + 1)
            if self.reflective or u == 1:
                continue
            # Beyond n - u: exchange the axes, then the pixels. K(a, a + u) is found at position a + u, displacement -u.
            other = values[:, 1:u, n - u].flip(1).transpose(axis, axis + 1).roll(-u, axis)
            for k in range(1, self.ndim):
                displaced = torch.arange(n - u + 1 if k == 1 else 0, self.size[k], device=values.device)
                if k > 1:
                    other = other.index_select(k, -displaced % self.size[k])
                place = (torch.arange(self.period[k], device=values.device) + displaced[:, None]) % self.period[k]
                shape = [1] * other.ndim
                shape[k], shape[axis + k] = place.shape
                other = torch.gather(other, axis + k, place.reshape(shape).expand(other.shape))
            values[:, u, n - u + 1 :] = other

    def index(self, displacement: Sequence[Tensor], position: Sequence[Tensor]) -> Tensor:
        """Where K(a, a + u) is stored.

        Args:
            displacement: u, one integer tensor an axis, any values (taken modulo the size).
            position: a, one integer tensor an axis, any values (taken modulo the period).

        All of them broadcast against each other; axes that do not interact are folded before they are broadcast.

        Returns:
            index into the flattened [*box, *period], of the broadcast shape.
        """
        shape = (*self.box, *self.period)
        strides = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
        direct: Tensor | None = None
        exchanged: Tensor | None = None
        swapped: Tensor | None = None
        for axis, (n, p) in enumerate(zip(self.size, self.period, strict=True)):
            u, a = displacement[axis] % n, position[axis] % p
            u_stride, a_stride = strides[axis], strides[self.ndim + axis]
            mirrored = u > n // 2
            if self.reflective:
                u, a = torch.where(mirrored, n - u, u), torch.where(mirrored, p - 1 - a, a)
            else:
                # K(x, x') = K(x', x): the other pixel takes the first one's place.
                if axis == 0:
                    swapped = mirrored
                other = (-u % n) * u_stride + ((a + u) % p) * a_stride
                # Not to be read past the box where the exchange does not apply.
                exchanged = other if exchanged is None else exchanged + other
            part = u * u_stride + a * a_stride
            direct = part if direct is None else direct + part
        assert direct is not None
        if swapped is None or exchanged is None:
            return direct
        return torch.where(swapped, exchanged, direct)

    def paired_index(self, axis: int, displacement: Tensor, position: Tensor, radius: int) -> Tensor:
        """Where ``Table.paired`` of a reflective table has K(a, a + u) along one axis.

        Args:
            axis: which.
            displacement: u, unwrapped.
            position: a, any values (taken modulo the period).
            radius: beyond which the index is that of the entry after the last, to be 0.
        """
        p = self.period[axis]
        phase = position % p
        phase = torch.where(displacement < 0, p - 1 - phase, phase)
        distance = displacement.abs()
        return torch.where(distance <= radius, distance * p + phase, self.box[axis] * p)


@dataclass(frozen=True)
class Table:
    """Numbers in displacement-major form.

    Attributes:
        values: [channels, *box, *period].
        geometry: what is stored and how the rest follows.
    """

    values: Tensor
    geometry: Geometry

    @property
    def nbytes(self) -> int:
        """Bytes of the stored numbers."""
        return self.values.numel() * self.values.element_size()

    def lookup(self, displacement: Sequence[Tensor], position: Sequence[Tensor]) -> Tensor:
        """Return K(a, a + u), [channels, *broadcast shape]; arguments as ``Geometry.index``."""
        return self._take(self.geometry.index(displacement, position))

    def within(self, radius: Sequence[int], displacement: Sequence[Tensor], position: Sequence[Tensor]) -> Tensor:
        """As ``lookup`` at unwrapped displacements, but 0 beyond the radius of any axis and where nothing is stored."""
        inside = [u.abs() <= r for u, r in zip(displacement, radius, strict=True)]
        return torch.where(
            reduce(and_, inside) & self.geometry.holds(displacement), self.lookup(displacement, position), 0
        )

    def paired(self) -> Tensor:
        """One channel of a reflective table with displacement and position of each axis folded into one, [*(box * p)].

        Where K(a, a + u) is along an axis then depends on that axis alone: see ``Geometry.paired_index``.
        """
        box, period = self.geometry.box, self.geometry.period
        order = [k for axis in range(self.geometry.ndim) for k in (axis, self.geometry.ndim + axis)]
        return self.values[0].permute(order).reshape([n * p for n, p in zip(box, period, strict=True)])

    def gather(
        self,
        slab: Slab,
        resampling: tuple[Resampling, ...],
        size: tuple[int, ...],
        period: tuple[int, ...],
    ) -> Tensor:
        """Return the slab of U T U^T for a linear map U along each axis.

        Args:
            slab: displacements of the output.
            resampling: U, an entry an axis.
            size: of the torus after the map.
            period: after the map.

        Returns:
            [channels, *slab.count, *period].
        """
        device = self.values.device
        entries = math.prod(slab.count) * math.prod(period)
        plan = _kept_plan if entries <= _KEPT_INDEX else _plan
        total: Tensor | None = None
        for index, weights in plan(self.geometry, slab, resampling, size, period, device):
            piece = self._take(index)
            for weight in weights:
                piece.mul_(weight.to(piece.dtype))
            total = piece if total is None else total.add_(piece)
        assert total is not None
        return total

    def _take(self, index: Tensor) -> Tensor:
        channels = self.values.shape[0]
        # gather is several times as fast as take or an index.
        found = torch.gather(self.values.reshape(channels, -1), 1, index.reshape(1, -1).expand(channels, -1))
        return found.view(channels, *index.shape)


@lru_cache(maxsize=256)
def _stored_displacements(size: tuple[int, ...], reflective: bool) -> tuple[int, ...]:
    return tuple(n // 2 + 1 if reflective or axis == 0 else n for axis, n in enumerate(size))


def _slabs(corner: tuple[int, ...], box: tuple[int, ...], displacements: int) -> Iterator[Slab]:
    """Cut a box of displacements into slabs of at most so many, of one shape if it can be: memory is used again."""
    counts = []
    left = max(displacements, 1)
    for n in reversed(box):
        counts.append(math.ceil(n / math.ceil(n / left)))
        left = max(left // n, 1)
    counts.reverse()
    ones = (1,) * len(box)
    for start in product(*(range(0, n, c) for n, c in zip(box, counts, strict=True))):
        count = tuple(min(c, n - s) for c, n, s in zip(counts, box, start, strict=True))
        yield Slab(tuple(c + s for c, s in zip(corner, start, strict=True)), count, ones)


def _plan(
    geometry: Geometry,
    slab: Slab,
    resampling: tuple[Resampling, ...],
    size: tuple[int, ...],
    period: tuple[int, ...],
    device: torch.device,
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The gathers that make up a slab of U T U^T: an index and the weights it is multiplied by, one pair of taps each.

    Output b, displaced by u, reads K(x, x') at x = taps(b), x' = taps(b + u), that is position x and displacement
    x' - x; along each axis these depend on that axis alone.
    """
    ndim = geometry.ndim
    choices = []
    for axis, rule in enumerate(resampling):
        positions, weights = (taps.to(device) for taps in rule.taps(geometry.size[axis]))
        # [count, period], spread over dimension `axis` (displacements) and `ndim + axis` (positions).
        shape = [1] * (2 * ndim)
        shape[axis], shape[ndim + axis] = slab.count[axis], period[axis]
        output = torch.arange(period[axis], device=device)
        other = (slab.displacements(axis, device)[:, None] + output) % size[axis]
        choices.append(
            [
                (
                    (positions[t_other][other] - positions[t][output]).view(shape),
                    positions[t][output].expand(slab.count[axis], -1).reshape(shape),
                    None if rule.single else (weights[t][output] * weights[t_other][other]).view(shape),
                )
                for t in range(len(positions))
                for t_other in range(len(positions))
            ]
        )
    for taps in product(*choices):
        index = geometry.index([tap[0] for tap in taps], [tap[1] for tap in taps])
        yield index, [tap[2] for tap in taps if tap[2] is not None]


@lru_cache(maxsize=_KEPT_PLANS)
def _kept_plan(
    geometry: Geometry,
    slab: Slab,
    resampling: tuple[Resampling, ...],
    size: tuple[int, ...],
    period: tuple[int, ...],
    device: torch.device,
) -> list[tuple[Tensor, list[Tensor]]]:
    return list(_plan(geometry, slab, resampling, size, period, device))
