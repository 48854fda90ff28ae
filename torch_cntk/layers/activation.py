"""Activations, normalised so that E[phi(u)^2] = 1 for u ~ N(0, 1)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from torch_cntk._internal.checks import finite_number, positive_int, truth_value
from torch_cntk._internal.options import Option
from torch_cntk._internal.tunable import Tunable, live
from torch_cntk.covariance import duals
from torch_cntk.layers.base import C, Layer

__all__ = [
    "GELU",
    "ABReLU",
    "Abs",
    "Activation",
    "Elementwise",
    "Erf",
    "LeakyReLU",
    "ReLU",
    "Scalable",
    "Sign",
    "Sin",
    "Step",
]


class Activation(Layer, abstract=True):
    """A pointwise nonlinearity: a gain times a function, and its dual."""

    @property
    @abstractmethod
    def gain(self) -> float:
        """What the function is multiplied by."""

    @abstractmethod
    def _dual(self) -> duals.Dual:
        """What the activation does to a covariance; the gain included."""

    def propagate(self, covariance: C) -> C:
        """The dual activation."""
        return covariance.activate(self._dual())


class LeakyReLU(Activation):
    """sqrt(2 / (1 + a^2)) times the leaky rectifier of negative slope a.

    Args:
        negative_slope: a, finite; below 0 it makes a fold, -1 the absolute value. A tensor of one number passes
            gradients on.

    Raises:
        TypeError: the slope is no number.
        ValueError: the slope is not finite.
    """

    negative_slope = Tunable()

    def __init__(self, negative_slope: float | Tensor = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    @property
    def gain(self) -> float:
        """sqrt(2 / (1 + a^2))."""
        return math.sqrt(2 / (1 + self.negative_slope**2))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Rectify a tensor of any shape."""
        slope = live(self, "negative_slope")
        if isinstance(slope, torch.Tensor):
            return torch.sqrt(2 / (1 + slope**2)) * (functional.relu(input) - slope * functional.relu(-input))
        return self.gain * functional.leaky_relu(input, slope)

    def _dual(self) -> duals.Dual:
        return duals.rectifier(live(self, "negative_slope"))


class ReLU(Activation):
    """sqrt(2) times the rectifier."""

    gain = math.sqrt(2)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Rectify a tensor of any shape."""
        return self.gain * functional.relu(input)

    def _dual(self) -> duals.Dual:
        return duals.Rectifier()


class Abs(Activation):
    """The absolute value, which keeps the second moment as it is."""

    gain = 1.0

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Of a tensor of any shape."""
        return input.abs()

    def _dual(self) -> duals.Dual:
        return duals.Rectifier(-1.0)


class ABReLU(Activation):
    """sqrt(2 / (a^2 + b^2)) times the function of slope a below 0 and b above.

    Args:
        negative_slope: a, finite; a tensor of one number passes gradients on.
        positive_slope: b, finite; not both are 0; likewise.

    Raises:
        TypeError: a slope is no number.
        ValueError: a slope is not finite, or both are 0.
    """

    negative_slope = Tunable()
    positive_slope = Tunable()

    def __init__(self, negative_slope: float | Tensor, positive_slope: float | Tensor = 1.0) -> None:
        super().__init__()
        self.negative_slope, self.positive_slope = negative_slope, positive_slope
        if self.negative_slope == self.positive_slope == 0:
            raise ValueError("expected negative_slope or positive_slope to differ from 0, got 0 for both")

    @property
    def gain(self) -> float:
        """sqrt(2 / (a^2 + b^2))."""
        return math.sqrt(2) / math.hypot(self.negative_slope, self.positive_slope)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Of a tensor of any shape."""
        low, high = live(self, "negative_slope"), live(self, "positive_slope")
        gain: float | Tensor = self.gain
        if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
            gain = math.sqrt(2) / (low**2 + high**2) ** 0.5
        return gain * high * functional.relu(input) - gain * low * functional.relu(-input)

    def _dual(self) -> duals.Dual:
        return duals.rectifier(live(self, "negative_slope"), live(self, "positive_slope"))


class Sign(Activation):
    """-1 below 0 and 1 above, 0 at 0.

    Its derivative is 0 almost everywhere, so that no gradient reaches the layers before it: the NTK is that of the
    layers behind, and equals the Jacobian's of the finite network. The NNGP kernel knows all layers.
    """

    gain = 1.0

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Of a tensor of any shape."""
        return input.sign()

    def _dual(self) -> duals.Dual:
        return duals.Jump(-1.0, 1.0)


class Scalable(Activation, abstract=True):
    """A function that is not homogeneous: normalised for inputs of variance 1, or as it is."""

    def __init__(self, *, normalise: bool = True) -> None:
        super().__init__()
        self.normalise = truth_value(normalise, "normalise")

    @property
    def gain(self) -> float:
        """1, or what makes E[phi(u)^2] = 1."""
        return self._dual().gain

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Of a tensor of any shape."""
        return self.gain * self._phi(input)

    @abstractmethod
    def _phi(self, u: Tensor) -> Tensor:
        """The function as it is."""

    @abstractmethod
    def _dual(self) -> duals.Scaled:
        """The dual, which knows the gain."""


class Step(Scalable):
    """0 below 0 and 1 above, 1/2 at 0: Heaviside's function.

    No gradient reaches the layers before it; see ``Sign``.

    Args:
        normalise: scale it by sqrt(2), so that E[phi(u)^2] = 1, rather than take it as it is.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return (u.sign() + 1) / 2

    def _dual(self) -> duals.Scaled:
        return duals.Jump(0.0, math.sqrt(2) if self.normalise else 1.0)


class Erf(Scalable):
    """The error function.

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.erf``.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return torch.erf(u)

    def _dual(self) -> duals.Erf:
        return duals.Erf(self.normalise)


class GELU(Scalable):
    """The Gaussian error linear unit x Phi(x), exactly, not its approximation by tanh.

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.nn.GELU``.
    """

    def _phi(self, u: Tensor) -> Tensor:
        return functional.gelu(u)

    def _dual(self) -> duals.Gelu:
        return duals.Gelu(self.normalise)


class Sin(Scalable):
    """The sine, sin(b u + c); with c = pi/2 it is the cosine.

    Args:
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1), rather than take it as ``torch.sin``.
        frequency: b, finite and not 0.
        phase: c, finite.

    Raises:
        TypeError: frequency or phase is no number.
        ValueError: they are not finite, or the frequency is 0.
    """

    def __init__(self, *, normalise: bool = True, frequency: float = 1.0, phase: float = 0.0) -> None:
        super().__init__(normalise=normalise)
        self.frequency, self.phase = finite_number(frequency, "frequency"), finite_number(phase, "phase")
        if self.frequency == 0:
            raise ValueError("expected a frequency other than 0, got 0")

    def _phi(self, u: Tensor) -> Tensor:
        return torch.sin(self.frequency * u + self.phase)

    def _dual(self) -> duals.Sine | duals.Wave:
        if self.frequency == 1 and self.phase == 0:
            return duals.Sine(self.normalise)
        return duals.Wave(self.frequency, self.phase, self.normalise)

    def _describes(self, option: Option, value: object) -> bool:
        # Files of versions that knew the sine alone are understood, and theirs are the same.
        return option.name == "normalise" or value != {"frequency": 1, "phase": 0}[option.name]


class Elementwise(Activation):
    """Any function, by its expansion in Hermite polynomials from Gauss-Hermite quadrature.

    The error is ``accuracy``, absolute, for inputs of variance 1. With 64 terms it is below 1e-13 for value and slope
    of SiLU, 1e-10 and 1e-8 for tanh; but about 1e-3 and 1e-2 for functions with a kink. It grows with the variance, as
    the function looks less like a polynomial then: kernels take more terms, up to 512, for variances at which more than
    1e-6 of E[phi^2] or E[phi'^2], and more than twice what is left out at variance 1, would be left out. Tanh reaches
    variances of 14 with them, SiLU 70; beyond, kernels are refused. The common functions have layers of their own,
    which know every variance. A network with such a layer cannot be described in a file: its kernels are saved without
    it.

    Args:
        function: pointwise on tensors of any shape, differentiable by torch.
        terms: of the expansion at variance 1, 1 to 128; exact for polynomials of a lower degree.
        normalise: scale it so that E[phi(u)^2] = 1 for u ~ N(0, 1).

    Raises:
        TypeError: the function is not callable, or the terms no integer.
        ValueError: there are too few or too many terms, or the function is not pointwise or of no finite second moment.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], *, terms: int = 64, normalise: bool = True) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"expected a function of a tensor, got {type(function).__name__}")
        self.terms = positive_int(terms, "terms")
        if self.terms > 128:
            raise ValueError(f"expected at most 128 terms, beyond which the quadrature overflows, got {terms}")
        self.function = function
        self.normalise = truth_value(normalise, "normalise")
        # On the CPU, whatever the default device is: numbers are needed to build the layer.
        variance = torch.ones((), dtype=torch.float64, device="cpu")
        probe = function(torch.linspace(-1, 1, 5, dtype=torch.float64, device="cpu"))
        if tuple(probe.shape) != (5,):
            raise ValueError(f"expected a pointwise function, got {tuple(probe.shape)} numbers for 5")
        second_moment = float(duals.Hermite(function, self.terms).coefficients(variance)[0].square().sum())
        if not math.isfinite(second_moment) or second_moment == 0:
            raise ValueError(f"expected a function of finite second moment above 0, got {second_moment}")
        self._gain = 1 / math.sqrt(second_moment) if normalise else 1.0

    @property
    def gain(self) -> float:
        """1, or what makes E[phi(u)^2] = 1."""
        return self._gain

    @property
    def accuracy(self) -> tuple[float, float]:
        """Largest absolute error of value and slope for inputs of variance 1, as twice as many terms see it.

        The error of functions with a kink is 2 to 3.5 times as much.
        """
        return self._dual().error()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Of a tensor of any shape."""
        return self.gain * self.function(input)

    def _dual(self) -> duals.Hermite:
        return duals.Hermite(self.function, self.terms, self.gain)

    def description(self) -> dict[str, object]:
        """The name; a function is not kept with a kernel."""
        return {"layer": "Elementwise", "function": getattr(self.function, "__name__", "phi")}

    @classmethod
    def from_options(cls, options: object) -> Layer:
        """Not possible.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "a network with an Elementwise layer cannot be made from its description: build it anew"
        )

    def extra_repr(self) -> str:
        """The function's name, and what differs from the defaults."""
        text = getattr(self.function, "__name__", type(self.function).__name__)
        text += "" if self.terms == 64 else f", terms={self.terms}"
        return text if self.normalise else f"{text}, normalise=False"
