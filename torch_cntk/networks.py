"""Ready networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch_cntk._checks import positive_int
from torch_cntk.layers import BilinearUp, Concat, Layer, LeakyReLU, NearestUp, Sequential
from torch_cntk.layers.conv import CONVOLUTIONS, STRIDED_CONVOLUTIONS

__all__ = ["hourglass"]


def hourglass(
    levels: int,
    width: int | Sequence[int] = 128,
    skip: int | Sequence[int] = 4,
    up: str = "nearest",
    *,
    channels: int = 3,
    in_channels: int = 32,
    slope: float = 0.2,
    down_filter: int = 3,
    up_filter: int = 3,
    one_by_one: bool = True,
    bias: bool = False,
    bias_std: float = 1.0,
    ndim: int = 2,
) -> Sequential:
    """The skip-connected hourglass of the deep image prior (Ulyanov, Vedaldi & Lempitsky, 2018), without batch norm.

    Each level halves the resolution by a strided convolution, followed by another one, and doubles it again; a
    convolution of width 1 carries the features around the level, where both are concatenated; one or two convolutions
    follow. LeakyReLU comes after each of them; a convolution of width 1 ends the network.

    Args:
        levels: number of times that the resolution is halved.
        width: channels of each level, finest first, or of all of them.
        skip: channels of each skip connection, or of all of them; 0 is none.
        up: "nearest" or "bilinear" (circular).
        channels: of the image.
        in_channels: of the feature prior.
        slope: negative slope of the activations.
        down_filter: width of the filters on the way down.
        up_filter: width of the first convolution after a concatenation.
        one_by_one: whether a convolution of width 1 follows it.
        bias: whether convolutions have a bias.
        bias_std: standard deviation of the biases.
        ndim: number of spatial dimensions, 1 to 3.

    Raises:
        TypeError: a number is no integer.
        ValueError: a number is out of range, there are not as many widths as levels, or ``up`` is unknown.
    """
    levels = positive_int(levels, "levels")
    widths = _per_level(width, levels, "width", least=1)
    skips = _per_level(skip, levels, "skip", least=0)
    if up not in ("nearest", "bilinear"):
        raise ValueError(f'expected up "nearest" or "bilinear", got {up!r}')
    if ndim not in (1, 2, 3):
        raise ValueError(f"expected ndim 1, 2 or 3, got {ndim!r}")
    conv = CONVOLUTIONS[ndim]
    strided = STRIDED_CONVOLUTIONS[ndim]
    biased: dict[str, Any] = {"bias": bias, "bias_std": bias_std}

    def level(depth: int, given: int) -> list[Layer]:
        """This level and all below it, for so many channels; gives ``widths[depth]`` channels."""
        own, carried = widths[depth], skips[depth]
        deeper: list[Layer] = [strided(given, own, down_filter, 2, **biased), LeakyReLU(slope)]
        deeper += [conv(own, own, down_filter, **biased), LeakyReLU(slope)]
        back = own
        if depth + 1 < levels:
            deeper += level(depth + 1, own)
            back = widths[depth + 1]
        deeper.append(NearestUp(2) if up == "nearest" else BilinearUp(2))
        if carried:
            around = Sequential(conv(given, carried, 1, **biased), LeakyReLU(slope))
            deeper = [Concat(around, Sequential(*deeper))]
        after: list[Layer] = [conv(carried + back, own, up_filter, **biased), LeakyReLU(slope)]
        if one_by_one:
            after += [conv(own, own, 1, **biased), LeakyReLU(slope)]
        return deeper + after

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
