"""Validators: one fact each, message "expected ..., got ..."."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "all_finite",
    "as_device",
    "as_precision",
    "as_size",
    "check_dense",
    "finite_number",
    "positive_int",
    "refuse_gradients",
    "shape_text",
    "truth_value",
]


def positive_int(value: object, name: str, *, least: int = 1) -> int:
    """Return ``value`` as an int of at least 1, or whatever is the least.

    Raises:
        TypeError: ``value`` is no integer.
        ValueError: ``value`` is below that.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"expected {name} to be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"expected {name} to be at least {least}, got {value}")
    return int(value)


def finite_number(value: object, name: str, *, minimum: float | None = None) -> float:
    """Return ``value`` as a finite float, not below ``minimum``.

    Raises:
        TypeError: ``value`` is no real number.
        ValueError: ``value`` is infinite, NaN or below ``minimum``.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"expected {name} to be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"expected {name} to be finite, got {number}")
    if minimum is not None and number < minimum:
        raise ValueError(f"expected {name} to be at least {minimum:g}, got {number:g}")
    return number


def truth_value(value: object, name: str) -> bool:
    """Return ``value`` as True or False.

    Raises:
        TypeError: ``value`` is neither: words and numbers have a truth that nobody may have meant.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"expected {name} to be True or False, got {value!r}")
    return bool(value)


def as_size(size: object, name: str = "size", ndim: int | None = None) -> tuple[int, ...]:
    """Return ``size`` as a tuple of positive ints, of ``ndim`` entries if that is given.

    Raises:
        TypeError: ``size`` is no sequence of integers.
        ValueError: an entry is below 1, or there are not ``ndim`` of them.
    """
    if not isinstance(size, Sequence) or isinstance(size, str):
        raise TypeError(f"expected {name} to be a tuple of integers such as (256, 256), got {size!r}")
    sizes = tuple(positive_int(entry, f"{name}[{axis}]") for axis, entry in enumerate(size))
    if ndim is not None and len(sizes) != ndim:
        raise ValueError(f"expected {name} to have {ndim} entries, got {len(sizes)}: {sizes}")
    return sizes


def as_device(device: object, name: str = "device") -> torch.device:
    """Return ``device`` as one that torch has on this machine.

    Raises:
        TypeError: it is neither a device nor the name of one.
        ValueError: torch knows no such device, or there is none.
    """
    if not isinstance(device, str | torch.device):
        raise TypeError(f"expected {name} as a device or its name, such as 'cpu' or 'cuda', got {device!r}")
    try:
        found = torch.device(device)
        if found.type != "meta":
            torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"expected {name} to be one that torch can use here, got {str(device)!r}: {reason}") from error
    return found


def as_precision(dtype: object, name: str = "dtype") -> torch.dtype:
    """Return ``dtype`` if it is a type of real floating point numbers.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"expected {name} to be a dtype such as torch.float32, got {dtype!r}")
    if not dtype.is_floating_point or dtype.itemsize < 2:
        raise TypeError(f"expected {name} to be a floating point type of 16, 32 or 64 bits, got {dtype}")
    return dtype


def check_dense(tensor: Tensor, name: str) -> None:
    """Refuse tensors whose numbers do not lie in memory one after the other: sparse, nested and meta ones.

    Raises:
        TypeError: this is one.
    """
    if tensor.is_meta:
        raise TypeError(f"expected {name} with numbers, got a tensor on the meta device, which has none")
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
        raise TypeError(f"expected {name} as an ordinary tensor, got a {kind} one; pass its to_dense(), say")


def refuse_gradients(inputs: Tensor) -> None:
    """Refuse inputs that gradients are recorded of where an operator would drop them.

    Raises:
        ValueError: they require gradients, and gradients are recorded.
    """
    if inputs.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "expected inputs that need no gradient, as an operator passes none on to them; net.gram(features) does, "
            "and features.detach() or torch.no_grad() leaves them out"
        )


def all_finite(values: Tensor) -> bool:
    """Whether no number is infinite or NaN; their sum, which takes a tenth of the time, tells most often."""
    total = values.sum(dtype=torch.float64 if values.dtype.itemsize < 4 else None)
    return math.isfinite(float(total)) or bool(torch.isfinite(values).all())


def shape_text(shape: Sequence[int]) -> str:
    """``(3, 4)`` as ``3 x 4``, for messages."""
    return " x ".join(str(entry) for entry in shape)
