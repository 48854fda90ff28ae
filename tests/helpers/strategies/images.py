"""Images with masks, in every form in which users hold them; and what is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

__all__ = ["Picture", "pictures", "silly_pictures"]

_DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_SIDES = {1: st.integers(1, 20), 2: st.integers(1, 8), 3: st.integers(1, 4)}


@dataclass(frozen=True)
class Picture:
    """An image and its mask, as numbers from which both are made.

    Attributes:
        size: pixels along each axis.
        lead: () or (channels,) or (batch, channels).
        dtype: name of the numbers' type.
        values: what the numbers are: noise, a ramp, a constant, or noise with one that is far off.
        scale: they are multiplied by it.
        offset: and moved by this many scales.
        share: of the pixels that are known, roughly; at least one of each image and channel is.
        mask: whether all images and channels share one, or each image, channel or both have their own; or NaN tells.
        form: how both are held.
        rubbish: what stands at unobserved pixels.
        seed: of all random numbers.
    """

    size: tuple[int, ...]
    lead: tuple[int, ...]
    dtype: str
    values: str
    scale: float
    offset: float
    share: float
    mask: str
    form: str
    rubbish: float
    seed: int

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return len(self.size)

    def numbers(self) -> tuple[Tensor, Tensor]:
        """The image in its own dtype and the mask, both [batch, channels, *size]; rubbish is not in it yet."""
        random = np.random.default_rng(self.seed)
        batch, channels = (1, 1, *self.lead)[-2:]
        shape = (batch, channels, *self.size)
        made: dict[str, Callable[[], np.ndarray]] = {
            "noise": lambda: random.standard_normal(shape),
            "ramp": lambda: np.broadcast_to(np.linspace(-1, 1, self.size[-1]), shape),
            "constant": lambda: np.ones(shape),
            "outlier": lambda: np.where(random.random(shape) < 0.1, 1e3, random.standard_normal(shape)),
        }
        values = made[self.values]()
        largest = torch.finfo(_DTYPES[self.dtype]).max / 4
        whole = np.clip((values + self.offset) * self.scale, -largest, largest)
        image = torch.from_numpy(whole).to(_DTYPES[self.dtype])
        own = {"image": (batch, 1), "channel": (1, channels), "both": (batch, channels)}.get(self.mask, (1, 1))
        if self.mask == "nan":
            own = (batch, channels)
        known = random.random((*own, *self.size)) < self.share
        flat = known.reshape(*own, -1)
        flat[..., random.integers(flat.shape[-1])] = True
        return image, torch.from_numpy(known).expand(shape)

    def held(self) -> tuple[Any, Any]:
        """Image and mask as arguments of ``inpaint``."""
        image, known = self.numbers()
        image = torch.where(known, image, torch.tensor(self.rubbish, dtype=image.dtype))
        if self.mask == "nan":
            image = torch.where(known, image, torch.nan)
        shape = (*self.lead, *self.size)
        image, observed = image.reshape(shape), None if self.mask == "nan" else self._observed(known)
        if self.form == "array" and self.dtype != "bfloat16":
            return image.numpy(), None if observed is None else observed.numpy()
        if self.form == "backwards" and self.dtype != "bfloat16":
            return np.ascontiguousarray(image.numpy()[..., ::-1])[..., ::-1], observed
        if self.form == "masked" and self.dtype != "bfloat16" and observed is not None and observed.shape == shape:
            return np.ma.MaskedArray(image.numpy(), mask=~observed.numpy()), None
        if self.form == "strided":
            image = torch.stack([image, image], dim=-1)[..., 0]
        if self.form == "gradient":
            image = image.requires_grad_()
        if self.form == "bytes" and observed is not None:
            observed = observed.to(torch.uint8) * 255
        return image, observed

    def _observed(self, known: Tensor) -> Tensor:
        """The mask in the fewest dimensions that say it."""
        if self.mask == "one":
            return known[0, 0]
        if self.mask == "image" and len(self.lead) == 2:
            return known[:, 0]
        return known.reshape(*self.lead, *self.size)


@st.composite
def pictures(draw: Any) -> Picture:
    """Images that must be filled, whatever their scale and form."""
    ndim = draw(st.sampled_from([1, 2, 2, 2, 3]))
    size = draw(st.tuples(*(_SIDES[ndim] for _ in range(ndim))))
    lead = draw(st.just((1,)) | st.tuples(st.integers(1, 3)) | st.tuples(st.integers(1, 2), st.integers(1, 3)))
    dtype = draw(st.sampled_from(["float32", "float32", "float64", "float64", "float16", "bfloat16"]))
    largest = 1.0 if dtype == "float16" else 1e30
    scale = draw(st.sampled_from([1.0, 1.0, 1.0, 255.0, min(largest, 1e4), largest, 1e-3, 1 / largest]))
    return Picture(
        size,
        lead,
        dtype,
        draw(st.sampled_from(["noise", "noise", "ramp", "constant", "outlier"])),
        scale,
        draw(st.sampled_from([0.0, 0.0, 0.5, 100.0])),
        draw(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0])),
        draw(st.sampled_from(["one", "one", "image", "channel", "both", "nan"])),
        draw(st.sampled_from(["tensor", "tensor", "array", "backwards", "masked", "strided", "gradient", "bytes"])),
        draw(st.sampled_from([0.0, 1.0, np.nan, np.inf])),
        draw(st.integers(0, 2**31)),
    )


def _ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(shape, dtype=dtype)


_NO_IMAGES: list[Any] = [
    None,
    "photo.png",
    3.5,
    [[1.0, 2.0], [3.0, 4.0]],
    _ones(4, 4, dtype=torch.int64),
    _ones(1, 4, 4, dtype=torch.uint8),
    _ones(1, 4, 4, dtype=torch.complex64),
    _ones(1, 4, 4, dtype=torch.bool),
    _ones(),
    _ones(0),
    _ones(1, 0, 4),
    _ones(1, 4, 4) * torch.nan,
    _ones(1, 4, 4) * torch.inf,
    _ones(1, 4, 4) * 3e38,
    _ones(1, 4, 4, dtype=torch.float64) * 1.7e308,
    _ones(1, 4, 4).to_sparse(),
    _ones(1, 4, 4, dtype=torch.float32).to("meta"),
    _ones(2, 2, 2, 2, 2, 2),
    np.array([["a", "b"], ["c", "d"]]),
    np.ones((1, 4, 4), dtype=np.int16),
    np.ones((1, 4, 4), dtype=np.longdouble),
    np.ones((1, 4, 4), dtype=object),
    np.ma.MaskedArray(np.zeros((1, 4, 4)), mask=True),
    torch.nn.Parameter(_ones(1, 4, 4)),
]
_NO_MASKS: list[Any] = [
    None,
    "mask.png",
    True,
    [[True, False], [False, True]],
    _ones(4, 4),
    _ones(4, 4, dtype=torch.int64),
    _ones(4, 4, dtype=torch.uint8) * 7,
    _ones(4, 4, dtype=torch.bool),
    ~_ones(4, 4, dtype=torch.bool),
    _ones(3, 4, dtype=torch.bool),
    _ones(4, dtype=torch.bool),
    _ones(5, 5, 4, 4, dtype=torch.bool),
    _ones(4, 4, dtype=torch.bool).to("meta"),
    _ones(4, 4, dtype=torch.bool).to_sparse(),
    _ones(0, 4, dtype=torch.bool),
    np.ones((4, 4), dtype=object),
    np.ones((4, 4)),
    np.ma.MaskedArray(np.zeros((4, 4), dtype=bool), mask=True),
]


def silly_pictures() -> Any:
    """What is no image, or has no mask."""
    image = torch.linspace(0, 1, 16).reshape(1, 4, 4)
    mask = torch.eye(4) > 0
    return (
        st.tuples(st.sampled_from(_NO_IMAGES), st.just(mask))
        | st.tuples(st.just(image), st.sampled_from(_NO_MASKS))
        | st.tuples(st.sampled_from(_NO_IMAGES), st.sampled_from(_NO_MASKS))
    )
