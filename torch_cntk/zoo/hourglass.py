"""Ready networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_cntk._internal.checks import positive_int
from torch_cntk.layers import BilinearUp, Concat, Layer, LeakyReLU, NearestUp, ReLU, Sequential, activation_of
from torch_cntk.layers.conv import CONVOLUTIONS, STRIDED_CONVOLUTIONS

__all__ = ["hourglass"]


def hourglass(
    levels: int,
    width: int | Sequence[int] = 128,
    skip: int | Sequence[int] = 4,
    up: str | Sequence[str] = "nearest",
    *,
    channels: int = 3,
    in_channels: int = 32,
    slope: float = 0.2,
    activation: str | Layer | None = None,
    down_filter: int | Sequence[int] = 3,
    up_filter: int | Sequence[int] = 3,
    one_by_one: bool = True,
    bias: bool | None = None,
    bias_std: float | None = None,
    ndim: int = 2,
) -> Sequential:
    """The skip-connected hourglass of the deep image prior (Ulyanov, Vedaldi & Lempitsky, 2018), without batch norm.

    Each level halves the resolution by a strided convolution, followed by others, and doubles it again; a convolution
    of width 1 carries the features around the level, where both are concatenated; more convolutions follow. LeakyReLU
    (or another activation) comes after each of them; a convolution of width 1 ends the network.

    Args:
        levels: number of times that the resolution is halved.
        width: channels of each level, finest first, or of all of them.
        skip: channels of each skip connection, or of all of them; 0 is none.
        up: "nearest" or "bilinear" (circular), of each level, finest first, or of all of them.
        channels: of the image.
        in_channels: of the feature prior.
        slope: negative slope of the activations; 0 is ReLU.
        activation: another one than these: a name among ``layers.ACTIVATIONS``, or a layer.
        down_filter: widths of the filters of a level on the way down, of which the first is strided; one number stands
            for two of them.
        up_filter: widths of the filters of a level on the way up, or of a single one.
        one_by_one: whether a convolution of width 1 follows them.
        bias: whether convolutions have a bias; by default where ``bias_std`` is given.
        bias_std: standard deviation of the biases, 1 by default.
        ndim: number of spatial dimensions, 1 to 3.

    Raises:
        TypeError: a number is no integer, or the activation neither a name nor a layer.
        ValueError: a number is out of range, there are not as many widths as levels, there is no filter, or ``up`` or
            the activation's name is unknown.

    Example:
        >>> import torch
        >>> import torch_cntk as tc
        >>> net = tc.hourglass(2, 16, 4, in_channels=8)
        >>> net(torch.rand(1, 8, 32, 48)).shape
        torch.Size([1, 3, 32, 48])
    """
    levels = positive_int(levels, "levels")
    widths = _per_level(width, levels, "width", least=1)
    skips = _per_level(skip, levels, "skip", least=0)
    ups = (up,) * levels if isinstance(up, str) else tuple(up)
    if len(ups) != levels or not set(ups) <= {"nearest", "bilinear"}:
        raise ValueError(f'expected up as "nearest" or "bilinear", or {levels} of them, one a level, got {up!r}')
    downward = (down_filter,) * 2 if isinstance(down_filter, int) else tuple(down_filter)
    upward = ((up_filter,) if isinstance(up_filter, int) else tuple(up_filter)) + (1,) * one_by_one
    if not downward or not upward:
        raise ValueError(f"expected at least one filter on the way down and up, got {down_filter!r} and {up_filter!r}")
    if ndim not in (1, 2, 3):
        raise ValueError(f"expected ndim 1, 2 or 3, got {ndim!r}")
    if activation is None:
        activation = LeakyReLU(slope) if slope else ReLU()
    activation = activation_of(activation)
    conv = CONVOLUTIONS[ndim]
    strided = STRIDED_CONVOLUTIONS[ndim]
    biased: dict[str, Any] = {"bias": bias, "bias_std": bias_std}

    def level(depth: int, given: int) -> list[Layer]:
        """This level and all below it, for so many channels; gives ``widths[depth]`` channels."""
        own, carried = widths[depth], skips[depth]
        deeper: list[Layer] = []
        for place, size in enumerate(downward):
            deeper += [conv(own, own, size, **biased) if place else strided(given, own, size, 2, **biased)]
            deeper.append(activation)
        back = own
        if depth + 1 < levels:
            deeper += level(depth + 1, own)
            back = widths[depth + 1]
        deeper.append(NearestUp(2) if ups[depth] == "nearest" else BilinearUp(2))
        if carried:
            around = Sequential(conv(given, carried, 1, **biased), activation)
            deeper = [Concat(around, Sequential(*deeper))]
        for place, size in enumerate(upward):
            deeper += [conv(own if place else carried + back, own, size, **biased), activation]
        return deeper

    return Sequential(*level(0, positive_int(in_channels, "in_channels")), conv(widths[0], channels, 1, **biased))


def _per_level(value: int | Sequence[int], levels: int, name: str, *, least: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * levels
    if len(values) != levels:
        raise ValueError(f"expected {name} as one number or {levels}, one a level, got {value!r}")
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"expected {name} to be an integer, got {number!r}")
        if number < least:
            raise ValueError(f"expected {name} to be at least {least}, got {number}")
    return values
