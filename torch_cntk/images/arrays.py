"""The forms in which an image may come: a tensor or a NumPy array, in single, double or half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

__all__ = ["Form", "read"]

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Form:
    """That of a user's image.

    Attributes:
        dtype: of its numbers.
        array: whether it is a NumPy array.
    """

    dtype: torch.dtype
    array: bool

    def give(self, image: Tensor) -> Tensor:
        """A filled image in this form. Observed pixels are the user's to the bit: single precision holds half."""
        if self.dtype in _HALF:
            # An overshoot beyond the largest number would become infinite.
            largest = torch.finfo(self.dtype).max
            image = image.clamp(-largest, largest).to(self.dtype)
        return cast("Tensor", image.numpy()) if self.array else image


def read(image: Any, observed: Any) -> tuple[Any, Any, Form | None]:
    """An image as a tensor in single or double precision, its mask, and the form to give the result in.

    What is no image is given back as it is, without a form, for ``Observed`` to refuse. The entries of a masked array
    that are masked, or NaN, are missing.

    Raises:
        TypeError: an array's dtype is none that torch has.
        ValueError: a masked array comes with a mask beside it.
    """
    array = isinstance(image, np.ndarray)
    if isinstance(image, np.ma.MaskedArray):
        if observed is not None:
            raise ValueError("expected observed or a masked array as image, got both")
        missing = np.ma.getmaskarray(image)
        image = np.ma.getdata(image)
        observed = ~(missing | np.isnan(image)) if image.dtype.kind == "f" else ~missing
    if array:
        image = _tensor(np.asarray(image))
    if not isinstance(image, torch.Tensor) or not image.is_floating_point():
        return image, observed, None
    return image.detach().float() if image.dtype in _HALF else image, observed, Form(image.dtype, array)


def _tensor(array: np.ndarray) -> Tensor:
    """A copy as a tensor, whatever the order of its bytes and entries in memory.

    Raises:
        TypeError: torch has no such dtype.
    """
    try:
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError as error:
        raise TypeError(f"expected a floating point image, got an array of {array.dtype}") from error
