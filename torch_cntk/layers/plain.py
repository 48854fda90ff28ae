"""Layers that the kernel does not see."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.options import Option
from torch_cntk.covariance import Whole
from torch_cntk.layers.base import C, Layer

__all__ = ["Dropout", "Identity", "MultipleOf", "Sigmoid"]


class Identity(Layer):
    """Gives what it gets: a skip connection, as a branch."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """The input."""
        return input

    def propagate(self, covariance: C) -> C:
        """The covariance."""
        return covariance


class MultipleOf(Layer):
    """Gives what it gets, if the image's sizes are multiples of a number, and refuses other images.

    ``from_torch`` puts it before networks that would do something else with them than the model does.

    Args:
        number: an integer of at least 1.

    Raises:
        TypeError: the number is no integer.
        ValueError: it is below 1.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = positive_int(number, "number")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Pass [batch, channels, *size] on.

        Raises:
            ValueError: a size is no multiple of the number.
        """
        if any(n % self.number for n in input.shape[2:]):
            raise ValueError(f"expected sizes that are multiples of {self.number}, got {tuple(input.shape)}")
        return input

    def propagate(self, covariance: C) -> C:
        """A map that leaves the pixels as they are."""
        return covariance.resample((Whole(self.number),) * covariance.ndim)


class Dropout(Identity):
    """``torch.nn.Dropout``: only while the finite network is trained. The kernel is that of the network without it.

    Args:
        p: share of the entries that are set to 0.
        channels: whether whole channels are dropped, as by ``torch.nn.Dropout2d``, rather than entries.

    Raises:
        TypeError: the share is no number.
        ValueError: it is below 0 or not below 1.
    """

    def __init__(self, p: float = 0.5, *, channels: bool = False) -> None:
        super().__init__()
        self.p = finite_number(p, "p", minimum=0)
        if self.p >= 1:
            raise ValueError(f"expected p below 1, got {self.p:g}")
        self.channels = bool(channels)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Drop entries of a tensor of any shape, or channels of [batch, channels, *size], if in training.

        Raises:
            ValueError: there are no channels.
        """
        if not self.channels:
            return torch.nn.functional.dropout(input, self.p, self.training)
        if input.ndim < 3:
            raise ValueError(f"expected input of shape [batch, channels, *size], got {tuple(input.shape)}")
        return torch.feature_dropout(input, self.p, self.training)

    def _describes(self, option: Option, value: object) -> bool:
        # Files of versions that knew entries alone are understood, and theirs are the same.
        return option.name != "channels" or self.channels


class Sigmoid(Identity):
    """The head of a network that is trained on images in [0, 1]; the kernel is that of what comes before."""

    ends_in = "Sigmoid()"

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Squash a tensor of any shape into (0, 1)."""
        return torch.sigmoid(input)
