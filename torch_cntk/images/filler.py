"""What a way to fill images has to say: the equations of its regression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number
from torch_cntk._internal.ranks import Mesh
from torch_cntk.images.how import How
from torch_cntk.images.observed import Observed
from torch_cntk.images.windows import Cut
from torch_cntk.operators.base import Operator
from torch_cntk.solvers import Solver

__all__ = [
    "Divisible",
    "Equations",
    "Filler",
    "Governed",
    "Local",
    "Locality",
    "Pass",
    "Refiner",
    "Series",
    "check_ridge",
    "check_solver",
    "of_pass",
    "over",
]

N = TypeVar("N")


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
        ValueError: the ridge is another word than "cv", negative or not finite, the mean is not finite, or K is zero.
    """

    operator: Operator
    ridge: float | Literal["cv"] = 1e-4
    mean: Tensor | None = None
    solver: Solver | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.operator, Operator):
            raise TypeError(f"expected an operator, such as kernel.operator(size), got {type(self.operator).__name__}")
        if self.operator.mean_diagonal == 0:
            raise ValueError(
                'expected a kernel that is not zero everywhere; a network without weights has only the kind="nngp"'
            )
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

    Any object with this one method is a filler; a frozen dataclass, say::

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


@dataclass(frozen=True, eq=False)
class Locality:
    """How the windows of an image are filled (see ``Local``).

    Attributes:
        filler: makes what poses the equations of windows; what that takes from the whole image, it looks up then.
        cut: the margin of known pixels around what a window fills, and the size of its canvas.
        ridge: that is reported.
        common: gives what all pixels of each channel have in common, [batch, channels, 1, ...] in the units of
            ``Observed.normalised``: the mean of the equations of windows. None where these have their own.
    """

    filler: Callable[[], Filler]
    cut: Cut
    ridge: float
    common: Callable[[], Tensor] | None = None


@runtime_checkable
class Local(Protocol):
    """A filler whose filled pixels depend on little but what is near them: holes may be filled one by one then."""

    def equations(self, given: Observed, estimate: Tensor | None) -> Equations:
        """See ``Filler``."""
        ...

    def locality(self, given: Observed, estimate: Tensor | None) -> Locality | None:
        """How to fill windows of this image.

        Args:
            given: what is known, in the user's units.
            estimate: [batch, channels, *size] in the user's units; None where there is none.

        Returns:
            None where the image must be filled as a whole.
        """
        ...


@runtime_checkable
class Refiner(Protocol):
    """A pass that goes on from an estimate without equations for the whole image, such as ``GroupFlow``.

    ``fill`` normalises, puts the observed pixels back, and keeps the quality report of the last regression.
    """

    def refine(self, given: Observed, estimate: Tensor) -> Tensor:
        """Go on from an estimate.

        Args:
            given: what is known, ``Observed.normalised``.
            estimate: [batch, channels, *size], in its units.

        Returns:
            of the same shape, in the same units; observed pixels do not matter.
        """
        ...


@runtime_checkable
class Governed(Protocol):
    """A refiner that ranks can divide among them, or that shows how far it is: it asks how the fill is done."""

    def refine(self, given: Observed, estimate: Tensor) -> Tensor:
        """See ``Refiner``."""
        ...

    def refine_by(self, how: How, given: Observed, estimate: Tensor) -> Tensor:
        """As ``refine``."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """A filler whose work several ranks can divide."""

    def divided(self, mesh: Mesh) -> Any:
        """The same filler for all ranks together, which call it with the same image and estimate."""
        ...


def over(mesh: Mesh | None, filler: N) -> N:
    """The filler as all ranks use it together; itself where there is one, or where each does all of its work."""
    if mesh is None or not isinstance(filler, Divisible):
        return filler
    divided: N = filler.divided(mesh)
    return divided


Pass: TypeAlias = Filler | Refiner
"""What one pass may be."""


@runtime_checkable
class Series(Protocol):
    """Passes that are not all alike: anything with this method, such as ``Guidance``."""

    def at(self, number: int) -> Pass:
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
        hint = f"; make one: {filler.__name__}(...)" if issubclass(filler, Filler | Refiner | Series) else ""
        raise TypeError(f"expected {what}, got the class {filler.__name__}{hint}")
    if not isinstance(filler, Filler | Refiner | Series if series else Filler | Refiner):
        raise TypeError(f"expected {what}, got {type(filler).__name__}")


def to_read(filler: object, given: Observed, estimate: Tensor | None) -> tuple[Observed, Tensor | None]:
    """What a filler gets: the package's own only read it, a user's may write into a copy."""
    if type(filler).__module__.split(".")[0] == __name__.split(".")[0]:
        return given, estimate
    relative = None if given.relative is None else given.relative.clone()
    copied = replace(given, pixels=given.pixels.clone(), mask=given.mask.clone(), relative=relative)
    return copied, None if estimate is None else estimate.clone()


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


def of_pass(filler: Pass | Series, number: int) -> Pass:
    """The filler of a pass, counted from 0."""
    return filler.at(number) if isinstance(filler, Series) else filler
