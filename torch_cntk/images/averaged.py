"""The mean of an estimate and what another pass makes of it: their errors differ, and the mean's is below both."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from torch_cntk._internal.checks import finite_number
from torch_cntk.images.fill import fill_by
from torch_cntk.images.filler import Pass, check_filler
from torch_cntk.images.how import How
from torch_cntk.images.observed import Observed

__all__ = ["Averaged"]


@dataclass(frozen=True)
class Averaged:
    """A pass whose result is a mean of what it goes on from and of what a filler makes of that.

    A group flow keeps what many places share and a guided pass what is seen around each pixel; behind one another,
    the mean of both is better than either.

    Args:
        filler: of the second picture; it gets the estimate as any pass does.
        weight: of the second picture, above 0 and at most 1; the rest is that of the estimate.

    Raises:
        TypeError: the filler is none, or the weight no number.
        ValueError: the weight is out of range.
    """

    filler: Pass
    weight: float = 0.5

    def __post_init__(self) -> None:
        check_filler(self.filler, series=False)
        if not 0 < finite_number(self.weight, "weight", minimum=0) <= 1:
            raise ValueError(f"expected a weight above 0 and at most 1, got {self.weight}")

    def refine(self, given: Observed, estimate: Tensor) -> Tensor:
        """Fill, and take the mean.

        Args:
            given: what is known.
            estimate: [batch, channels, *size], in its units.

        Returns:
            of the same shape.
        """
        return self.refine_by(How(), given, estimate)

    def refine_by(self, how: How, given: Observed, estimate: Tensor) -> Tensor:
        """See ``Governed``: the second picture is filled by all ranks together."""
        filled = fill_by(replace(how, keep=False, draws=None), given, self.filler, estimate)
        mean: Tensor = estimate + self.weight * (filled.image.reshape(estimate.shape) - estimate)
        return mean
