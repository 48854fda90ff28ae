"""What is known of an image: its pixels and the mask, checked once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.brief import Brief
from torch_cntk._internal.checks import check_dense
from torch_cntk.images.bands import mean_of_known, scale_of_known
from torch_cntk.images.canvas import extend

__all__ = ["Observed", "as_mask", "spatial_dimensions"]

_FAR = 2.0**40
"""Estimates that are further off, in deviations of the observed pixels, are clipped: their squares must stay finite."""

_ALL = slice(None)


@dataclass(frozen=True, eq=False, repr=False)
class Observed(Brief):
    """One image or several, of which some pixels are known. ``Observed.of`` makes one from what a user has.

    Attributes:
        pixels: [batch, channels, *size], float32 or float64; 0 at unobserved pixels.
        mask: boolean, True = known, [1, *size] for all images or [batch, *size].
        shape: of the user's image, which may lack the dimensions for the batch and for the channels.
        wrap: whether the image's opposite edges are neighbours.
        relative: [batch, channels, 1, ...] in float64, by how much pixels must be multiplied to be of one unit again;
            1 unless this is ``normalised``.
    """

    pixels: Tensor
    mask: Tensor
    shape: tuple[int, ...]
    wrap: bool = False
    relative: Tensor | None = None

    @classmethod
    def of(
        cls, image: Tensor, observed: Tensor | None = None, ndim: int | None = None, *, wrap: bool = False
    ) -> Observed:
        """Check an image and its mask.

        Args:
            image: [channels, *size] or [batch, channels, *size], or [*size] for one channel.
            observed: boolean, True = known, [*size] or [batch, *size], or with a dimension for the channels, for which
                it must be the same; see ``as_mask`` for what serves as one. By default the pixels that are not NaN in
                any channel.
            ndim: number of spatial dimensions; by default what the mask's shape says, and 2 if it could be several.
            wrap: whether the image's opposite edges are neighbours.

        Raises:
            TypeError: a type or dtype is wrong.
            ValueError: a shape is wrong, an observed pixel is not finite, or nothing is observed.
        """
        batch, masks = _checked(image, observed, ndim)
        if observed is None:
            masks = masks.all(1, keepdim=True)
        elif len(_groups(masks)) > 1:
            raise ValueError("expected one mask for all channels, got channels with different ones")
        mask = masks[:, 0]
        _check_values(batch, mask)
        return cls(torch.where(mask[:, None], batch, 0), mask, tuple(image.shape), wrap)

    @classmethod
    def of_channels(
        cls, image: Tensor, observed: Tensor | None = None, ndim: int | None = None, *, wrap: bool = False
    ) -> list[tuple[list[int], Observed]]:
        """As ``of``, where channels may have masks of their own: by the channels that have the same one.

        Args:
            image: see ``of``.
            observed: as there, or [channels, *size], [1, channels, *size] or [batch, channels, *size]; a dimension may
                be 1 for what holds for all. By default the pixels that are not NaN, in each channel.
            ndim: see ``of``.
            wrap: see ``of``.

        Returns:
            the channels of each part, and the part: of the image's shape if it is the only one, else
            [batch, channels of the part, *size].

        Raises:
            TypeError: see ``of``.
            ValueError: see ``of``.
        """
        batch, masks = _checked(image, observed, ndim)
        groups = [list(range(batch.shape[1]))] if masks.shape[1] == 1 else _groups(masks)
        parts = []
        for group in groups:
            pixels, mask = (batch, masks[:, 0]) if len(groups) == 1 else (batch[:, group], masks[:, group[0]])
            _check_values(pixels, mask, "" if len(groups) == 1 else f" in channel {group[0]}")
            shape = image.shape if len(groups) == 1 else pixels.shape
            parts.append((group, cls(torch.where(mask[:, None], pixels, 0), mask, tuple(shape), wrap)))
        return parts

    @property
    def size(self) -> tuple[int, ...]:
        """Of the image, in pixels along each axis."""
        return tuple(self.mask.shape[1:])

    @property
    def ndim(self) -> int:
        """Number of spatial dimensions."""
        return self.mask.ndim - 1

    @property
    def complete(self) -> bool:
        """Whether every pixel is observed."""
        return bool(self.mask.all())

    @property
    def single_mask(self) -> Tensor:
        """The mask [*size] of the only image.

        Raises:
            ValueError: there are several images.
        """
        if len(self.pixels) != 1:
            raise ValueError(f"expected one image, got a batch of {len(self.pixels)}")
        return self.mask[0]

    @cached_property
    def mean(self) -> Tensor:
        """Of each channel's observed pixels, [batch, channels, 1, ...] in float64. A constant's is itself, to the bit.

        Raises:
            ValueError: the pixels are too large for their mean to be computed.
        """
        mean = mean_of_known(self.mask, self.pixels)
        if not bool(torch.isfinite(mean).all()):
            raise ValueError(f"expected observed pixels below 1e307, got {float(self.pixels.abs().max()):.3g}")
        return mean.reshape(*self.pixels.shape[:2], *(1,) * self.ndim)

    @cached_property
    def scale(self) -> Tensor:
        """A power of 2 above the deviations of each channel from its mean, shaped as that is; 0 for a constant."""
        return scale_of_known(self.mask, self.pixels, self.mean.flatten(2)).reshape(self.mean.shape)

    @cached_property
    def normalised(self) -> Observed:
        """The same with a mean of 0 and deviations below 1 in each channel: no offset or scale is too large for it.

        Scales are powers of 2, so that they round nothing.
        """
        pixels = torch.where(self.mask[:, None], self.normalise(self.pixels), 0)
        return replace(self, pixels=pixels, relative=self.unit)

    @cached_property
    def unit(self) -> Tensor:
        """By how much pixels of ``normalised`` must be multiplied to be of one unit again: its ``relative``."""
        unit = self.scale if self.relative is None else self.scale * self.relative
        return unit / unit.max() if float(unit.max()) > 0 else torch.ones_like(unit)

    def window(self, images: slice, place: tuple[slice, ...]) -> Observed:
        """A part of ``normalised``, in the units of the whole.

        Args:
            images: which of the batch.
            place: where it is, a slice for each axis.
        """
        mask = self.mask[(images if len(self.mask) > 1 else slice(None), *place)]
        near = self.pixels[(images, slice(None), *place)]
        pixels = torch.where(mask[:, None], self.normalise(near, images), 0)
        # Opposite edges of a part are no neighbours.
        return Observed(pixels, mask, tuple(pixels.shape), relative=self.unit[images])

    def normalise(self, images: Tensor, which: slice = _ALL) -> Tensor:
        """Images of the pixels' units in those of ``normalised``, [batch, channels, *size], of some of the batch."""
        scale = self.scale[which]
        divided = (images.double() - self.mean[which]) / torch.where(scale > 0, scale, 1)
        return divided.clamp(-_FAR, _FAR).to(self.pixels.dtype)

    def denormalise(self, images: Tensor, which: slice = _ALL) -> Tensor:
        """Undo ``normalise``, in float64."""
        return images.double() * self.scale[which] + self.mean[which]

    def in_one_unit(self, images: Tensor) -> Tensor:
        """Images of ``normalised`` units, of which channels shall be compared: those that vary more weigh more."""
        return images if self.relative is None else images * self.relative.to(images.dtype)

    def from_one_unit(self, images: Tensor) -> Tensor:
        """Undo ``in_one_unit``."""
        if self.relative is None:
            return images
        # A channel that does not vary stays at its mean, 0.
        relative = self.relative.to(images.dtype)
        return torch.where(relative > 0, images / relative, 0)

    def each_in_one_unit(self, estimates: Tensor) -> list[tuple[Observed, Tensor]]:
        """Each image by itself, with its estimate [channels, *size], both ``in_one_unit``."""
        alike = replace(self, pixels=self.in_one_unit(self.pixels))
        return list(zip(alike.images(), self.in_one_unit(estimates), strict=True))

    def on(self, canvas: tuple[int, ...], mean: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Put the image into the corner of a larger canvas of unobserved pixels.

        Args:
            canvas: its size.
            mean: is subtracted; broadcasts against [batch, channels, *canvas]. None subtracts nothing.

        Returns:
            the right-hand sides [batch, channels, *canvas], 0 at unobserved pixels, and which pixels are known:
            [*canvas] if all images have one mask, else [batch, 1, *canvas].
        """
        known = extend(self.mask[0] if len(self.mask) == 1 else self.mask[:, None], canvas)
        targets = extend(self.pixels, canvas)
        return (targets if mean is None else torch.where(known, targets - mean, 0)), known

    def restore(self, filled: Tensor) -> Tensor:
        """The observed pixels, to the bit, and ``filled`` [batch, channels, *size] at all others."""
        return torch.where(self.mask[:, None], self.pixels, filled.to(self.pixels.dtype))

    def shaped(self, images: Tensor) -> Tensor:
        """[batch, channels, *size] in the shape of the user's image."""
        return images.reshape(self.shape)

    def images(self) -> list[Observed]:
        """Each image of the batch by itself."""
        masks = self.mask.expand(len(self.pixels), *self.size)
        return [
            replace(self, pixels=pixels[None], mask=mask[None], shape=tuple(pixels.shape))
            for pixels, mask in zip(self.pixels, masks, strict=True)
        ]

    def part(self, place: tuple[slice, ...], left_out: Tensor) -> Observed:
        """A part of the images, without some pixels.

        Args:
            place: where it is, a slice for each axis.
            left_out: boolean, broadcasts against the part's [*size]: pixels that are taken as unobserved.
        """
        mask = self.mask[(slice(None), *place)] & ~left_out
        pixels = torch.where(mask[:, None], self.pixels[(slice(None), slice(None), *place)], 0)
        # Opposite edges of a part are no neighbours.
        wrap = self.wrap and mask.shape == self.mask.shape
        return replace(self, pixels=pixels, mask=mask, shape=tuple(pixels.shape), wrap=wrap)


def _checked(image: Tensor, observed: object, ndim: int | None) -> tuple[Tensor, Tensor]:
    """The image as [batch, channels, *size], and its masks [1 or batch, 1 or channels, *size].

    Raises:
        TypeError: a type or dtype is wrong.
        ValueError: a shape is wrong.
    """
    ndim = spatial_dimensions(image, observed) if ndim is None else ndim
    _check_image(image, ndim)
    batch = image.detach().reshape(*(1,) * (ndim + 2 - image.ndim), *image.shape)
    if observed is None:
        return batch, ~torch.isnan(batch)
    size, lead = tuple(batch.shape[2:]), tuple(image.shape[: image.ndim - ndim])
    return batch, _checked_mask(observed, size, lead).to(batch.device)


def _check_image(image: object, ndim: int) -> None:
    """Refuse what is no image.

    Raises:
        TypeError: it is no tensor, or its dtype is none that the solver can work with.
        ValueError: its shape is wrong.
    """
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"expected the image as a torch tensor, got {type(image).__name__}")
    check_dense(image, "the image")
    if not image.is_floating_point():
        raise TypeError(f"expected a floating point image, got {image.dtype}; for 8-bit values pass image / 255")
    if image.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"expected an image in float32 or float64, which the solver needs, got {image.dtype}")
    if image.ndim - ndim not in (0, 1, 2) or image.numel() == 0:
        raise ValueError(
            f"expected an image of shape [channels, *size] or [batch, channels, *size] with {ndim} spatial "
            f"dimensions, got {tuple(image.shape)}"
        )


def as_mask(observed: object) -> Tensor:
    """A mask as a boolean tensor, of the shape that it has.

    Masks in 8 bits hold 0 and 1, or 0 and 255: as with booleans, what is not 0 is known.

    Raises:
        TypeError: it is neither a tensor nor an array, or neither boolean nor of 8 bits.
        ValueError: one of 8 bits holds other numbers.
    """
    if isinstance(observed, np.ndarray) and not isinstance(observed, np.ma.MaskedArray):
        if observed.dtype not in (np.bool_, np.uint8):
            raise TypeError(f"expected observed to be boolean, True = known, got an array of {observed.dtype}")
        observed = torch.from_numpy(np.array(observed))
    if not isinstance(observed, torch.Tensor):
        raise TypeError(f"expected observed as a boolean torch tensor, got {type(observed).__name__}")
    check_dense(observed, "observed")
    if observed.dtype == torch.uint8:
        found = torch.unique(observed).tolist()
        if not (set(found) <= {0, 1} or set(found) <= {0, 255}):
            shown = f"{len(found)} of them from {found[0]} to {found[-1]}" if len(found) > 5 else str(found)[1:-1]
            raise ValueError(
                f"expected observed in 8 bits to hold 0 and 1, or 0 and 255, of which 0 is what is "
                f"missing, got the values {shown}; pass observed > 127, say"
            )
        observed = observed != 0
    if observed.dtype != torch.bool:
        raise TypeError(
            f"expected observed to be boolean, True = known, got {observed.dtype}; pass observed > 0.5, say"
        )
    return observed


def _leading(shape: tuple[int, ...], size: tuple[int, ...], lead: tuple[int, ...]) -> tuple[int, int] | None:
    """How many images and channels a mask tells apart, 1 where it holds for all of them; None if it does not fit.

    Args:
        shape: of the mask.
        size: of the image, in pixels along each axis.
        lead: the image's dimensions before these: (), (channels,) or (batch, channels).
    """
    given, rest = shape[: -len(size)], shape[-len(size) :]
    batch, channels = (1, 1, *lead)[-2:]
    if rest != size or len(given) > 2:
        return None
    wanted: tuple[int, ...]
    if len(given) == 2:
        wanted = given
    elif len(given) == 1 and len(lead) == 2:
        # Masks of a batch, be it of one, are those of its images.
        wanted = (*given, 1)
    else:
        wanted = (1, *given) if given else (1, 1)
    fits = wanted[0] in (1, batch) and wanted[1] in (1, channels)
    return (wanted[0], wanted[1]) if fits else None


def _checked_mask(observed: object, size: tuple[int, ...], lead: tuple[int, ...]) -> Tensor:
    """The mask, [1 or batch, 1 or channels, *size].

    Raises:
        TypeError: it is no boolean tensor, nor what ``as_mask`` makes one of.
        ValueError: its shape does not fit the image's.
    """
    mask = as_mask(observed)
    fitting = _leading(tuple(mask.shape), size, lead)
    if fitting is None:
        also = f" or {(lead[0], *size)}" if lead else ""
        whole = f" (or {(*lead, *size)}, one a channel)" if len(lead) == 2 else ""
        raise ValueError(f"expected observed of shape {size}{also}{whole} for this image, got {tuple(mask.shape)}")
    return mask.reshape(*fitting, *size)


def _groups(mask: Tensor) -> list[list[int]]:
    """Channels that have the same mask, of a mask [1 or batch, channels, *size]."""
    if bool((mask == mask[:, :1]).all()):
        return [list(range(mask.shape[1]))]
    groups: dict[bytes, list[int]] = {}
    for channel in range(mask.shape[1]):
        groups.setdefault(mask[:, channel].cpu().numpy().tobytes(), []).append(channel)
    return list(groups.values())


def _check_values(batch: Tensor, mask: Tensor, where: str = "") -> None:
    """Refuse observed pixels that are not finite, and images without any.

    Raises:
        ValueError: there are such pixels, or there is such an image.
    """
    known = mask[:, None].expand_as(batch)
    if not bool((torch.isfinite(batch) | ~known).all()):
        bad = int((~torch.isfinite(batch) & known).sum())
        raise ValueError(f"expected finite values at observed pixels, got {bad} NaN or infinite ones")
    empty = ~mask.flatten(1).any(1)
    if bool(empty.any()):
        where += f" in image {int(empty.nonzero()[0])} of the batch" if len(mask) > 1 else ""
        raise ValueError(f"expected at least one observed pixel, got none{where}; observed is True where known")


def spatial_dimensions(image: object, observed: object) -> int:
    """Of what a mask belongs to: 2, unless only another number fits its shape.

    A mask of the image's own shape [N, H, W] is one mask a channel. A video of one channel is [1, T, H, W].
    """
    if not isinstance(image, torch.Tensor) or not isinstance(observed, torch.Tensor | np.ndarray):
        return 2
    shape = tuple(observed.shape)
    plain, others = [], []
    for ndim in (2, 1, 3):
        size, lead = tuple(image.shape[-ndim:]), tuple(image.shape[:-ndim])
        if image.ndim - ndim not in (0, 1, 2):
            continue
        if shape == size or (len(lead) == 2 and shape == (lead[0], *size)):
            plain.append(ndim)
        elif _leading(shape, size, lead) is not None:
            others.append(ndim)
    if image.ndim == 3 and shape == tuple(image.shape):
        return 2
    return (plain + others + [2])[0]
