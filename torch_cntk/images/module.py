"""``Inpaint``: filling images as a ``torch.nn.Module``, for pipelines of transforms and data loaders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_cntk.images.array_call import as_real, rounded
from torch_cntk.images.inpaint import inpaint
from torch_cntk.images.observed import as_mask
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.solvers import Solver

__all__ = ["Inpaint"]


class Inpaint(torch.nn.Module):
    """Fill the missing pixels of images: ``inpaint`` as a module that maps tensors to tensors.

    It has no weights. Gradients flow through it to the pixels that are observed, and to a ridge that is a tensor or a
    parameter (see ``inpaint``). It can be one of torchvision's transforms, and be pickled for
    the workers of a ``DataLoader``; with two inputs in a ``Compose`` of ``transforms.v2`` it must be the last.

    Args:
        observed: boolean, **True = known**, [H, W]: the mask of every image, such as that of a scratched lens. By
            default each image says what is missing: what is passed beside it, or its pixels that are NaN.
        kernel: see ``inpaint``; a name is loaded when it is first needed.
        solver: see ``inpaint``.
        ridge: see ``inpaint``.
        passes: see ``inpaint``.

    Raises:
        TypeError: the mask is not boolean.
        ValueError: the mask is not [H, W].
    """

    observed: Tensor | None

    def __init__(
        self,
        observed: Tensor | np.ndarray | None = None,
        *,
        kernel: Kernel | str | Path | None = None,
        solver: Solver | Literal["auto", "direct", "cg", "eigenpro"] = "auto",
        ridge: float | Tensor | Literal["cv"] = 1e-4,
        passes: int | Literal["auto"] = 0,
    ) -> None:
        super().__init__()
        mask = None if observed is None else as_mask(observed)
        if mask is not None and mask.ndim != 2:
            raise ValueError(f"expected a mask [H, W] for every image, got {tuple(mask.shape)}")
        self.register_buffer("observed", mask, persistent=False)
        self.kernel, self.solver, self.ridge, self.passes = kernel, solver, ridge, passes

    def forward(self, image: Tensor, observed: Tensor | None = None) -> Tensor:
        """Fill one image or several.

        Args:
            image: [channels, H, W] or [batch, channels, H, W], floating point or integers; of integers a mask says what
                is missing.
            observed: boolean, True = known, [H, W], or [batch, H, W] or [batch, 1, H, W] for one mask an image. By
                default the module's own mask, and without one the pixels that are not NaN.

        Returns:
            the filled images, of the input's shape, dtype and device; observed pixels are as they were, to the bit.

        Raises:
            TypeError: the image is no tensor of integers or real numbers.
            ValueError: shapes do not fit, nothing is observed, or integers have no mask; or see ``inpaint``.
        """
        if not isinstance(image, torch.Tensor) or image.dtype == torch.bool or image.is_complex():
            got = image.dtype if isinstance(image, torch.Tensor) else type(image).__name__
            raise TypeError(f"expected images as a tensor of integers or real numbers, got {got}; ToTensor makes one")
        if image.ndim not in (3, 4):
            raise ValueError(f"expected [channels, H, W] or [batch, channels, H, W], got {tuple(image.shape)}")
        mask = self.observed if observed is None else observed
        if mask is None and not image.is_floating_point():
            raise ValueError(f"expected observed beside an image of {image.dtype}, which has no NaN, got none")
        options: dict[str, Any] = {"solver": self.solver, "ridge": self.ridge, "passes": self.passes}
        filled = rounded(inpaint(as_real(image), mask, self.kernel, **options).image, image.dtype)
        if image.is_floating_point() or mask is None:
            return filled
        return torch.where(_of_images(as_mask(mask), image), image, filled)

    def extra_repr(self) -> str:
        """The options that are not the usual ones."""
        mask = None if self.observed is None else list(self.observed.shape)
        shown = ((mask, None), (self.kernel, None), (self.solver, "auto"), (self.ridge, 1e-4), (self.passes, 0))
        names = ("observed", "kernel", "solver", "ridge", "passes")
        return ", ".join(f"{name}={value}" for name, (value, usual) in zip(names, shown, strict=True) if value != usual)


def _of_images(mask: Tensor, image: Tensor) -> Tensor:
    """The mask with a dimension for channels where it has one for images."""
    return mask[:, None] if mask.ndim == 3 and image.ndim == 4 else mask
