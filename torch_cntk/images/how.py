"""How a fill goes about its work."""

from __future__ import annotations

from dataclasses import dataclass

from torch_cntk._internal.ranks import Mesh
from torch_cntk.images.posterior import Draws

__all__ = ["How"]


@dataclass(frozen=True, eq=False)
class How:
    """The options of a fill, made once where a user calls and passed on from there.

    Attributes:
        windows: whether holes may be filled in windows of their own.
        progress: whether to show bars.
        mesh: ranks that do the same with the same arguments and divide the work; None for one process.
        keep: whether the result of the first regression keeps what solves for further right-hand sides.
        draws: images to draw of what the last regression leaves open; None for none.
    """

    windows: bool = True
    progress: bool = False
    mesh: Mesh | None = None
    keep: bool = False
    draws: Draws | None = None
