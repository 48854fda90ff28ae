"""What torch.nn has for layers with filters: convolutions, transposed ones, and pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from torch_cntk.conversion.rule import Place, Rule, Target
from torch_cntk.layers import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Layer,
    StridedConv1d,
    StridedConv2d,
    StridedConv3d,
    SumPool1d,
    SumPool2d,
    SumPool3d,
    Weighted,
)

__all__ = ["FILTERS", "blank", "with_weights"]

_nn = torch.nn
_CONV: dict[str, Any] = dict.fromkeys(("in_channels", "out_channels", "kernel_size"))
_CONV |= {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "bias": True, "padding_mode": "zeros", "bias_std": 1.0}
_POOL: dict[str, Any] = {"kernel_size": None, "stride": None, "padding": 0, "ceil_mode": False}
_POOL |= {"count_include_pad": True, "divisor_override": None}


def _tuple(value: Any, ndim: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,) * ndim


def _options(given: Mapping[str, Any], ndim: int) -> dict[str, Any]:
    """The options that both kinds of convolutions have, as ours."""
    names = ("in_channels", "out_channels", "groups", "bias", "bias_std")
    axes = ("kernel_size", "stride", "dilation")
    return {name: given[name] for name in names} | {name: _tuple(given[name], ndim) for name in axes}


def _read_convolution(ours: Any, ndim: int) -> Callable[[Mapping[str, Any]], Layer]:
    def read(given: Mapping[str, Any]) -> Layer:
        options, padding, mode = _options(given, ndim), given["padding"], given["padding_mode"]
        reach = tuple(d * (q - 1) for q, d in zip(options["kernel_size"], options["dilation"], strict=True))
        if padding != "same":
            padding = (0,) * ndim if padding == "valid" else _tuple(padding, ndim)
            # What keeps the size has a name of its own.
            padding = "same" if all(2 * p == r for p, r in zip(padding, reach, strict=True)) else padding
        padded = any(reach) if padding == "same" else any(padding)
        if padded and mode not in ("zeros", "circular"):
            raise ValueError(f"padding_mode={mode!r}: pad circularly or with zeros")
        layer: Layer = ours(**options, padding=padding, padding_mode=mode if padded else "circular")
        return layer

    return read


def _write_convolution(theirs: Any) -> Callable[[Any, Place], Target]:
    def write(layer: Conv2d, place: Place) -> Target:
        padding: Any = tuple(low for low, _ in layer.margins)
        if any(low != high for low, high in layer.margins):
            if any(r != 1 for r in layer.stride):
                raise ValueError(f"torch.nn has no {layer}: with a stride it pads both sides by as much: give padding")
            padding = "same"
        module = blank(
            theirs,
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            padding=padding,
            dilation=layer.dilation,
            groups=layer.groups,
            padding_mode=layer.padding_mode,
            bias=layer.bias is not None,
        )
        return with_weights(module, layer, place)

    return write


def _read_transposed(ours: Any, ndim: int) -> Callable[[Mapping[str, Any]], Layer]:
    def read(given: Mapping[str, Any]) -> Layer:
        axes = {name: _tuple(given[name], ndim) for name in ("padding", "output_padding")}
        layer: Layer = ours(**_options(given, ndim), **axes, padding_mode="zeros")
        # What gives stride * n outputs has a name of its own.
        same: Layer = ours(**_options(given, ndim), padding_mode="zeros")
        return same if _places(same) == _places(layer) else layer

    return read


def _places(layer: Any) -> Any:
    """Where the outputs of a transposed convolution are."""
    return layer.cut, layer.missing


def _write_transposed(theirs: Any) -> Callable[[Any, Place], Target]:
    def write(layer: ConvTranspose2d, place: Place) -> Target:
        if layer.padding_mode != "zeros":
            raise ValueError(f'torch.nn has no circular {layer}: expected one with padding_mode="zeros"')
        axes = zip(layer.stride, layer.cut, layer.span, layer.missing, strict=True)
        beyond = tuple(r + 2 * p - reach - 1 - missing for r, p, reach, missing in axes)
        if any(extra >= max(r, d) for extra, r, d in zip(beyond, layer.stride, layer.dilation, strict=True)):
            raise ValueError(f"torch.nn has no {layer}: its output_padding is less than the stride: give padding")
        module = blank(
            theirs,
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            padding=layer.cut,
            output_padding=beyond,
            groups=layer.groups,
            bias=layer.bias is not None,
            dilation=layer.dilation,
        )
        return with_weights(module, layer, place)

    return write


def blank(theirs: Any, *arguments: Any, **options: Any) -> Any:
    """A module of torch.nn without first weights, for which torch's generator would be asked."""
    skip_init: Any = _nn.utils.skip_init
    return skip_init(theirs, *arguments, **options)


def with_weights(module: Any, layer: Weighted, place: Place) -> _nn.Module:
    """The module with the layer's weights, which are ``place.factors`` times its own."""
    module = module.to(dtype=layer.weight.dtype, device=layer.weight.device)
    weight, bias = layer.effective()
    factor, bias_factor = place.factors or (torch.ones(()), torch.ones(()))
    with torch.no_grad():
        module.weight.copy_(weight / factor.to(weight.device))
        if bias is not None:
            module.bias.copy_(bias / bias_factor.to(weight.device))
    written: _nn.Module = module
    return written


def _read_pooling(mean: Any, total: Any) -> Callable[[Mapping[str, Any]], Layer]:
    def read(given: Mapping[str, Any]) -> Layer:
        names = ("kernel_size", "stride", "padding")
        values = [set(given[n]) if isinstance(given[n], tuple | list) else {given[n]} for n in names]
        if any(len(value) > 1 for value in values):
            raise ValueError(f"expected blocks that are alike along all axes, got {given['kernel_size']}")
        width, stride, padding = (next(iter(value), None) for value in values)
        divisor = given["divisor_override"]
        layer: Layer
        if divisor is None:
            options = {name: given[name] for name in ("ceil_mode", "count_include_pad")}
            layer = mean(width, stride, padding, **options)
        elif divisor == 1 and not given["ceil_mode"]:
            layer = total(width, stride, padding)
        else:
            raise ValueError(f"expected divisor_override=1, for sums, got {divisor}")
        return layer

    return read


def _write_pooling(theirs: Any, ndim: int) -> Callable[[Any, Place], Target]:
    def write(layer: Any, place: Place) -> Target:
        if hasattr(layer, "ceil_mode"):
            options = {"ceil_mode": layer.ceil_mode, "count_include_pad": layer.count_include_pad}
        else:
            options = {"divisor_override": 1}
        module: _nn.Module = theirs(layer.kernel_size, layer.stride, layer.padding, **options)
        return module

    return write


_OF_DIMENSION: dict[int, tuple[Any, ...]] = {
    1: (Conv1d, StridedConv1d, _nn.Conv1d, ConvTranspose1d, _nn.ConvTranspose1d),
    2: (Conv2d, StridedConv2d, _nn.Conv2d, ConvTranspose2d, _nn.ConvTranspose2d),
    3: (Conv3d, StridedConv3d, _nn.Conv3d, ConvTranspose3d, _nn.ConvTranspose3d),
}
_POOLS: dict[int, tuple[Any, ...]] = {
    1: (AvgPool1d, SumPool1d, _nn.AvgPool1d, functional.avg_pool1d),
    2: (AvgPool2d, SumPool2d, _nn.AvgPool2d, functional.avg_pool2d),
    3: (AvgPool3d, SumPool3d, _nn.AvgPool3d, functional.avg_pool3d),
}


def _of_dimension(ndim: int) -> tuple[Rule, ...]:
    conv, strided, their_conv, transposed, their_transposed = _OF_DIMENSION[ndim]
    mean, total, their_pool, average = _POOLS[ndim]
    read, write = _read_convolution(conv, ndim), _write_convolution(their_conv)
    # Of a sum over samples torch has no pool.
    pools = (mean,) if ndim == 1 else (mean, total)
    return (
        Rule((conv, strided), read, write, (their_conv,), options=_CONV),
        Rule(
            (transposed,),
            _read_transposed(transposed, ndim),
            _write_transposed(their_transposed),
            (their_transposed,),
            options={**_CONV, "output_padding": 0},
        ),
        Rule(pools, _read_pooling(mean, total), _write_pooling(their_pool, ndim), (their_pool,), (average,), _POOL),
    )


FILTERS: tuple[Rule, ...] = (*_of_dimension(1), *_of_dimension(2), *_of_dimension(3))
