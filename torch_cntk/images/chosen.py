"""What was chosen for one image, so that another one, or a part of it, can be filled in just the same way."""

from __future__ import annotations

from dataclasses import dataclass

from torch_cntk.images.filler import Pass, Series
from torch_cntk.images.patch_fill import PatchFill

__all__ = ["Chosen"]


@dataclass(frozen=True)
class Chosen:
    """Passes that have been chosen: as ``inpaint(passes=...)`` they are made again without a choice.

    Attributes:
        passes: of thin holes, or of all holes where thick ones are not treated by themselves.
        guidance: what these are made with; None without passes.
        thick: whether thick holes are treated by themselves.
        patches: what fills thick holes; None where the first fill is left there.
    """

    passes: int
    guidance: Pass | Series | None
    thick: bool = False
    patches: PatchFill | None = None
