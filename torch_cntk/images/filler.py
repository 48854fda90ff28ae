"""What a way to fill images has to say: the equations of its regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number
from torch_cntk.images.observed import Observed
from torch_cntk.operators.base import Operator
from torch_cntk.solvers import Solver

__all__ = ["Equations", "Filler", "Series", "check_filler", "check_ridge", "check_solver", "of_pass"]


@dataclass(frozen=True, eq=False)
class Equations:
    """A kernel regression on the observed pixels O: (K_OO + ridge) w = y_O - mean, filled = K w + mean.

    y has a mean of 0 in each channel already (see ``Filler``).

    Attributes:
        operator: K on a canvas at least as large as the image, which lies in the canvas's first corner.
        ridge: relative to the mean of K's diagonal, or "cv": chosen by leaving out some of the observed pixels.
        mean: of the regression, broadcasts against [batch, channels, *canvas]; None is 0.
        solver: None takes ``torch_cntk.solvers.automatic``.

    Raises:
        TypeError: one of them is something else.
        ValueError: the ridge is another word than "cv", negative or not finite, or the mean is not finite.
    """

    operator: Operator
    ridge: float | Literal["cv"] = 1e-4
    mean: Tensor | None = None
    solver: Solver | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.operator, Operator):
            raise TypeError(f"expected an operator, such as kernel.operator(size), got {type(self.operator).__name__}")
        check_ridge(self.ridge)
        if self.solver is not None:
            check_solver(self.solver)
        if self.mean is not None:
            if not isinstance(self.mean, Tensor):
                raise TypeError(f"expected the mean as a torch tensor, got {type(self.mean).__name__}")
            if not bool(torch.isfinite(self.mean).all()):
                raise ValueError("expected a finite mean, got NaN or infinity in it")


@runtime_checkable
class Filler(Protocol):
    """A way to fill images: an immutable set of options that turns what is known into equations.

    Any object with this one method is a filler; a frozen dataclass, say:

        @dataclass(frozen=True)
        class Fixed:
            kernel: tc.Kernel

            def equations(self, given: tc.images.Observed, estimate: Tensor | None) -> tc.images.Equations:
                # Room for the kernel's radius keeps opposite edges apart; a kernel serves multiples of its period.
                room = [n + r for n, r in zip(given.size, self.kernel.radius)]
                canvas = tuple(-(-n // p) * p for n, p in zip(room, self.kernel.period))
                return tc.images.Equations(self.kernel.operator(canvas, dtype=given.pixels.dtype), ridge=1e-3)

        tc.inpaint(image, observed, passes=[Fixed(kernel)])

    It chooses the canvas, on which the image lies in the first corner; ``fill`` puts the image there, solves, crops and
    puts the observed pixels back. Passes, their choice ("auto"), coarse grids (``Coarse``), batches, bars and the
    quality report are then there for it as for the fillers of the package. It only reads ``given`` and ``estimate``.

    Let the operator depend on the observed pixels, the mask and the estimate only. An equal call must give equal
    equations, or results cannot be repeated.
    """

    def equations(self, given: Observed, estimate: Tensor | None) -> Equations:
        """Pose the equations.

        Args:
            given: what is known, ``Observed.normalised``: each channel has a mean of 0 and deviations below 1;
                ``given.in_one_unit`` makes channels comparable. ``inpaint`` hands each image of a batch over by
                itself, but ``fill`` may be called with several: the operator is that of all of them then.
            estimate: of ``given.pixels``' shape and in its units, the last pass's result; None where there is none.

        Returns:
            the equations, of the dtype of ``given.pixels`` and on its device.
        """
        ...


@runtime_checkable
class Series(Protocol):
    """Passes that are not all alike: anything with this method, such as ``Guidance``."""

    def at(self, number: int) -> Filler:
        """The filler of a pass, counted from 0."""
        ...


def check_filler(filler: object, what: str = "a filler, with a method equations", *, series: bool = True) -> None:
    """Refuse what is no filler.

    Args:
        filler: what is given for one.
        what: was expected, for the message.
        series: whether a ``Series`` will do as well.

    Raises:
        TypeError: it is none, or it is the class of one.
    """
    if isinstance(filler, type):
        hint = f"; make one: {filler.__name__}(...)" if issubclass(filler, Filler | Series) else ""
        raise TypeError(f"expected {what}, got the class {filler.__name__}{hint}")
    if not isinstance(filler, Filler | Series if series else Filler):
        raise TypeError(f"expected {what}, got {type(filler).__name__}")


def check_ridge(ridge: object) -> None:
    """Refuse what is no ridge.

    Raises:
        TypeError: it is no number.
        ValueError: it is another word than "cv", negative or not finite.
    """
    if isinstance(ridge, str):
        if ridge != "cv":
            raise ValueError(f'expected ridge to be a number or "cv", got {ridge!r}')
    else:
        finite_number(ridge, "ridge", minimum=0)


def check_solver(solver: object) -> None:
    """Refuse what is no solver.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(solver, Solver):
        raise TypeError(f"expected a solver such as ConjugateGradient(), got {solver!r}")


def of_pass(filler: Filler | Series, number: int) -> Filler:
    """The filler of a pass, counted from 0."""
    return filler.at(number) if isinstance(filler, Series) else filler
