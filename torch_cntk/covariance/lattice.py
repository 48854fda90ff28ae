"""Image covariances in displacement-major form, described first and computed slab by slab afterwards.

A verb adds a node to an expression. Convolutions, activations and strides never mix displacements, so a slab of
displacements runs through all of them while it sits in the cache; only a resampling needs the whole table of what
comes before it, and that is one trip through memory a resolution level.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import shape_text
from torch_cntk._internal.memory import require_bytes
from torch_cntk.covariance.base import Covariance
from torch_cntk.covariance.duals import Dual
from torch_cntk.covariance.resampling import Nearest, Resampling
from torch_cntk.covariance.table import Geometry, Slab, Table
from torch_cntk.covariance.window import Window

__all__ = ["Features", "Lattice", "Stored"]

_SLAB_ENTRIES = 1 << 17
"""Numbers of one covariance in a slab (1 MB). A quarter of it is lost to the start of torch's threads, four times as
much to the cache. Threads that take smaller slabs each are slower: Python's lock changes hands at every call."""


class Lattice(Covariance):
    """The pair (Sigma, Theta) of an image on a torus, as an expression that can be evaluated slab by slab.

    Attributes:
        geometry: size, period and symmetry of the table that it stands for.
        device: where it is computed; in float64, so that rounding does not show in float32 results (the angle
            between two almost equal features has only half of a number's digits), unless features are given with
            another precision to compute in.
        load: positions of the largest image on the way to one displacement of this node.
        untrained: whether no weight layer has been passed yet, so that Theta = 0.
        margin: rows on both sides of a band of positions (see ``Slab``) that ``evaluate`` gives wrong values for; None
            where it does not know bands.
    """

    untrained = False

    def __init__(self, geometry: Geometry, device: torch.device, load: int, parents: tuple[Lattice, ...] = ()) -> None:
        self.geometry = geometry
        self.device = device
        self.load = max(load, math.prod(geometry.period))
        self.parents = parents
        self._largest: tuple[int, ...] | None = None
        # Memory of a slab that is done with, for the next one: fresh memory costs as much as what is written into it.
        self._spare: list[Tensor] = parents[0]._spare if parents else []
        margins = [parent.margin for parent in parents]
        self.margin: int | None = None if None in margins else max((m for m in margins if m is not None), default=0)

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return self.geometry.ndim

    # Verbs.

    def average_patches(self, kernel_size: tuple[int, ...], bias_variance: float = 0.0) -> Lattice:
        """A weight layer: a circular box blur of each displacement's image."""
        return Averaged(self, kernel_size, bias_variance)

    def average_patches_inside(self, kernel_size: tuple[int, ...], bias_variance: float = 0.0) -> Lattice:
        """The same without the pairs of neighbours of which one is outside of the image."""
        inside = all(q == 1 for q in kernel_size)
        return (Averaged if inside else AveragedInside)(self, kernel_size, bias_variance)

    def activate(self, dual: Dual) -> Lattice:
        """A nonlinearity: pointwise, given the variance image and its shifts."""
        return Activated(self, dual)

    def subsample(self, stride: tuple[int, ...]) -> Lattice:
        """T'[u][a] = T[r u][r a].

        Raises:
            ValueError: the size is not a multiple of the stride.
        """
        return Subsampled(self, stride) if any(r != 1 for r in stride) else self

    def resample(self, resampling: tuple[Resampling, ...]) -> Lattice:
        """A fixed linear map along each axis.

        Raises:
            ValueError: the size does not fit the map.
        """
        square = self.geometry.square and resampling[0] == resampling[1]
        if all(rule.single for rule in resampling):
            return Resampled(self, resampling, square)
        # Pairs of taps multiply from axis to axis: one axis at a time there are far fewer of them.
        lattice: Lattice = self
        for axis, rule in enumerate(resampling):
            one = tuple(rule if k == axis else Nearest(1) for k in range(self.ndim))
            lattice = Resampled(lattice, one, square and axis == self.ndim - 1)
        return lattice

    def mix(self, weights: tuple[float, ...], others: tuple[Lattice, ...]) -> Lattice:
        """A weighted sum, slab by slab.

        Raises:
            ValueError: the branches' images differ in size.
        """
        return Mixed((self, *others), weights)

    def normalise(self, epsilon: float = 0.0, affine: bool = False) -> Lattice:
        """Pointwise, given the variance image and its shifts."""
        return Normalised(self, epsilon, affine)

    def share(self) -> Lattice:
        """Keep the last slab for the branches that ask for it next."""
        return Shared(self)

    # Evaluation.

    def _spare_like(self, images: Tensor) -> Tensor:
        """Memory of the images' shape, whatever is in it."""
        if self._spare and (self._spare[0].shape, self._spare[0].dtype) == (images.shape, images.dtype):
            return self._spare.pop()
        return torch.empty_like(images, memory_format=torch.contiguous_format)

    @abstractmethod
    def evaluate(self, slab: Slab) -> Tensor:
        """Return (Sigma, Theta) of a slab, [2, *slab.count, *period], in memory that the caller may overwrite."""

    def evaluate_ntk(self, slab: Slab) -> Tensor:
        """Return Theta of a slab, [1, *slab.count, *period]."""
        return self.evaluate(slab)[1:]

    def tabulate(
        self,
        kind: str,
        dtype: torch.dtype = torch.float64,
        *,
        radius: tuple[int, ...] | None = None,
        progress: bool = False,
    ) -> tuple[Table, float]:
        """Compute the whole table, less what it is beyond a radius.

        Args:
            kind: "ntk" (Theta) or "nngp" (Sigma).
            dtype: of the stored numbers; the computation is in float64, the subtraction as well.
            radius: beyond which the table is one number, an entry an axis; the torus is larger than twice of it. By
                default nothing is subtracted.
            progress: whether to show a bar.

        Returns:
            table of 1 channel, and the number that was subtracted.

        Raises:
            OutOfMemoryError: before anything is computed, if the tables would not fit.
        """
        needed = self.bytes_needed(dtype)
        size = shape_text(self.geometry.size)
        require_bytes(
            needed,
            f"the kernel of period {shape_text(self.geometry.period)} on {size} pixels",
            lambda free: f"about {self._fitting_size(free / needed)} would fit; float32 takes half as much as float64",
            self.device,
        )
        with tqdm(total=self._work(), disable=not progress, unit="entry", unit_scale=True, desc="kernel") as bar:
            self._prepare(bar)
            return self._tabulate(kind, dtype, bar, radius)

    def tabulate_window(
        self, kind: str, dtype: torch.dtype, reach: tuple[int, ...], *, progress: bool = False
    ) -> Table:
        """Compute the displacements of an ellipsoid only, times Wendland's taper, which vanishes at its surface.

        A product of positive semi-definite functions: the result is one, too.

        Args:
            kind: "ntk" (Theta) or "nngp" (Sigma).
            dtype: of the stored numbers.
            reach: half axes of the ellipsoid, at most half of the image.
            progress: whether to show a bar.

        Returns:
            table of 1 channel, whose geometry is a ``Window``.

        Raises:
            OutOfMemoryError: before anything is computed, if the tables would not fit.
        """
        window = Window.of(self.geometry, reach)
        self._look_within(tuple(r - 1 for r in reach))
        tables = [node.window for node in self._ancestors() if isinstance(node, Resampled)]
        before = sum(table.entries for table in tables if table is not None)
        load = max(self.load, *(math.prod(node.geometry.period) for node in self._ancestors()))
        require_bytes(
            window.entries * dtype.itemsize + before * 16 + load * 8 * 8,
            f"the kernel of {len(window.offsets)} displacements on {shape_text(self.geometry.size)} pixels",
            lambda free: "a smaller radius takes less, and dtype=torch.float16 half as much as float32",
            self.device,
        )
        with tqdm(
            total=window.entries + before,
            disable=not progress,
            unit="entry",
            unit_scale=True,
            desc="kernel",
            leave=False,
        ) as bar:
            self._prepare(bar)
            return self._tabulate_within(window, kind, dtype, bar)

    def _look_within(self, largest: tuple[int, ...]) -> None:
        """Let this node and those before it know the largest displacement that will be asked for, an entry an axis."""
        known = self._largest
        merged = largest if known is None else tuple(map(max, largest, known))
        if merged == known:
            # There may be many paths that lead here.
            return
        self._largest = merged
        for parent in self.parents:
            parent._look_within(self._displacement_before(merged))

    def _displacement_before(self, largest: tuple[int, ...]) -> tuple[int, ...]:
        """The largest displacement that is asked of the nodes before, given that of this one."""
        return largest

    def _tabulate_within(self, window: Window, kind: str, dtype: torch.dtype, bar: tqdm) -> Table:
        channels = 2 if kind == "both" else 1
        values = torch.empty((channels, *window.box, *window.period), dtype=dtype, device=self.device)
        images = values.view(channels, -1, *window.period)
        height, width = window.period[0], math.prod(window.period[1:])
        budget = _slab_entries(1, self.device)
        # A band of rows at a time where an image is too large for the cache and the network allows it.
        rows = height if self.margin is None or self.ndim == 1 else max(budget // width, 8 * self.margin, 1)
        pieces = list(window.pieces(max(budget // (min(rows, height) * width), 1)))
        if rows < height:
            # The variances of all rows come first.
            self._part(kind, pieces[0][0])
        for top in range(0, height, rows):
            count = min(rows, height - top)
            for slab, where in pieces:
                part = self._part_of_band(kind, slab, top, count).view(channels, -1, count, *window.period[1:])
                if window.tapered:
                    part = part * window.taper(where).to(part).view(-1, *(1,) * self.ndim)
                images[:, where, top : top + count] = part
                bar.update(part[0].numel())
        return Table(values, window)

    def _part_of_band(self, kind: str, slab: Slab, top: int, count: int) -> Tensor:
        """As ``_part``, for some rows of positions."""
        if self.margin is None or count == self.geometry.period[0]:
            return self._part(kind, slab)
        band = replace(slab, band=(top - self.margin, count + 2 * self.margin))
        return self._part(kind, band).narrow(1 + self.ndim, self.margin, count).contiguous()

    def bytes_needed(self, dtype: torch.dtype = torch.float64) -> int:
        """Bytes that ``tabulate`` holds at its peak: the tables of all levels and one slab with its temporaries."""
        own = self.geometry.entries * dtype.itemsize
        before = sum(node.parents[0].geometry.entries * 16 for node in self._ancestors() if isinstance(node, Resampled))
        slab = min(_slab_entries(self.load, self.device), self.geometry.entries) * 8
        # Temporaries, and the pairs that wait for other branches.
        waiting = sum(isinstance(node, Mixed | Shared) for node in self._ancestors())
        return own + before + slab * (8 + 2 * waiting)

    def _fitting_size(self, share: float) -> str:
        """The image size whose dense table takes this share of the bytes: they grow with the square of the pixels."""
        shrink = share ** (1 / (2 * self.ndim))
        return shape_text([max(1, int(n * shrink)) for n in self.geometry.size]) + " pixels"

    def _ancestors(self) -> Iterator[Lattice]:
        """This node and all that it is made from, each once."""
        seen: set[int] = set()
        waiting: list[Lattice] = [self]
        while waiting:
            node = waiting.pop()
            if id(node) not in seen:
                seen.add(id(node))
                yield node
                waiting.extend(node.parents)

    def _work(self) -> int:
        tables = [node.parents[0] for node in self._ancestors() if isinstance(node, Resampled)]
        return sum(node.geometry.entries // (2 if node.geometry.square else 1) for node in (self, *tables))

    def _prepare(self, bar: tqdm) -> None:
        for parent in self.parents:
            parent._prepare(bar)

    def _tabulate(
        self, kind: str, dtype: torch.dtype, bar: tqdm, radius: tuple[int, ...] | None = None
    ) -> tuple[Table, float]:
        """As ``tabulate``, after ``_prepare``; kind "both" gives 2 channels."""
        geometry, far = self.geometry, 0.0
        values: Tensor | None = None
        # The first slab starts at displacement zero and carries the variances for all others.
        for slab in geometry.slabs(_slab_entries(self.load, self.device) // self.load):
            part = self._part(kind, slab)
            bar.update(math.prod(part.shape[1:]))
            if radius is not None:
                if slab.holds_zero:
                    far = self._value_beyond(radius, kind, part, slab)
                part -= far
            if slab.count == geometry.box:
                values = part.to(dtype)
                break
            if values is None:
                values = part.new_empty((part.shape[0], *geometry.box, *geometry.period), dtype=dtype)
            where = tuple(slice(s, s + c) for s, c in zip(slab.start, slab.count, strict=True))
            values[(slice(None), *where)] = part
        else:
            assert values is not None
            geometry.complete(values)
        return Table(values, geometry), far

    def _part(self, kind: str, slab: Slab) -> Tensor:
        if kind == "ntk":
            return self.evaluate_ntk(slab)
        return self.evaluate(slab)[: 1 if kind == "nngp" else 2]

    def _value_beyond(self, radius: tuple[int, ...], kind: str, first: Tensor, slab: Slab) -> float:
        """The number that the table holds beyond a radius, given its first slab."""
        beyond = tuple(r + 1 for r in radius)
        if all(u < c for u, c in zip(beyond, slab.count, strict=True)):
            return float(first[(0, *beyond, *(0,) * self.ndim)])
        ones = (1,) * self.ndim
        return float(self._part(kind, Slab(beyond, ones, ones)).flatten()[0])


class Stored(Lattice):
    """The covariance of a prior, known as a table."""

    untrained = True

    def __init__(self, table: Table) -> None:
        super().__init__(table.geometry, table.values.device, 1)
        self.table = table
        self._identity = (Nearest(1),) * self.ndim

    def evaluate(self, slab: Slab) -> Tensor:
        """Look the slab up."""
        return self.table.gather(slab, self._identity, self.geometry.size, self.geometry.period)


class Features(Lattice):
    """The covariance of given features Z: Sigma(x, x') = weight * mean over channels of Z_c(x) Z_c(x'), Theta = 0.

    ``dtype`` is that of the computation, of this node and all that follow.
    """

    untrained = True

    def __init__(self, features: Tensor, weight: float = 1.0, dtype: torch.dtype = torch.float64) -> None:
        size = tuple(features.shape[1:])
        square = len(size) == 2 and _same_channels(features, features.transpose(1, 2))
        super().__init__(Geometry(size, size, reflective=False, square=square), features.device, 1)
        self._given = features
        self._weight = weight / len(features)
        self._dtype = dtype

    @cached_property
    def _channels(self) -> list[Tensor]:
        """Each channel, tiled; not made before the whole computation is known to fit into memory."""
        repeats = (3,) * self.ndim
        return [channel.repeat(repeats) for channel in self._given.to(self._dtype)]

    def evaluate(self, slab: Slab) -> Tensor:
        """Products of the features with their shifts."""
        here = replace(slab, start=(0,) * self.ndim, count=(1,) * self.ndim)
        period = _rows_of(self.geometry.period, slab)
        pair = torch.zeros((2, *slab.count, *period), dtype=self._dtype, device=self.device)
        for tiled in self._channels:
            own, others = (_shifted(tiled, self.geometry.period, which) for which in (here, slab))
            pair[0].addcmul_(own, others, value=self._weight)
        return pair


class Averaged(Lattice):
    """A weight layer."""

    def __init__(self, parent: Lattice, kernel_size: tuple[int, ...], bias_variance: float) -> None:
        square = parent.geometry.square and kernel_size[0] == kernel_size[1]
        super().__init__(replace(parent.geometry, square=square), parent.device, parent.load, (parent,))
        self._kernel_size = kernel_size
        self._bias_variance = bias_variance
        if self.margin is not None:
            self.margin += kernel_size[0] // 2

    def evaluate(self, slab: Slab) -> Tensor:
        """Theta' = P[Theta + Sigma] + b, Sigma' = P[Sigma] + b."""
        pair = self.parents[0].evaluate(slab)
        if self.parents[0].untrained:
            return self._blur(pair[:1], slab).repeat(2, *(1,) * (2 * self.ndim))
        pair[1] += pair[0]
        return self._blur(pair, slab)

    def evaluate_ntk(self, slab: Slab) -> Tensor:
        """As ``evaluate``, without the patch average of Sigma, which nobody needs after the last layer."""
        pair = self.parents[0].evaluate(slab)
        return self._blur(pair[1:].add_(pair[:1]), slab)

    def _blur(self, images: Tensor, slab: Slab) -> Tensor:
        for axis, (q, p) in enumerate(zip(self._kernel_size, self.geometry.period, strict=True)):
            if q > 1 and p > 1:
                # Of a band the first and the last rows get wrong values; they are cut off in the end.
                mean = self._spare_like(images)
                _circular_box_mean(images, q, axis - self.ndim, out=mean)
                self._spare[:] = [images]
                images = mean
        return images.add_(self._bias_variance) if self._bias_variance else images


class AveragedInside(Averaged):
    """A weight layer over patches that are padded with zeros: its period is the image."""

    def __init__(self, parent: Lattice, kernel_size: tuple[int, ...], bias_variance: float) -> None:
        super().__init__(parent, kernel_size, bias_variance)
        self.geometry = replace(self.geometry, period=self.geometry.size)
        self.load = max(self.load, math.prod(self.geometry.size))
        self.margin = None

    def _blur(self, images: Tensor, slab: Slab) -> Tensor:
        images = _repeated(images, self.geometry.size)
        for axis, q in enumerate(self._kernel_size):
            if q > 1:
                images = self._mean_inside(images, slab, axis)
        return images.add_(self._bias_variance) if self._bias_variance else images

    def _mean_inside(self, images: Tensor, slab: Slab, axis: int) -> Tensor:
        """Sum over the neighbours along ``axis`` of which both pixels, x + d and x' + d, are inside; over the width."""
        n, width = self.geometry.size[axis], self._kernel_size[axis]
        first = torch.arange(n, device=images.device)
        second = (first + slab.displacements(axis, images.device)[:, None]) % n
        shape = [1] * images.ndim
        shape[1 + axis] = slab.count[axis]
        mean = images * (1 / width)
        for shift in range(1, min(width // 2, n - 1) + 1):
            rest = n - shift
            shape[axis - self.ndim] = rest
            forth = (second[:, :rest] < rest).to(images.dtype).view(shape)
            back = (second[:, shift:] >= shift).to(images.dtype).view(shape)
            dim = axis - self.ndim
            mean.narrow(dim, 0, rest).addcmul_(images.narrow(dim, shift, rest), forth, value=1 / width)
            mean.narrow(dim, shift, rest).addcmul_(images.narrow(dim, 0, rest), back, value=1 / width)
        return mean


class _Pointwise(Lattice):
    """What needs the variances. The first slab starts at displacement zero: it carries them for all."""

    def __init__(self, parent: Lattice) -> None:
        super().__init__(parent.geometry, parent.device, parent.load, (parent,))
        self._variance: Tensor | None = None
        self._tiled: Tensor | None = None

    def _variances(self, sigma: Tensor, slab: Slab) -> tuple[Tensor, Tensor]:
        """Sigma(x, x), [*period], and Sigma(x', x'), [*count, *period], for the parent's Sigma of a slab.

        Raises:
            RuntimeError: another slab was asked for before the one at displacement zero.
        """
        if self._variance is None or self._tiled is None:
            if not slab.holds_zero:
                raise RuntimeError("the first slab must start at displacement zero")
            self._variance = sigma[(0,) * self.ndim].clone()
            sizes = zip(self.geometry.size, self.geometry.period, strict=True)
            self._tiled = self._variance.repeat([1 if p == 1 else 2 + n // p for n, p in sizes])
        variance = self._variance
        if slab.band is not None:
            here = replace(slab, start=(0,) * self.ndim, count=(1,) * self.ndim)
            variance = _shifted(self._tiled, self.geometry.period, here)[(0,) * self.ndim]
        return variance, _shifted(self._tiled, self.geometry.period, slab)


class Activated(_Pointwise):
    """A nonlinearity."""

    def __init__(self, parent: Lattice, dual: Dual) -> None:
        super().__init__(parent)
        self._dual = dual

    def evaluate(self, slab: Slab) -> Tensor:
        """Sigma' = value, Theta' = Theta * slope."""
        pair = self.parents[0].evaluate(slab)
        value, slope = self._dual(pair[0], *self._variances(pair[0], slab))
        # Before the value is put into its place, where some duals leave the slope.
        pair[1] *= slope
        if value.data_ptr() != pair.data_ptr():
            pair[0] = value
        return pair


class Normalised(_Pointwise):
    """Division by the root mean square over channels."""

    def __init__(self, parent: Lattice, epsilon: float, affine: bool) -> None:
        super().__init__(parent)
        self._epsilon = epsilon
        self._affine = affine

    def evaluate(self, slab: Slab) -> Tensor:
        """Sigma' = Sigma / n, Theta' = Theta / n, with Sigma' + 1 added to Theta' if scale and offset are trained."""
        pair = self.parents[0].evaluate(slab)
        variance, other = self._variances(pair[0], slab)
        norm = torch.mul(variance + self._epsilon, other + self._epsilon, out=torch.empty_like(pair[0])).sqrt_()
        # Features that vanish stay so: 0 / 0 is 0.
        pair /= norm if self._epsilon else norm.clamp_min_(torch.finfo(norm.dtype).tiny)
        if self._affine:
            pair[1] += pair[0]
            pair[1] += 1
        return pair


class Mixed(Lattice):
    """A weighted sum of branches; its period is their least common one."""

    def __init__(self, parents: tuple[Lattice, ...], weights: tuple[float, ...]) -> None:
        first = parents[0].geometry
        for parent in parents[1:]:
            if parent.geometry.size != first.size:
                sizes = f"{shape_text(first.size)} and {shape_text(parent.geometry.size)}"
                raise ValueError(f"expected branches with outputs of one size, got {sizes} pixels")
        geometry = Geometry(
            first.size,
            tuple(math.lcm(*periods) for periods in zip(*(p.geometry.period for p in parents), strict=True)),
            all(parent.geometry.reflective for parent in parents),
            all(parent.geometry.square for parent in parents),
        )
        super().__init__(geometry, parents[0].device, max(parent.load for parent in parents), parents)
        self._weights = weights
        self.untrained = all(parent.untrained for parent in parents)

    def evaluate(self, slab: Slab) -> Tensor:
        """Both are summed."""
        return self._sum([parent.evaluate for parent in self.parents], slab)

    def evaluate_ntk(self, slab: Slab) -> Tensor:
        """Theta of each branch."""
        return self._sum([parent.evaluate_ntk for parent in self.parents], slab)

    def _sum(self, branches: list[Callable[[Slab], Tensor]], slab: Slab) -> Tensor:
        rows = _rows_of(self.geometry.period, slab)
        total = _repeated(branches[0](slab), rows)
        if self._weights[0] != 1:
            total *= self._weights[0]
        for branch, weight in zip(branches[1:], self._weights[1:], strict=True):
            part = branch(slab)
            period = part.shape[-self.ndim :]
            # Every axis of the total as [repetitions, period], over which the part broadcasts.
            view = total.view(
                *total.shape[: -self.ndim],
                *(n for p, q in zip(rows, period, strict=True) for n in (p // q, q)),
            )
            view.add_(part.view(*part.shape[: -self.ndim], *(n for q in period for n in (1, q))), alpha=weight)
        return total


class Shared(Lattice):
    """A covariance that several branches read: the last slab is kept, so that it is computed once for all of them."""

    def __init__(self, parent: Lattice) -> None:
        super().__init__(parent.geometry, parent.device, parent.load, (parent,))
        self._kept: tuple[Slab, Tensor] | None = None
        self._prepared = False

    def _prepare(self, bar: tqdm) -> None:
        # Once, not once for every path that leads here: there may be 2^depth of them.
        if not self._prepared:
            self._prepared = True
            super()._prepare(bar)

    def evaluate(self, slab: Slab) -> Tensor:
        """A copy of the slab."""
        if self._kept is None or self._kept[0] != slab:
            self._kept = None
            self._kept = (slab, self.parents[0].evaluate(slab))
        return self._kept[1].clone()


class Subsampled(Lattice):
    """Every r-th pixel; only the displacements that are kept are ever computed."""

    def __init__(self, parent: Lattice, stride: tuple[int, ...]) -> None:
        size, period = parent.geometry.size, parent.geometry.period
        for n, r in zip(size, stride, strict=True):
            if n % r:
                raise ValueError(f"stride {r} needs a multiple of {r} pixels, got {shape_text(size)}")
        geometry = Geometry(
            tuple(n // r for n, r in zip(size, stride, strict=True)),
            tuple(p // math.gcd(p, r) for p, r in zip(period, stride, strict=True)),
            # Keeping pixel 0 of each stride prefers one side, unless all pixels are alike.
            parent.geometry.reflective and all(p == 1 or r == 1 for p, r in zip(period, stride, strict=True)),
            parent.geometry.square and stride[0] == stride[1],
        )
        super().__init__(geometry, parent.device, parent.load, (parent,))
        self._stride = stride
        self.margin = None

    def _displacement_before(self, largest: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(u * r for u, r in zip(largest, self._stride, strict=True))

    def evaluate(self, slab: Slab) -> Tensor:
        """T'[u][a] = T[r u][r a]."""
        pair = self.parents[0].evaluate(slab.strided(self._stride))
        for axis, (p, r) in enumerate(zip(self.parents[0].geometry.period, self._stride, strict=True)):
            if p == 1 or r == 1:
                continue
            dim = 1 + self.ndim + axis
            if p % r == 0:
                pair = pair[(slice(None),) * dim + (slice(None, None, r),)]
            else:
                kept = torch.arange(self.geometry.period[axis], device=pair.device) * r % p
                pair = pair.index_select(dim, kept)
        return pair.contiguous()


class Resampled(Lattice):
    """A fixed linear map along each axis, read from the finished table of what comes before."""

    def __init__(self, parent: Lattice, resampling: tuple[Resampling, ...], square: bool) -> None:
        size, period = parent.geometry.size, parent.geometry.period
        geometry = Geometry(
            tuple(axis.output_size(n) for axis, n in zip(resampling, size, strict=True)),
            tuple(axis.output_period(p, n) for axis, p, n in zip(resampling, period, size, strict=True)),
            parent.geometry.reflective,
            square,
        )
        super().__init__(geometry, parent.device, 1, (parent,))
        self._resampling = resampling
        self.margin = None
        self._table: Table | None = None

    @property
    def window(self) -> Window | None:
        """Of the table before it, where ``_look_within`` has told which displacements are needed."""
        if self._largest is None:
            return None
        return Window.box_of(self.parents[0].geometry, self._displacement_before(self._largest))

    def _displacement_before(self, largest: tuple[int, ...]) -> tuple[int, ...]:
        sizes = self.parents[0].geometry.size
        return tuple(rule.input_displacement(u, n) for rule, u, n in zip(self._resampling, largest, sizes, strict=True))

    def _prepare(self, bar: tqdm) -> None:
        super()._prepare(bar)
        if self._table is not None:
            return
        if self.window is not None:
            self._table = self.parents[0]._tabulate_within(self.window, "both", torch.float64, bar)
        else:
            self._table, _ = self.parents[0]._tabulate("both", torch.float64, bar)

    def evaluate(self, slab: Slab) -> Tensor:
        """Gather the slab from the coarser table.

        Raises:
            RuntimeError: the coarser table has not been prepared.
        """
        if self._table is None:
            raise RuntimeError("the level below has not been computed")
        return self._table.gather(slab, self._resampling, self.geometry.size, self.geometry.period)


def _same_channels(features: Tensor, others: Tensor) -> bool:
    """Whether both have the same channels, in any order (of many channels: in this order)."""
    if features.shape != others.shape:
        return False
    if len(features) > 8:
        return torch.equal(features, others)
    left = list(others)
    for channel in features:
        match = next((k for k, other in enumerate(left) if torch.equal(channel, other)), None)
        if match is None:
            return False
        del left[match]
    return True


def _slab_entries(load: int, device: torch.device) -> int:
    """Numbers of one covariance in a slab; at least one displacement."""
    return max(_SLAB_ENTRIES if device.type == "cpu" else _SLAB_ENTRIES << 6, load)


def _circular_box_mean(images: Tensor, width: int, axis: int, out: Tensor) -> None:
    """Write the mean of ``width`` (odd) neighbours along ``axis``, around the edge, into ``out``."""
    length, weight = images.shape[axis], 1 / width
    mean = torch.mul(images, weight, out=out)
    for shift in range(1, width // 2 + 1):
        shift %= length
        if shift == 0:
            mean.add_(images, alpha=2 * weight)
            continue
        # The neighbour on one side, then the one on the other; each in two pieces, as it comes around the edge.
        rest = length - shift
        mean.narrow(axis, 0, rest).add_(images.narrow(axis, shift, rest), alpha=weight)
        mean.narrow(axis, rest, shift).add_(images.narrow(axis, 0, shift), alpha=weight)
        mean.narrow(axis, shift, rest).add_(images.narrow(axis, 0, rest), alpha=weight)
        mean.narrow(axis, 0, shift).add_(images.narrow(axis, rest, shift), alpha=weight)


def _repeated(images: Tensor, period: tuple[int, ...]) -> Tensor:
    """Periodic images, [..., *old period], as images of a longer period."""
    ndim = len(period)
    repeats = [p // old for p, old in zip(period, images.shape[-ndim:], strict=True)]
    return images.repeat(*(1,) * (images.ndim - ndim), *repeats) if any(r > 1 for r in repeats) else images


def _shifted(tiled: Tensor, period: tuple[int, ...], slab: Slab) -> Tensor:
    """The view [*count, *period] of a tiled periodic image: entry [u, a] is image(a + u). Nothing is copied.

    Of the rows a of positions only those of the slab's band.
    """
    stride = tiled.stride()
    if slab.band is not None:
        # The rows that the band begins with are a displacement as well.
        slab = replace(slab, start=(slab.start[0] + slab.band[0], *slab.start[1:]))
    offset = sum(s % p * k for s, p, k in zip(slab.start, period, stride, strict=True))
    # An image of one pixel is not repeated: all its shifts are the same.
    step = tuple(s * k if p > 1 else 0 for s, k, p in zip(slab.step, stride, period, strict=True))
    return torch.as_strided(tiled, (*slab.count, *_rows_of(period, slab)), (*step, *stride), offset)


def _rows_of(period: tuple[int, ...], slab: Slab) -> tuple[int, ...]:
    """Shape of the positions that a slab is wanted for."""
    return period if slab.band is None else (slab.band[1], *period[1:])
