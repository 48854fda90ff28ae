"""Feature priors: what the network gets as input.

Each prior gives both a sample for the finite network and the covariance Sigma_0 between pixels for the kernel, with
the convention Sigma_0(x, x') = mean over channels of E[Z_c(x) Z_c(x')]. Priors add up: ``first + second`` has the
channels of both, side by side, and the sum of their covariances.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor as _Tensor

from torch_cntk._internal.checks import as_size, finite_number, positive_int, shape_text
from torch_cntk.covariance import Extent, Features, Geometry, Lattice, Stored, Table

__all__ = [
    "Autocorrelation",
    "Constant",
    "Coordinates",
    "Identity",
    "Meshgrid",
    "Normal",
    "Prior",
    "Stationary",
    "Sum",
    "Tensor",
    "Uniform",
    "White",
    "from_description",
]


class Prior(ABC):
    """A distribution of input images.

    Attributes:
        size: the only image size that the prior exists for, or None if it exists for any.
        device: where its kernel is computed unless told otherwise.
        dtype: that its kernel is stored in unless told otherwise.
    """

    size: tuple[int, ...] | None = None
    device: torch.device | None = None
    dtype: torch.dtype = torch.float64

    def sample(
        self,
        channels: int,
        size: tuple[int, ...] | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> _Tensor:
        """Draw the input of a finite network.

        Args:
            channels: the network's input channels.
            size: spatial size; may be left out where the prior has one.
            generator: source of randomness; torch's global one by default.
            dtype: of the sample.
            device: of the sample.

        Returns:
            [channels, *size].

        Raises:
            TypeError: the channels or the size are no integers.
            ValueError: the size is needed and missing, or the prior does not have these channels or this size.
        """
        size = self.size if size is None else as_size(size)
        if size is None:
            raise ValueError(f"{self!r} has no size of its own: expected size, such as (256, 256), got None")
        return self._draw((positive_int(channels, "channels"), *size), generator, dtype, device)

    @abstractmethod
    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        """A sample of ``shape`` [channels, *size]; dtype and device are the prior's own choice where they are None."""

    @abstractmethod
    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """Sigma_0 (and Theta = 0) on a torus of ``size`` pixels, an entry of ``size`` an axis.

        Features that differ from pixel to pixel, and all that is made from them, are computed in ``dtype``.
        """

    def channels(self, ndim: int) -> int | None:
        """The number of channels that a sample in ``ndim`` dimensions must have, or None if any."""
        return None

    def __add__(self, other: Prior) -> Sum:
        """The channels of both side by side."""
        if not isinstance(other, Prior):
            return NotImplemented
        return Sum(self, other)

    def extent(self, ndim: int) -> Extent | None:
        """Period and radius of Sigma_0 in ``ndim`` dimensions, or None if it is not stationary."""
        return None

    @abstractmethod
    def description(self) -> dict[str, Any] | None:
        """What rebuilds the prior (see ``from_description``), or None where that would hold the data itself."""


class _Independent(Prior):
    """Pixels and channels i.i.d.; the subclass knows its moments."""

    _moments: tuple[float, float]  # (mean, second moment)

    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """The squared mean everywhere, the second moment at displacement zero."""
        mean, second_moment = self._moments
        ndim = len(size)
        geometry = Geometry(size, (1,) * ndim, reflective=True, square=ndim > 1 and size[0] == size[1])
        values = torch.zeros((2, *geometry.box, *geometry.period), dtype=torch.float64, device=device)
        values[0] = mean**2
        values[(0, *(0,) * (2 * ndim))] = second_moment
        return Stored(Table(values, geometry))

    def extent(self, ndim: int) -> Extent | None:
        """Radius 0."""
        return Extent.start(ndim)


class Uniform(_Independent):
    """Independent U[low, high] in every pixel and channel; the deep image prior takes U[0, 0.1].

    Raises:
        TypeError: a bound is no number.
        ValueError: ``low`` is not below ``high``.
    """

    def __init__(self, low: float = 0.0, high: float = 0.1) -> None:
        self.low, self.high = finite_number(low, "low"), finite_number(high, "high")
        if self.low >= self.high:
            raise ValueError(f"expected low < high, got low={low} and high={high}")
        mean = (self.low + self.high) / 2
        self._moments = mean, (self.low**2 + self.low * self.high + self.high**2) / 3

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        unit = torch.rand(shape, generator=generator, dtype=dtype, device=device)
        return self.low + (self.high - self.low) * unit

    def description(self) -> dict[str, Any]:
        """Name and bounds."""
        return {"prior": "Uniform", "low": self.low, "high": self.high}

    def __repr__(self) -> str:
        return f"Uniform({self.low:g}, {self.high:g})"


class Normal(_Independent):
    """Independent N(mean, std^2) in every pixel and channel.

    Raises:
        TypeError: a parameter is no number.
        ValueError: ``std`` is not positive.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        self.mean, self.std = finite_number(mean, "mean"), finite_number(std, "std", minimum=0)
        if self.std == 0:
            raise ValueError("expected std > 0, got 0: all pixels would be the same")
        self._moments = self.mean, self.mean**2 + self.std**2

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        return self.mean + self.std * torch.randn(shape, generator=generator, dtype=dtype, device=device)

    def description(self) -> dict[str, Any]:
        """Name and moments."""
        return {"prior": "Normal", "mean": self.mean, "std": self.std}

    def __repr__(self) -> str:
        return f"Normal({self.mean:g}, {self.std:g})"


class White(Normal):
    """White noise: independent N(0, variance) in every pixel and channel.

    Raises:
        TypeError: the variance is no number.
        ValueError: the variance is not positive.
    """

    def __init__(self, variance: float) -> None:
        self.variance = finite_number(variance, "variance", minimum=0)
        if self.variance == 0:
            raise ValueError("expected variance > 0, got 0: leave the prior out")
        super().__init__(0.0, math.sqrt(self.variance))

    def description(self) -> dict[str, Any]:
        """Name and variance."""
        return {"prior": "White", "variance": self.variance}

    def __repr__(self) -> str:
        return f"White({self.variance:g})"


class Constant(_Independent):
    """The same number, the root of ``variance``, in every pixel and channel: Sigma_0 = variance.

    Raises:
        TypeError: the variance is no number.
        ValueError: the variance is negative.
    """

    def __init__(self, variance: float) -> None:
        self.variance = finite_number(variance, "variance", minimum=0)
        self._moments = math.sqrt(self.variance), self.variance

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        return torch.full(shape, math.sqrt(self.variance), dtype=dtype or torch.get_default_dtype(), device=device)

    def description(self) -> dict[str, Any]:
        """Name and variance."""
        return {"prior": "Constant", "variance": self.variance}

    def __repr__(self) -> str:
        return f"Constant({self.variance:g})"


class _Given(Prior):
    """A fixed input; the subclass gives it for each size, to be multiplied by the root of ``weight``."""

    weight = 1.0

    @abstractmethod
    def _features(self, size: tuple[int, ...]) -> _Tensor:
        """Z, [channels, *size]."""

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        channels, *size = shape
        features = self._features(tuple(size))
        if channels != len(features):
            raise ValueError(f"expected the {len(features)} channels of {self!r}, got {channels}")
        return features.to(dtype=dtype or torch.get_default_dtype(), device=device) * math.sqrt(self.weight)

    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """Weight * mean over channels of Z_c(x) Z_c(x')."""
        return Features(self._features(size).to(device=device), self.weight, dtype)


class Tensor(_Given):
    """A given input Z, [channels, *size], floating point. Its kernel's period is the image size: it is dense.

    Args:
        features: Z.
        weight: Sigma_0(x, x') = weight * mean over channels of Z_c(x) Z_c(x'). For a sum over the channels, give
            their number.

    Raises:
        TypeError: Z is no floating point tensor, or the weight no number.
        ValueError: Z has no spatial dimension, no entries, or entries that are not finite, or the weight is negative.
    """

    def __init__(self, features: _Tensor, weight: float = 1.0) -> None:
        if not isinstance(features, torch.Tensor) or not features.is_floating_point():
            got = features.dtype if isinstance(features, torch.Tensor) else type(features).__name__
            raise TypeError(f"expected a floating point tensor [channels, *size], got {got}")
        if features.ndim < 2 or features.numel() == 0:
            raise ValueError(f"expected a tensor [channels, *size] with entries, got shape {tuple(features.shape)}")
        if not torch.isfinite(features).all():
            raise ValueError("expected finite features, got NaN or infinity among them")
        self.features = features
        self.weight = finite_number(weight, "weight", minimum=0)
        self.size = tuple(features.shape[1:])
        self.device = features.device
        self.dtype = features.dtype

    def channels(self, ndim: int) -> int:
        """Those of Z."""
        return len(self.features)

    def _features(self, size: tuple[int, ...]) -> _Tensor:
        if size != self.size:
            raise ValueError(f"expected the prior's size {self.size}, got {size}")
        return self.features

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        return super()._draw(shape, generator, dtype or self.dtype, device or self.device)

    def description(self) -> None:
        """None: the tensor is not kept with a kernel."""

    def __repr__(self) -> str:
        weight = "" if self.weight == 1 else f", weight={self.weight:g}"
        return f"Tensor({tuple(self.features.shape)}{weight})"


class Identity(_Given):
    """The identity matrix as an image of one channel: 1 where all coordinates are equal, else 0. Dense kernels."""

    def _features(self, size: tuple[int, ...]) -> _Tensor:
        first, *others = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
        equal = torch.ones(size, dtype=torch.bool)
        for coordinate in others:
            equal &= coordinate == first
        return equal.double()[None]

    def channels(self, ndim: int) -> int:
        """One."""
        return 1

    def description(self) -> dict[str, Any]:
        """The name."""
        return {"prior": "Identity"}

    def __repr__(self) -> str:
        return "Identity()"


class Meshgrid(_Given):
    """The deep image prior's coordinates: one channel an axis, 0 at the first pixel and 1 at the last.

    Its kernels are dense. As the deep image prior has it, the first channel varies along the last axis (x, then y).
    """

    def _features(self, size: tuple[int, ...]) -> _Tensor:
        ramps = [torch.linspace(0, 1, n, dtype=torch.float64) for n in size]
        return torch.stack(torch.meshgrid(*ramps, indexing="ij")).flip(0)

    def channels(self, ndim: int) -> int:
        """One an axis."""
        return ndim

    def description(self) -> dict[str, Any]:
        """The name."""
        return {"prior": "Meshgrid"}

    def __repr__(self) -> str:
        return "Meshgrid()"


class Stationary(Prior):
    """Gaussian features whose covariance depends on the displacement between pixels only: Theorem 2 of the paper.

    Args:
        psi: takes displacements u, one float64 tensor an axis (they broadcast; -n/2 < u <= n/2 on a torus of n pixels),
            and gives the covariance, psi(u) = psi(-u). It must be positive semi-definite on the torus.
        radius: psi is constant beyond this displacement along any axis, if it is: the kernel then serves every image
            size. By default it belongs to one.

    Raises:
        TypeError: psi is not callable, or the radius no integer.
        ValueError: the radius is below 0.
    """

    def __init__(self, psi: Callable[..., _Tensor], radius: int | None = None) -> None:
        if not callable(psi):
            raise TypeError(f"expected psi as a function of the displacements, got {type(psi).__name__}")
        if radius is not None and (isinstance(radius, bool) or not isinstance(radius, int)):
            raise TypeError(f"expected radius to be an integer or None, got {radius!r}")
        if radius is not None and radius < 0:
            raise ValueError(f"expected radius to be at least 0, got {radius}")
        self.psi = psi
        self.radius = radius

    def extent(self, ndim: int) -> Extent | None:
        """Of the given radius."""
        return None if self.radius is None else Extent.start(ndim, self.radius)

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        # White noise, filtered by the root of the spectrum.
        size = shape[1:]
        axes = tuple(range(-len(size), 0))
        spectrum = torch.fft.rfftn(self._values(size)).real.clamp_min(0)
        white = torch.randn(shape, generator=generator, dtype=torch.float64)
        coloured: _Tensor = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * spectrum.sqrt(), s=size, dim=axes)
        return coloured.to(dtype=dtype or torch.get_default_dtype(), device=device)

    def _values(self, size: tuple[int, ...]) -> _Tensor:
        """Psi on the torus, [*size].

        Raises:
            ValueError: psi is not symmetric, finite and positive semi-definite there.
        """
        displacements = []
        for axis, n in enumerate(size):
            u = torch.arange(n, dtype=torch.float64)
            u = torch.where(u > n // 2, u - n, u)
            displacements.append(u.reshape([-1 if k == axis else 1 for k in range(len(size))]))
        values = torch.as_tensor(self.psi(*displacements), dtype=torch.float64).expand(size)
        if not bool(torch.isfinite(values).all()):
            raise ValueError("expected finite values of psi, got NaN or infinity among them")
        around = tuple(range(len(size)))
        mirrored = values.flip(around).roll((1,) * len(size), around)
        largest = float(values.abs().max())
        if float((values - mirrored).abs().max()) > 1e-12 * largest:
            raise ValueError("expected psi(u) = psi(-u) on the torus, got a function that is not symmetric")
        spectrum = torch.fft.fftn(values).real
        if float(spectrum.min()) < -1e-10 * float(spectrum.max()):
            raise ValueError(
                f"expected a positive semi-definite psi on {shape_text(size)} pixels, got the eigenvalue "
                f"{float(spectrum.min()):.3g} (the largest is {float(spectrum.max()):.3g})"
            )
        return values

    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """Psi, of period 1."""
        values = self._values(size)
        even = all(torch.equal(values, values.flip(axis).roll(1, axis)) for axis in range(len(size)))
        square = even and len(size) > 1 and torch.equal(values, values.transpose(0, 1))
        geometry = Geometry(size, (1,) * len(size), reflective=even, square=square)
        stored = values[tuple(slice(n) for n in geometry.box)].reshape(*geometry.box, *geometry.period)
        return Stored(Table(torch.stack((stored, torch.zeros_like(stored))).to(device=device), geometry))

    def description(self) -> None:
        """None: a function is not kept with a kernel."""

    def __repr__(self) -> str:
        return f"Stationary({getattr(self.psi, '__name__', 'psi')})"


class Autocorrelation(Stationary):
    """The autocorrelation of an estimate: features that are alike where the estimate, moved, is like itself.

    psi(u) is the sum over channels and pixels x of e(x) e(x + u), in proportion to psi(0) = weight; e is the estimate
    less its mean, under a Hann window along each axis. On a torus of at least the estimate's size it is positive
    semi-definite whatever the estimate; opposite edges are apart if the torus is larger by as much as u shall reach.
    The period of a tone and the motion of a video stand in it.

    Args:
        estimate: [channels, *size], floating point.
        weight: psi(0).

    Raises:
        TypeError: the estimate is no floating point tensor, or the weight no number.
        ValueError: it has no spatial dimension, or entries that are not finite, or is constant; or the weight is
            negative.
    """

    def __init__(self, estimate: _Tensor, weight: float = 1.0) -> None:
        checked = Tensor(estimate, weight)
        features, around = checked.features.double(), tuple(range(1, estimate.ndim))
        features = features - features.mean(around, keepdim=True)
        for axis in around:
            n = features.shape[axis]
            hann = torch.hann_window(n + 2, periodic=False, dtype=torch.float64, device=features.device)[1:-1]
            features = features * hann.reshape([-1 if k == axis else 1 for k in range(estimate.ndim)])
        if not bool((features != 0).any()):
            raise ValueError("expected an estimate that varies, got a constant: it has no autocorrelation")
        super().__init__(lambda *u: self._at(u))  # the size of the torus is that of u
        self.weight = checked.weight
        self.device, self.dtype = checked.device, checked.dtype
        self._features = features

    def _at(self, displacement: Sequence[_Tensor]) -> _Tensor:
        """Psi on the torus whose displacements are given, as for ``Stationary``.

        Raises:
            ValueError: the estimate has other dimensions, or the torus is smaller than it.
        """
        size, own = tuple(u.numel() for u in displacement), tuple(self._features.shape[1:])
        if len(size) != len(own) or any(n < m for n, m in zip(size, own, strict=True)):
            raise ValueError(f"expected a size of at least {shape_text(own)}, the estimate's, got {shape_text(size)}")
        axes = tuple(range(-len(size), 0))
        power = torch.fft.rfftn(self._features, s=size, dim=axes).abs().square().sum(0)
        values: _Tensor = torch.fft.irfftn(power, s=size, dim=axes).cpu()
        # Rounding must not make it asymmetric.
        mirrored = values.flip(axes).roll((1,) * len(size), axes)
        values = (values + mirrored) / 2
        return values * (self.weight / values.flatten()[0])

    def __repr__(self) -> str:
        return f"Autocorrelation({tuple(self._features.shape)})"


class Coordinates(Prior):
    """Where a pixel is: Sigma_0(x, x') = weight * exp(-|x' - x|^2 / (2 length^2)).

    The distance is that on the torus of the image: along each axis the Gaussian is summed over all copies of the image
    and scaled to 1 at distance 0, which keeps it positive definite. Finite networks are fed with random Fourier
    features: waves of random phase, whose frequencies are drawn from the Gaussian's spectrum on the torus.

    Args:
        length: in pixels.
        weight: the variance.

    Raises:
        TypeError: an argument is no number.
        ValueError: the length is not positive, or the weight negative.
    """

    def __init__(self, length: float, weight: float = 1.0) -> None:
        self.length = finite_number(length, "length", minimum=0)
        if self.length == 0:
            raise ValueError("expected length > 0, got 0: White(variance) has independent pixels")
        self.weight = finite_number(weight, "weight", minimum=0)

    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """A product over the axes, of period 1."""
        geometry = Geometry(size, (1,) * len(size), reflective=True, square=len(size) > 1 and size[0] == size[1])
        values = torch.full((1,) * (2 * len(size)), self.weight, dtype=torch.float64)
        for axis, (n, kept) in enumerate(zip(size, geometry.box, strict=True)):
            shape = [-1 if k == axis else 1 for k in range(2 * len(size))]
            values = values * self._along_axis(n)[:kept].reshape(shape)
        return Stored(Table(torch.stack((values, torch.zeros_like(values))).to(device=device), geometry))

    def _along_axis(self, n: int) -> _Tensor:
        """The covariance of an axis of n pixels at distances 0 .. n - 1."""
        copies = math.ceil(8 * self.length / n) + 1  # exp(-8^2 / 2) is 1e-14
        u = torch.arange(n, dtype=torch.float64) + n * torch.arange(-copies, copies + 1)[:, None]
        total = torch.exp(-(u**2) / (2 * self.length**2)).sum(0)
        return total / total[0]

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        channels, *size = shape
        kind = {"generator": generator, "dtype": torch.float64}
        phase = torch.rand((channels, *(1,) * len(size)), **kind)  # type: ignore[arg-type]
        for axis, n in enumerate(size):
            spectrum = torch.fft.fft(self._along_axis(n)).real.clamp_min(0)
            wave = torch.multinomial(spectrum, channels, replacement=True, generator=generator)
            turns = wave[:, None] * torch.arange(n, dtype=torch.float64) / n
            phase = phase + turns.reshape(channels, *(n if k == axis else 1 for k in range(len(size))))
        waves = math.sqrt(2 * self.weight) * torch.cos(2 * math.pi * phase)
        return waves.to(dtype=dtype or torch.get_default_dtype(), device=device)

    def description(self) -> dict[str, Any]:
        """Name, length and weight."""
        return {"prior": "Coordinates", "length": self.length, "weight": self.weight}

    def __repr__(self) -> str:
        return f"Coordinates({self.length:g}, weight={self.weight:g})"


class Sum(Prior):
    """Priors side by side: ``first + second``. Their covariances add up.

    A sample of C channels gives each term that has channels of its own, such as ``Tensor``, those, and shares out the
    rest evenly among the others. A term that got c of the channels is multiplied by sqrt(C / c), so that the mean over
    all channels is the sum of the terms' means.

    Raises:
        TypeError: a term is no prior.
        ValueError: there is no term, or terms differ in the size that they have.
    """

    def __init__(self, *terms: Prior) -> None:
        for term in terms:
            if not isinstance(term, Prior):
                raise TypeError(f"expected priors, got {type(term).__name__}")
        # Sums of sums have their terms in one row, so that channels are shared out evenly.
        self.terms: tuple[Prior, ...] = tuple(
            part for term in terms for part in (term.terms if isinstance(term, Sum) else (term,))
        )
        if not self.terms:
            raise ValueError("expected at least one prior, got none")
        sizes = {term.size for term in self.terms if term.size is not None}
        if len(sizes) > 1:
            raise ValueError(f"expected priors of one size, got {' and '.join(map(shape_text, sorted(sizes)))} pixels")
        self.size = next(iter(sizes), None)
        owners = [term for term in self.terms if term.device is not None]
        self.device = owners[0].device if owners else None
        self.dtype = owners[0].dtype if owners else torch.float64

    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """The sum."""
        # Those of the longest period first: the others are added to them, in their precision.
        first, *others = sorted(
            (term.covariance(size, device, dtype) for term in self.terms),
            key=lambda covariance: -math.prod(covariance.geometry.period),
        )
        return first.mix((1.0,) * len(self.terms), tuple(others))

    def extent(self, ndim: int) -> Extent | None:
        """The largest of the terms', if all have one."""
        extents = [term.extent(ndim) for term in self.terms]
        radius = [max(extent.radius) for extent in extents if extent is not None]
        return Extent.start(ndim, max(radius)) if len(radius) == len(extents) else None

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> _Tensor:
        channels, *size = shape
        dtype, device = dtype or (self.dtype if self.device is not None else None), device or self.device
        shares = self._shares(channels, len(size))
        samples = [
            term._draw((share, *size), generator, dtype, device) * math.sqrt(channels / share)
            for term, share in zip(self.terms, shares, strict=True)
        ]
        return torch.cat(samples)

    def _shares(self, channels: int, ndim: int) -> list[int]:
        """Channels of each term.

        Raises:
            ValueError: there are too few or, where no term takes any number, too many.
        """
        own = [term.channels(ndim) for term in self.terms]
        taken, free = sum(count for count in own if count is not None), own.count(None)
        if channels < taken + free or (free == 0 and channels != taken):
            raise ValueError(
                f"expected {'at least ' if free else ''}{taken + free} channels for {self!r}, got {channels}"
            )
        shares, left = [], channels - taken
        for count in own:
            if count is None:
                count = -(-left // free)
                left, free = left - count, free - 1
            shares.append(count)
        return shares

    def channels(self, ndim: int) -> int | None:
        """The sum, if each term has channels of its own."""
        own = [term.channels(ndim) for term in self.terms]
        known = [count for count in own if count is not None]
        return sum(known) if len(known) == len(own) else None

    def description(self) -> dict[str, Any] | None:
        """The terms' descriptions, if all have one."""
        descriptions = [term.description() for term in self.terms]
        return None if None in descriptions else {"prior": "Sum", "terms": descriptions}

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))


_BY_NAME: dict[str, type[Prior]] = {
    "Constant": Constant,
    "Coordinates": Coordinates,
    "Identity": Identity,
    "Meshgrid": Meshgrid,
    "Normal": Normal,
    "Uniform": Uniform,
    "White": White,
}


def from_description(description: Mapping[str, Any]) -> Prior:
    """Rebuild a prior from ``Prior.description()``.

    Raises:
        ValueError: the description names no prior that can be rebuilt.
    """
    options = dict(description)
    name = options.pop("prior", None)
    if name == "Sum":
        return Sum(*(from_description(term) for term in options["terms"]))
    if name not in _BY_NAME:
        raise ValueError(f"expected one of the priors {sorted(_BY_NAME)}, got {name!r}")
    return _BY_NAME[name](**options)
