"""The periodic kernel as a filler: the same for every image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor

from torch_cntk.images.canvas import canvas_for
from torch_cntk.images.common import common_part
from torch_cntk.images.decay import near_kernel
from torch_cntk.images.default import default_kernel
from torch_cntk.images.filler import Equations, Locality, check_ridge, check_solver
from torch_cntk.images.masks import reach
from torch_cntk.images.observed import Observed
from torch_cntk.images.windows import Cut
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.solvers import Solver

__all__ = ["Periodic", "canvas_for"]


@dataclass(frozen=True)
class Periodic:
    """Regression with a kernel that knows nothing of the image; it looks at no estimate.

    Attributes:
        kernel: of ``net.kernel(prior)``; None takes one that suits the mask's holes (see ``default_kernel``).
        ridge: relative to the mean of K's diagonal, or "cv" (see ``inpaint``).
        solver: None takes ``torch_cntk.solvers.automatic``.

    Raises:
        TypeError: the ridge is no number, or the kernel or the solver none.
        ValueError: the ridge is out of range.
    """

    kernel: Kernel | None = None
    ridge: float | Literal["cv"] = 1e-4
    solver: Solver | None = None

    def __post_init__(self) -> None:
        check_ridge(self.ridge)
        if self.kernel is not None and not isinstance(self.kernel, Kernel):
            raise TypeError(f"expected a kernel of net.kernel(prior), got {type(self.kernel).__name__}")
        if self.solver is not None:
            check_solver(self.solver)

    def equations(self, given: Observed, estimate: Tensor | None = None) -> Equations:
        """See ``Filler``; one operator serves all images.

        Raises:
            ValueError: the kernel does not serve the image's size.
        """
        kernel = default_kernel(given.mask, given.ndim) if self.kernel is None else self.kernel
        canvas = canvas_for(given.size, kernel, wrap=given.wrap)
        operator = kernel.operator(canvas, dtype=given.pixels.dtype, device=given.pixels.device)
        return Equations(operator, self.ridge, solver=self.solver)

    def locality(self, given: Observed, estimate: Tensor | None = None) -> Locality | None:
        """See ``Local``: windows are filled by the kernel's near part, as what differs from the image's common part."""
        if given.wrap or isinstance(self.ridge, str) or getattr(self.solver, "checkpoint", None) is not None:
            return None
        kernel = default_kernel(given.mask, given.ndim) if self.kernel is None else self.kernel
        near = None if kernel.size is not None else near_kernel(kernel, float(self.ridge))
        if near is None:
            return None
        # Around the middle of a hole, what is known begins that much later.
        hole = max(reach(mask) for mask in given.mask)
        margin = tuple(m + hole for m in near.margin)
        plan = Cut(margin, kernel.period, partial(canvas_for, kernel=near.kernel))
        filler = Periodic(near.kernel, near.ridge, self.solver)
        return Locality(lambda: filler, plan, float(self.ridge), partial(common_part, given, near))

    def serving(self, given: Observed) -> Periodic:
        """The same for a part of the image, which a kernel of one size perhaps does not fit: then the default one."""
        if self.kernel is None or self.kernel.size in (None, given.size):
            return self
        return replace(self, kernel=None)
