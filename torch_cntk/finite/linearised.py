"""Training in the limit of infinite width: linear in the weights, solved in closed form at every time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.memory import require_bytes
from torch_cntk.images.observed import Observed
from torch_cntk.kernels.kernel import Kernel

__all__ = ["LinearisedTraining"]


_NOTHING = 1e-13
"""Share of the largest eigenvalue below which one counts as 0 in the limit of long training: the rounding errors of
some hundred rows in float64."""

_SMALLEST = 1e-300
"""Stands in for eigenvalues of 0 in a quotient that is not used."""


class LinearisedTraining:
    """Gradient flow of half the squared error on the observed pixels, for a network with the given kernel.

    f_t(x) = f_0(x) + K_xO K_OO^-1 (1 - exp(-t K_OO)) (y - f_0(O)) (Lee et al., 2019). Gradient descent on
    1/2 sum (f - y)^2 with learning rate r is at t = r * steps, as long as r is well below ``largest_rate``. A wide
    network in the NTK parameterisation without a head follows it.

    Of rows of numbers, or of images that each have one label, the kernel is [n, n]: see ``between_inputs``. Several
    images at once are one image with an axis more, [channels, n, *size], under a kernel [n, *size, n, *size].

    Args:
        kernel: K, or its matrix [*size, *size], such as ``empirical_ntk`` gives.
        image: [channels, *size] or [*size], floating point.
        observed: boolean, **True = known**, [*size]; by default the pixels that are not NaN in any channel.
        initial: f_0, of the image's shape; 0 by default, the mean over networks.

    Raises:
        TypeError: the image is not floating point, or the mask not boolean.
        ValueError: shapes do not fit, or values are not finite.
        OutOfMemoryError: the eigenvectors of K_OO would not fit.
    """

    def __init__(
        self, kernel: Kernel | Tensor, image: Tensor, observed: Tensor | None = None, initial: Tensor | None = None
    ) -> None:
        ndim = kernel.ndim if isinstance(kernel, Kernel) else kernel.ndim // 2
        given = Observed.of(image, observed, ndim)
        batch, mask = given.pixels, given.mask
        if len(batch) != 1:
            raise ValueError(f"expected one image, got a batch of {len(batch)}")
        self._shape, size = tuple(image.shape), tuple(batch.shape[2:])
        self._outputs_last = False
        pixels, known = math.prod(size), int(mask.sum())
        require_bytes(
            (pixels * known + 3 * known**2) * 8 + (pixels**2 * 32 if isinstance(kernel, Kernel) else 0),
            f"the eigenvectors of {known:,} observed pixels",
            lambda free: "take a smaller image",
            batch.device,
        )
        matrix = kernel.dense(size) if isinstance(kernel, Kernel) else kernel
        if tuple(matrix.shape) != (*size, *size):
            raise ValueError(f"expected a kernel of shape {(*size, *size)} for this image, got {tuple(matrix.shape)}")
        seen = mask.flatten()
        rows = matrix.reshape(pixels, pixels)[:, seen].to(torch.float64)
        self._initial = self._start(initial, batch)
        # Symmetric up to rounding.
        own = rows[seen]
        self._values, vectors = torch.linalg.eigh((own + own.T) / 2)
        self._values.clamp_(min=0)
        gap = torch.where(mask, batch[0], 0).flatten(1).to(torch.float64)[:, seen] - self._initial[:, seen]
        self._gap = gap @ vectors
        self._rows = rows @ vectors

    @classmethod
    def between_inputs(
        cls, kernel: Tensor, targets: Tensor, observed: Tensor | None = None, initial: Tensor | None = None
    ) -> LinearisedTraining:
        """The same for inputs without pixels: regression, or classification by the squared error.

        Args:
            kernel: [n, n] between all inputs, those to train on and others, such as ``net.gram(z)`` or
                ``empirical_ntk(net, z)`` give.
            targets: [n] or [n, outputs], floating point.
            observed: boolean, **True = known**, [n]; by default the inputs without NaN among their targets.
            initial: f_0, of the targets' shape; 0 by default.

        Returns:
            the flow, whose predictions have the targets' shape.

        Raises:
            TypeError: the targets are not floating point, or the mask not boolean.
            ValueError: shapes do not fit, or values are not finite.
            OutOfMemoryError: the eigenvectors of K_OO would not fit.
        """
        if not isinstance(kernel, torch.Tensor) or kernel.ndim != 2:
            got = tuple(kernel.shape) if isinstance(kernel, torch.Tensor) else type(kernel).__name__
            raise ValueError(f"expected a kernel of shape [n, n] between inputs, got {got}")
        if not isinstance(targets, torch.Tensor) or targets.ndim not in (1, 2):
            got = tuple(targets.shape) if isinstance(targets, torch.Tensor) else type(targets).__name__
            raise ValueError(f"expected targets of shape [n] or [n, outputs], got {got}")
        if initial is not None and initial.shape != targets.shape:
            raise ValueError(
                f"expected initial of the targets' shape {tuple(targets.shape)}, got {tuple(initial.shape)}"
            )
        flow = cls(kernel, targets.t(), observed, None if initial is None else initial.t())
        flow._outputs_last = targets.ndim == 2
        return flow

    def _start(self, initial: Tensor | None, batch: Tensor) -> Tensor:
        flat = batch[0].flatten(1)
        if initial is None:
            return torch.zeros(flat.shape, dtype=torch.float64, device=flat.device)
        if initial.numel() != flat.numel():
            raise ValueError(f"expected initial of the image's shape {self._shape}, got {tuple(initial.shape)}")
        return initial.detach().reshape(flat.shape).to(dtype=torch.float64, device=flat.device)

    @property
    def largest_rate(self) -> float:
        """Learning rate beyond which gradient descent diverges: 2 over the largest eigenvalue."""
        return 2 / float(self._values.max())

    def predict(self, time: float) -> Tensor:
        """The output at a time of training, in float64; at infinity, regression without a ridge.

        Returns:
            of the shape of the image, or of the targets.

        Raises:
            TypeError: the time is no number.
            ValueError: it is negative.
        """
        if time != math.inf:
            finite_number(time, "time", minimum=0)
        # (1 - exp(-t v)) / v, which is t at v = 0.
        if time == math.inf:
            tiny = self._values <= self._values.max() * _NOTHING
            factor = torch.where(tiny, 0, 1 / self._values.clamp_min(_SMALLEST))
        else:
            decay = -torch.expm1(-time * self._values)
            factor = torch.where(self._values > 0, decay / self._values.clamp_min(_SMALLEST), time)
        output: Tensor = self._initial + (self._gap * factor) @ self._rows.T
        output = output.reshape(self._shape)
        return output.t() if self._outputs_last else output

    def loss(self, time: float) -> float:
        """1/2 sum (f_t - y)^2 over the observed pixels and channels.

        Raises:
            TypeError: the time is no number.
            ValueError: it is negative or not finite.
        """
        finite_number(time, "time", minimum=0)
        return 0.5 * float((self._gap * torch.exp(-time * self._values)).square().sum())
