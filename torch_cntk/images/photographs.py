"""Photographs as people have them: what of a file is to be filled, from what, and how it goes back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.brief import Brief
from torch_cntk._internal.user_warnings import warn_user
from torch_cntk.images.default import default_kernel
from torch_cntk.images.files import Metadata, Photograph, read_image, write_image
from torch_cntk.images.mask_files import Mask, find_mask, grow
from torch_cntk.images.observed import as_mask
from torch_cntk.images.transparency import erased, fill_alpha, own_alpha, visible
from torch_cntk.kernels.kernel import Kernel

__all__ = ["LEAST", "Task", "growth", "own_mask", "read_observed"]

_GROWTH = 3
"""Pixels around a hole that lossy compression has smeared: blocks of 8 x 8, half as fine in colour."""
_SOFT_GROWTH = 1
"""Around soft edges, whose last traces are below one grey level."""
LEAST = 0.5
"""Share of the known pixels that must be left for a mask to grow by itself: scattered pixels leave none."""


@dataclass(frozen=True, repr=False)
class Task(Brief):
    """An image file to be filled.

    Attributes:
        photograph: as it was read; what is no number is 0.
        observed: boolean [H, W]: False where it is to be filled.
        known: boolean [H, W]: True where its colours may be used; they are hidden at transparent pixels.
    """

    photograph: Photograph
    observed: Tensor
    known: Tensor

    @classmethod
    def of(cls, photograph: Photograph, observed: Tensor) -> Task:
        """From what is read and the mask.

        Raises:
            ValueError: there is nothing to fill from.
        """
        observed = observed & torch.isfinite(photograph.pixels).all(0)
        known = observed if photograph.alpha is None else observed & visible(photograph.alpha)
        if not bool(known.any()):
            raise ValueError("expected some known pixels that can be seen, got none")
        return cls(replace(photograph, pixels=torch.where(observed, photograph.pixels, 0)), observed, known)

    @classmethod
    def read(cls, image: str | Path, observed: Tensor | np.ndarray | str | Path | None) -> Task:
        """From files, by the rules of the command: see ``inpaint``.

        Raises:
            TypeError: the mask is none.
            ValueError: there is no mask, it does not belong to the image, or there is nothing to fill from.
        """
        photograph = read_image(image)
        size = photograph.pixels.shape[1], photograph.pixels.shape[2]
        if observed is None:
            mask = own_mask(photograph)
            if mask is None or bool(mask.observed.all()):
                got = "none of them" if mask is None else mask.found
                raise ValueError(f"expected observed, or an image with transparent pixels, got {got}: {image}")
            if mask.reading:
                warn_user(f"{mask.reading}: {image}")
            return cls.of(photograph, _grown(mask, photograph.metadata))
        if isinstance(observed, str | Path):
            return cls.of(photograph, read_observed(observed, size, photograph))
        known = as_mask(observed)
        if known.numel() != size[0] * size[1] or tuple(known.shape[-2:]) != size:
            raise ValueError(f"expected observed of shape {size} for this image, got {tuple(known.shape)}")
        return cls.of(photograph, known.reshape(size).cpu())

    def kernel(self) -> Kernel | None:
        """The default kernel where the mask that is solved with would choose another one."""
        # A drawing's transparent background is no hole: it shall not choose the network.
        return None if torch.equal(self.observed, self.known) else default_kernel(self.observed)

    def filled(self, image: Tensor) -> Photograph:
        """The photograph with its filled pixels, and with opacity where it was erased."""
        before, alpha = self.photograph.pixels, self.photograph.alpha
        pixels = torch.where(self.observed, before, image.cpu().to(before.dtype))
        if alpha is not None:
            alpha = fill_alpha(alpha, erased(alpha, self.observed))
        return Photograph(pixels, alpha, self.photograph.metadata)

    def write(self, path: Path, image: Tensor) -> None:
        """Put the filled pixels into the photograph, and write it."""
        filled = self.filled(image)
        write_image(path, filled.pixels, filled.alpha, metadata=filled.metadata)


def own_mask(photograph: Photograph) -> Mask | None:
    """What is missing by the image itself: what was erased, or is no number; None if all is opaque."""
    finite = torch.isfinite(photograph.pixels).all(0)
    if not bool(finite.all()):
        return Mask(finite, "pixels that are no numbers")
    if photograph.alpha is None:
        return None
    mask = own_alpha(photograph.alpha)
    return None if bool(mask.observed.all()) and not mask.reading else mask


def growth(mask: Mask, metadata: Metadata) -> tuple[int, str]:
    """By how many pixels a mask shall grow for an image file that says this, and why."""
    if metadata.lossy:
        return _GROWTH, f"{metadata.lossy} smears what was there"
    return (_SOFT_GROWTH, "its edges are soft") if mask.soft else (0, "")


def read_observed(path: str | Path, size: tuple[int, int], photograph: Photograph | None = None) -> Tensor:
    """The mask in a file, for a photograph that is a file too or for another image, grown as the command does.

    Raises:
        ValueError: the mask does not belong to the image, or there is nothing to fill from.
    """
    mask = find_mask(path, size, image=None if photograph is None else photograph.pixels)
    if not bool(mask.observed.any()):
        raise ValueError(f"expected some white (known) pixels in the mask, got none but {mask.found}: {path}")
    return _grown(mask, Metadata() if photograph is None else photograph.metadata)


def _grown(mask: Mask, metadata: Metadata) -> Tensor:
    return grow(mask.observed, growth(mask, metadata)[0], least=LEAST)[0]
