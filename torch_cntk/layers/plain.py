"""Layers that the kernel does not see, or only if it is told to."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number, positive_int, truth_value
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


class Dropout(Layer):
    """``torch.nn.Dropout``: only while the finite network is trained.

    Whether the kernel sees it is an option of its own, which ``train()`` and ``eval()`` do not change. By default the
    kernel is that of the network without it, as in eval mode. With ``in_kernel=True`` it is that of the network in
    training mode, with one draw of masks for each input: with a share of k = 1 - p of the entries kept,
    Sigma' = Sigma / k and Theta' = Theta / k for a pixel with itself (for masks of whole channels: for all pixels of
    the same input with each other), while pairs of two inputs, whose masks are independent, stay. In ``net.gram(x)``
    each entry of the diagonal is an input with itself; in ``net.gram(x, others)`` no pair is, whatever the numbers are.
    Kernels of finite networks (``empirical_ntk``, ``monte_carlo_kernel``) are those of eval mode, and refuse it.

    Args:
        p: share of the entries that are set to 0.
        channels: whether whole channels are dropped, as by ``torch.nn.Dropout2d``, rather than entries; in rows of
            features, which have no pixels, a channel is an entry.
        in_kernel: whether the kernel is that of the network in training mode. An activation may not follow then, and
            it may not follow the network's input: a weight layer must be between.

    Raises:
        TypeError: the share is no number, or an option neither True nor False.
        ValueError: the share is below 0 or not below 1.
    """

    def __init__(self, p: float = 0.5, *, channels: bool = False, in_kernel: bool = False) -> None:
        super().__init__()
        self.p = finite_number(p, "p", minimum=0)
        if self.p >= 1:
            raise ValueError(f"expected p below 1, got {self.p:g}")
        self.channels, self.in_kernel = truth_value(channels, "channels"), truth_value(in_kernel, "in_kernel")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Drop entries of a tensor of any shape, or channels of [batch, channels, *size] or rows, if in training.

        Raises:
            ValueError: there are no channels.
        """
        if not self.channels:
            return torch.nn.functional.dropout(input, self.p, self.training)
        if input.ndim < 2:
            raise ValueError(
                f"expected input of shape [batch, channels, *size] or [batch, features], got {tuple(input.shape)}"
            )
        return torch.feature_dropout(input, self.p, self.training)

    def propagate(self, covariance: C) -> C:
        """The covariance; or, of a pixel with itself, over the share that is kept."""
        return covariance.drop(1 - self.p, self.channels) if self.in_kernel and self.p else covariance

    def _describes(self, option: Option, value: object) -> bool:
        # Files of versions that knew entries alone are understood, and theirs are the same.
        return option.name not in ("channels", "in_kernel") or bool(value)


class Sigmoid(Identity):
    """The head of a network that is trained on images in [0, 1]; the kernel is that of what comes before."""

    ends_in = "Sigmoid()"

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Squash a tensor of any shape into (0, 1)."""
        return torch.sigmoid(input)
