"""Content-aware passes: the estimate of an image is the feature prior of the kernel that makes the next estimate.

The kernel of a shallow network compares what is seen around two pixels and where they are, within a radius; see
docs/math.md. ``torch_cntk.images.trials`` chooses their settings and number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from torch_cntk import priors
from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.contexts import weightless
from torch_cntk._internal.memory import available_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk.covariance import Extent, Lattice, Stored, Table
from torch_cntk.images.coarse import Coarse
from torch_cntk.images.filler import Equations, Filler, Locality
from torch_cntk.images.masks import has_holes, reach
from torch_cntk.images.observed import Observed
from torch_cntk.images.seen import Whole, features, local_mean, mirrored
from torch_cntk.images.windows import Cut
from torch_cntk.layers import Layer, LeakyReLU, Sequential
from torch_cntk.layers.conv import CONVOLUTIONS
from torch_cntk.solvers import Settled, Solver

__all__ = ["Guidance", "Guided", "guided_network", "guided_series"]

_MOST_BYTES = 2 << 30
"""Of a stencil in float32; larger ones are kept in float16. At most a third of the free memory, too."""
_CELLS = (4, 2.5)
"""A hole's reach in pixels of the smaller images that are tried."""
_BLURRED = 3
"""Standard deviations after which a Gaussian is over."""
_SHARE_AROUND_HOLES = 0.9
"""Of observed pixels, for the settings where the mask has holes: around them everything is observed."""


@dataclass(frozen=True)
class Guided:
    """A pass whose kernel is that of an estimate. The estimate is scaled to a standard deviation of 1 before weighting.

    The feature prior has the covariance ``coordinates * exp(-|u|^2 / (2 length^2)) + white [u = 0] + constant +
    detail <d, d'> + level <m, m'>``, where m is the local mean of the estimate, d what is left of it, and products
    are summed over the image's channels. The regression is of the image less m. Each channel of an estimate is clipped
    to the range of its observed pixels: far outliers would make features of their own.

    Attributes:
        radius: of the window, in pixels.
        detail: weight of the estimate's detail.
        level: weight of its local mean.
        smoothing: standard deviation in pixels of the Gaussian that takes the local mean.
        coordinates: weight of the coordinates.
        length: of the coordinates' Gaussian, in pixels.
        white: variance of white noise.
        constant: added to all entries.
        ridge: of the regression, relative to the mean of the kernel's diagonal.
        network: None takes ``guided_network``.
        relaxation: from 0 to below 1. Behind two guided passes, this one looks beyond the last estimate, by so much of
            the last change: passes go on in one direction, and four then do as well as six.
        solver: None takes ``Settled()``, which stops when the picture no longer changes; for a residual of your own
            take ``ConjugateGradient(1e-2, preconditioner="jacobi")``, say.

    Raises:
        TypeError: a setting is no number.
        ValueError: a setting is out of range.
    """

    radius: int = 10
    detail: float = 3.0
    level: float = 0.05
    smoothing: float = 2.0
    coordinates: float = 0.02
    length: float = 8.0
    white: float = 1e-3
    constant: float = 1e-4
    ridge: float = 1e-3
    network: Layer | None = field(default=None, kw_only=True)
    relaxation: float = field(default=0.5, kw_only=True)
    solver: Solver | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        positive_int(self.radius, "radius")
        for name in ("detail", "level", "coordinates", "constant", "ridge"):
            finite_number(getattr(self, name), name, minimum=0)
        for name in ("smoothing", "length", "white"):
            if finite_number(getattr(self, name), name, minimum=0) == 0:
                raise ValueError(f"expected {name} > 0, got 0")
        if not finite_number(self.relaxation, "relaxation", minimum=0) < 1:
            raise ValueError(f"expected relaxation to be below 1, got {self.relaxation}")

    def equations(self, given: Observed, estimate: Tensor | None) -> Equations:
        """See ``Filler``.

        Raises:
            ValueError: there is no estimate, or there are several images.
            OutOfMemoryError: the kernel would not fit.
        """
        return self._posed(given, estimate, None)

    def divided(self, mesh: Mesh) -> _OnRanks:
        """See ``Divisible``: each rank makes and keeps a share of the kernel's displacements."""
        return _OnRanks(self, mesh)

    def locality(self, given: Observed, estimate: Tensor | None) -> Locality | None:
        """See ``Local``: what windows take from the whole image are the scale and the range of the estimate."""
        if given.wrap or estimate is None or len(given.pixels) != 1:
            return None
        # Twice the window: what fills a pixel is within the radius, and is weighed against what is within it in turn.
        # The local mean that features are taken from must be right there.
        margin = 2 * self.radius + math.ceil(_BLURRED * self.smoothing) + reach(given.single_mask)
        plan = Cut((margin,) * given.ndim, (1,) * given.ndim, self._torus)
        return Locality(lambda: _OfPart(self, Whole.of(given, estimate, self)), plan, self.ridge)

    def _posed(
        self, given: Observed, estimate: Tensor | None, whole: Whole | None, mesh: Mesh | None = None
    ) -> Equations:
        """The equations of an image, or of a part of ``whole``.

        Raises:
            ValueError: there is no estimate.
        """
        if estimate is None:
            raise ValueError("expected an estimate, whose kernel a guided pass takes, got None")
        observed = given.single_mask
        if whole is None:
            seen = given.pixels[0][:, observed].reshape(given.pixels.shape[1], -1, *(1,) * (given.ndim - 1))
            low, high = seen.amin(1, keepdim=True), seen.amax(1, keepdim=True)
        else:
            low, high = whole.low, whole.high
        canvas = given.size if given.wrap else self._torus(given.size)
        extended = mirrored(given.restore(estimate.clamp(low, high))[0], canvas)
        mean = local_mean(extended, self.smoothing)
        images = given.in_one_unit(extended[None])[0], given.in_one_unit(mean[None])[0]
        ridge = self.ridge if whole is None else self._ridge_of_part(*images, whole)
        whole = whole or Whole.seen(*images, low, high)
        kernel = self._network(given.ndim).kernel(
            _prior(*images, whole, self),
            canvas,
            radius=tuple(max(min(self.radius, n // 2), 1) for n in canvas),
            taper="overlap",
            dtype=_stored_dtype(extended, canvas, self.radius),
            device=extended.device,
            mesh=mesh,
        )
        return Equations(kernel.operator(dtype=extended.dtype), ridge, mean, self.solver or Settled())

    def _ridge_of_part(self, estimate: Tensor, mean: Tensor, whole: Whole) -> float:
        """Relative to the mean of the part's diagonal, what ``ridge`` is to that of the whole.

        The diagonal's mean is the prior's times a number, as scaling the input by c scales these networks by c.
        """
        others = self.coordinates + self.white + self.constant
        here = float(features(estimate, mean, whole, self).double().square().sum(0).mean())
        return self.ridge * (others + whole.square) / (others + here)

    def _torus(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the canvas: with room for the window and for what features see, so that opposite edges do not meet.

        Each half of the room mirrors its edge: pixels at the edge shall see nothing beyond that half.

        Raises:
            ValueError: the network's pixels see all of the image.
        """
        blur, seen = math.ceil(_BLURRED * self.smoothing), self._network(len(size)).propagate(Extent.start(len(size)))
        if seen.sees_all:
            raise ValueError(
                "expected a network whose pixels see a part of the image, got attention; or take wrap=True"
            )
        rooms = (max(self.radius, 2 * (math.ceil(u) + blur)) for u in seen.seen)
        return tuple(n + min(room, n) for n, room in zip(size, rooms, strict=True))

    def _network(self, ndim: int) -> Layer:
        """The network, or the usual one."""
        return self.network or _blank_network(ndim)


@dataclass(frozen=True, eq=False)
class _OfPart:
    """A guided pass on a part of an image."""

    guided: Guided
    whole: Whole

    def equations(self, given: Observed, estimate: Tensor | None) -> Equations:
        """See ``Filler``."""
        return self.guided._posed(given, estimate, self.whole)


@dataclass(frozen=True, eq=False)
class _OnRanks:
    """A guided pass whose kernel several ranks make and multiply by together."""

    guided: Guided
    mesh: Mesh

    def equations(self, given: Observed, estimate: Tensor | None) -> Equations:
        """See ``Filler``."""
        return self.guided._posed(given, estimate, None, self.mesh)


@dataclass(frozen=True)
class Guidance(Guided):
    """Settings of guided passes that follow one another: those of ``Guided``, and how the passes begin.

    Attributes:
        coarse: passes are made on an image that is smaller by this factor along each axis, so that the window reaches
            as much further; what they change there is added to the first estimate (see ``Coarse``).

    Raises:
        TypeError: a setting is no number.
        ValueError: a setting is out of range.
    """

    coarse: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive_int(self.coarse, "coarse")

    @classmethod
    def for_share(cls, share: float, ndim: int = 2) -> Guidance:
        """Settings for pixels of which this share, scattered over the image, is observed.

        They were found on photographs for shares of 1/2 and 1/10; in between, and beyond, all of them follow a power
        of the mean distance between observed pixels. The window of signals is six times as long, that of videos half
        as long: then it has about as many pixels.
        """
        sparse = cls(radius=13, detail=0.7, smoothing=3.0, length=12.0, white=1e-2, ridge=1e-2)
        place = min(max(math.log(0.5 / share) / math.log(5), 0), 1.5)

        def between(name: str) -> float:
            low, high = getattr(cls, name), getattr(sparse, name)
            return float(low * (high / low) ** place)

        radius = between("radius") * {1: 6.0, 2: 1.0, 3: 0.5}[ndim]
        return cls(
            radius=round(radius),
            detail=between("detail"),
            smoothing=between("smoothing"),
            length=between("length"),
            white=between("white"),
            ridge=between("ridge"),
        )

    def at(self, number: int) -> Filler:
        """The filler of a pass, counted from 0: the first two are coarse and cheap, while the estimate changes much."""
        settings = Guided(**{option.name: getattr(self, option.name) for option in fields(Guided)})
        if number <= 1:
            radius, wider = math.ceil(self.radius * 2 / 3), 1.5 if number == 0 else 1
            settings = replace(settings, radius=radius, smoothing=self.smoothing * wider)
        return settings if self.coarse == 1 else Coarse(settings, self.coarse)


def guided_series(observed: Tensor) -> list[Guidance]:
    """Settings to try for a mask [*size]; in holes, those of smaller images as well."""
    if has_holes(observed):
        usual = Guidance.for_share(_SHARE_AROUND_HOLES, observed.ndim)
        # In a smaller image the window reaches across.
        factors = {round(reach(observed) / cells) for cells in _CELLS}
        return [usual, *(replace(usual, coarse=factor) for factor in sorted(factors) if factor > 1)]
    # Others gain less than .1 dB on photographs, and take as long to try as the passes.
    return [Guidance.for_share(float(observed.double().mean()), observed.ndim)]


def guided_network(ndim: int = 2, slope: float = 0.1) -> Layer:
    """The shallow network of guided kernels: convolution of width 5, LeakyReLU, convolution of width 3.

    Args:
        ndim: number of spatial dimensions, 1 to 3.
        slope: of the LeakyReLU.
    """
    conv = CONVOLUTIONS[ndim]
    return Sequential(conv(1, 1, 5), LeakyReLU(slope), conv(1, 1, 3))


def _blank_network(ndim: int) -> Layer:
    """``guided_network`` without weights, of which its kernel needs none."""
    with weightless():
        return guided_network(ndim)


def _prior(estimate: Tensor, mean: Tensor, whole: Whole, guidance: Guided) -> priors.Prior:
    nearness = _Nearness(guidance.length, guidance.coordinates, guidance.white, guidance.constant)
    if not guidance.detail and not guidance.level:
        return nearness
    # One tensor, not two: half the work.
    return priors.Sum(nearness, priors.Tensor(features(estimate, mean, whole, guidance), 2 * len(estimate)))


class _Nearness(priors.Coordinates, described=False):
    """Coordinates, white noise and a constant, as one table: three take a tenth of a pass's time to be looked up."""

    def __init__(self, length: float, weight: float, white: float, constant: float) -> None:
        super().__init__(length, weight)
        self._others = priors.White(white), priors.Constant(constant)

    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """The sum of the three."""
        table = super().covariance(size, device, dtype)
        assert isinstance(table, Stored)
        values = table.table.values.clone()
        white, constant = self._others
        values[0] += constant.variance
        values[(0,) * values.ndim] += white.variance
        return Stored(Table(values, table.geometry))

    def description(self) -> None:
        """None: it is no prior of its own."""

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        """Channels of the three are shared out."""
        coordinates = priors.Coordinates(self.length, self.weight)
        return priors.Sum(coordinates, *self._others)._draw(shape, generator, dtype, device)


def _stored_dtype(image: Tensor, canvas: tuple[int, ...], radius: int) -> torch.dtype:
    if image.dtype == torch.float64:
        return image.dtype
    ball = {1: 1.0, 2: math.pi / 2, 3: 2 * math.pi / 3}[len(canvas)] * radius ** len(canvas)
    free = available_bytes(image.device)
    most = _MOST_BYTES if free is None else min(_MOST_BYTES, free // 3)
    return torch.float16 if 4 * ball * math.prod(canvas) > most else torch.float32
