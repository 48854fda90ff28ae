"""Priors whose covariance depends on the displacement between two pixels alone: Theorem 2 of the paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torch_cntk._internal.checks import shape_text
from torch_cntk._internal.tunable import Tunable, live, tensors_of
from torch_cntk.covariance import Extent, Geometry, Lattice, Stored, Table
from torch_cntk.priors import given
from torch_cntk.priors.base import Prior

__all__ = ["Autocorrelation", "Coordinates", "Stationary"]


class Stationary(Prior, described=False):
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

    gaussian = True

    def __init__(self, psi: Callable[..., Tensor], radius: int | None = None) -> None:
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
    ) -> Tensor:
        # White noise, filtered by the root of the spectrum.
        size = shape[1:]
        axes = tuple(range(-len(size), 0))
        spectrum = torch.fft.rfftn(self._values(size)).real.clamp_min(0)
        white = torch.randn(shape, generator=generator, dtype=torch.float64)
        coloured: Tensor = torch.fft.irfftn(torch.fft.rfftn(white, dim=axes) * spectrum.sqrt(), s=size, dim=axes)
        return coloured.to(dtype=dtype or torch.get_default_dtype(), device=device)

    def _values(self, size: tuple[int, ...]) -> Tensor:
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
        numbers = values.detach()
        mirrored = numbers.flip(around).roll((1,) * len(size), around)
        largest = float(numbers.abs().max())
        if float((numbers - mirrored).abs().max()) > 1e-12 * largest:
            raise ValueError("expected psi(u) = psi(-u) on the torus, got a function that is not symmetric")
        spectrum = torch.fft.fftn(numbers).real
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

    def tensors(self, ndim: int) -> list[Tensor]:
        """Psi at displacement 0, if it has gradients."""
        at_zero = self.psi(*(torch.zeros((1,) * ndim, dtype=torch.float64) for _ in range(ndim)))
        return [at_zero] if isinstance(at_zero, torch.Tensor) and at_zero.requires_grad else []

    def description(self) -> None:
        """None: a function is not kept with a kernel."""

    def __repr__(self) -> str:
        return f"Stationary({getattr(self.psi, '__name__', 'psi')})"


class Autocorrelation(Stationary, described=False):
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

    weight = Tunable(minimum=0)

    def __init__(self, estimate: Tensor, weight: float | Tensor = 1.0) -> None:
        checked = given.Tensor(estimate)
        features, around = checked.features.double(), tuple(range(1, estimate.ndim))
        features = features - features.mean(around, keepdim=True)
        for axis in around:
            n = features.shape[axis]
            hann = torch.hann_window(n + 2, periodic=False, dtype=torch.float64, device=features.device)[1:-1]
            features = features * hann.reshape([-1 if k == axis else 1 for k in range(estimate.ndim)])
        if not bool((features != 0).any()):
            raise ValueError("expected an estimate that varies, got a constant: it has no autocorrelation")
        super().__init__(lambda *u: self._at(u))  # the size of the torus is that of u
        self.weight = weight
        self.device, self.dtype = checked.device, checked.dtype
        self._features = features

    def _at(self, displacement: Sequence[Tensor]) -> Tensor:
        """Psi on the torus whose displacements are given, as for ``Stationary``.

        Raises:
            ValueError: the estimate has other dimensions, or the torus is smaller than it.
        """
        size, own = tuple(u.numel() for u in displacement), tuple(self._features.shape[1:])
        if len(size) != len(own) or any(n < m for n, m in zip(size, own, strict=True)):
            raise ValueError(f"expected a size of at least {shape_text(own)}, the estimate's, got {shape_text(size)}")
        axes = tuple(range(-len(size), 0))
        power = torch.fft.rfftn(self._features, s=size, dim=axes).abs().square().sum(0)
        values: Tensor = torch.fft.irfftn(power, s=size, dim=axes).cpu()
        # Rounding must not make it asymmetric.
        mirrored = values.flip(axes).roll((1,) * len(size), axes)
        values = (values + mirrored) / 2
        return values * (live(self, "weight") / values.flatten()[0])

    def tensors(self, ndim: int) -> list[Tensor]:
        """The estimate and the weight, as far as they require gradients."""
        return [tensor for _, tensor in tensors_of(self)] + [self._features] * self._features.requires_grad

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

    length = Tunable(minimum=0, above=True)
    weight = Tunable(minimum=0)

    def __init__(self, length: float | Tensor, weight: float | Tensor = 1.0) -> None:
        self.length, self.weight = length, weight

    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """A product over the axes, of period 1."""
        geometry = Geometry(size, (1,) * len(size), reflective=True, square=len(size) > 1 and size[0] == size[1])
        values = torch.ones((1,) * (2 * len(size)), dtype=torch.float64) * live(self, "weight")
        for axis, (n, kept) in enumerate(zip(size, geometry.box, strict=True)):
            shape = [-1 if k == axis else 1 for k in range(2 * len(size))]
            values = values * self._along_axis(n)[:kept].reshape(shape)
        return Stored(Table(torch.stack((values, torch.zeros_like(values))).to(device=device), geometry))

    def _along_axis(self, n: int) -> Tensor:
        """The covariance of an axis of n pixels at distances 0 .. n - 1."""
        length = live(self, "length")
        copies = math.ceil(8 * self.length / n) + 1  # exp(-8^2 / 2) is 1e-14
        u = torch.arange(n, dtype=torch.float64) + n * torch.arange(-copies, copies + 1)[:, None]
        total = torch.exp(-(u**2) / (2 * length**2)).sum(0)
        return total / total[0]

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        channels, *size = shape
        kind = {"generator": generator, "dtype": torch.float64}
        phase = torch.rand((channels, *(1,) * len(size)), **kind)  # type: ignore[arg-type]
        for axis, n in enumerate(size):
            spectrum = torch.fft.fft(self._along_axis(n)).real.clamp_min(0).detach()
            wave = torch.multinomial(spectrum, channels, replacement=True, generator=generator)
            turns = wave[:, None] * torch.arange(n, dtype=torch.float64) / n
            phase = phase + turns.reshape(channels, *(n if k == axis else 1 for k in range(len(size))))
        waves = math.sqrt(2 * self.weight) * torch.cos(2 * math.pi * phase)
        return waves.to(dtype=dtype or torch.get_default_dtype(), device=device)
