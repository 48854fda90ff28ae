"""Which observed pixels fill a given one, and how much each of them counts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_cntk._internal.contexts import plain
from torch_cntk.images.canvas import crop, extend
from torch_cntk.images.coarse import Coarse
from torch_cntk.images.filler import Equations, Filler, check_filler, of_pass, to_read
from torch_cntk.images.observed import Observed
from torch_cntk.images.regression import checked_equations
from torch_cntk.solvers import Regression, automatic

__all__ = ["influence"]


@plain()
def influence(
    given: Observed,
    filler: Filler,
    pixel: Sequence[int],
    estimate: Tensor | None = None,
    *,
    progress: bool = False,
) -> Tensor:
    """How much each observed pixel counts in the fill of one pixel.

    A fill is linear in the observed pixels y_O: filled[u] = sum_j a_j y_j in every channel, whatever the image. With
    v = (K_OO + ridge)^-1 K_Ou, one solve for the row of K at u, these weights are

        a_j = v_j + (1 - sum_i v_i) / |O|,

    as ``fill`` subtracts the mean of the observed pixels before the regression and adds it afterwards. They sum to 1;
    some are negative. Where the equations have a mean m of their own, which follows from the estimate (``Guided``),
    only what differs from it is filled: filled[u] = m[u] + sum_j a_j (y_j - m_j) with a = v, for this estimate.

        given = tc.images.Observed.of(image, observed)
        weights = tc.images.influence(given, tc.images.Periodic(), (20, 30))

    Args:
        given: one image, of ``Observed.of``.
        filler: poses the equations, with a ridge that is a number: where it was chosen by "cv", ``result.ridge``.
        pixel: its place, an index for each axis.
        estimate: of the image's shape, for fillers that look at one: the result of the pass before.
        progress: whether to show the bar of the solver.

    Returns:
        the weights a, float64 [*size], 0 at unobserved pixels. An observed pixel is filled by itself alone.

    Raises:
        TypeError: the filler has no method ``equations``, or the place is no whole numbers.
        ValueError: there are several images, the place is outside, the ridge is "cv", or the filler does not solve on
            the image's own pixels (``Coarse``).
        OutOfMemoryError: the operator would not fit.
    """
    place = _checked_place(pixel, given.size)
    mask = given.single_mask
    weights = torch.zeros(given.size, dtype=torch.float64, device=mask.device)
    if bool(mask[place]):
        weights[place] = 1
        return weights
    normal = given.normalised
    if estimate is not None:
        estimate = given.normalise(estimate.detach().to(given.pixels).reshape(given.pixels.shape))
    equations = _equations(normal, of_pass(filler, 0), estimate)
    row = _row(mask, place, equations, progress)
    return row if equations.mean is not None else torch.where(mask, row + (1 - row.sum()) / mask.sum(), 0)


def _row(mask: Tensor, place: tuple[int, ...], equations: Equations, progress: bool) -> Tensor:
    """(K_OO + ridge)^-1 K_Ou, float64 [*size].

    Raises:
        ValueError: the ridge is no number.
    """
    operator, ridge = equations.operator, equations.ridge
    if isinstance(ridge, str):
        raise ValueError('expected a ridge that is a number, such as result.ridge of the fill, got "cv"')
    known = extend(mask, tuple(operator.size))
    one = torch.zeros(tuple(operator.size), dtype=operator.dtype, device=mask.device)
    one[place] = 1
    regression = Regression(operator, known, ridge)
    solver = equations.solver or automatic(regression)
    # K is symmetric: its column at the pixel is its row.
    targets = torch.where(known, operator.multiply(one[None]), 0)
    return crop(solver.solve(regression, targets, progress=progress).weights[0].double(), tuple(mask.shape))


def _equations(given: Observed, filler: object, estimate: Tensor | None) -> Equations:
    """Those of a filler on the image's own pixels.

    Raises:
        TypeError: this is no filler.
        ValueError: it solves on other pixels.
    """
    check_filler(filler, series=False)
    if not isinstance(filler, Filler):
        raise TypeError(f"expected a filler, with a method equations, got {type(filler).__name__}")
    if isinstance(filler, Coarse):
        raise ValueError(f"expected a filler that solves on the image's own pixels, got {filler!r}")
    return checked_equations(given, filler.equations(*to_read(filler, given, estimate)))


def _checked_place(pixel: Sequence[int], size: tuple[int, ...]) -> tuple[int, ...]:
    """The place as plain indices.

    Raises:
        TypeError: it is no whole numbers.
        ValueError: it is outside.
    """
    if not isinstance(pixel, Sequence) or not all(isinstance(index, int) for index in pixel):
        raise TypeError(f"expected the pixel as {len(size)} whole numbers, got {pixel!r}")
    if len(pixel) != len(size) or not all(0 <= index < n for index, n in zip(pixel, size, strict=True)):
        raise ValueError(f"expected a pixel inside {size}, got {tuple(pixel)}")
    return tuple(pixel)
