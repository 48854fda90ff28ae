"""What is known of a matrix, in units in which its columns can be compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torch_cntk.matrices.sides import Side

__all__ = ["Known"]

_IMAGINARY = 5
"""Imaginary entries at the mean of all that each column's mean is taken with where columns have one unit: a column with
few ratings stays near it. The published shrunken means of ratings take 5 to 25; results hardly depend on it."""
_ALIKE = 4.0
"""Columns whose deviations differ by a smaller factor, and whose means differ by less than so many of them, are taken
to be measured in one unit, as ratings are. Blood pressure and age are not."""
_ENOUGH = 10
"""Entries from which a column's own deviation is trusted; with fewer, that of the other columns takes part."""


@dataclass(frozen=True, eq=False)
class Known:
    """The observed entries of a matrix, less a mean and divided by a deviation for each column.

    Attributes:
        table: the entries as they were given, [rows, columns] in float64, 0 where not observed.
        observed: boolean [rows, columns], True = known.
        rows: features of the rows, or None.
        columns: features of the columns, or None.
        center: what is taken off each column, [columns].
        scale: what each column is divided by, [columns], above 0.
        alike: whether columns seem to have one unit, as ratings have.
    """

    table: Tensor
    observed: Tensor
    rows: Side | None
    columns: Side | None
    center: Tensor
    scale: Tensor
    alike: bool

    @classmethod
    def of(cls, table: Tensor, observed: Tensor, rows: Side | None = None, columns: Side | None = None) -> Known:
        """Find units for the columns of a matrix.

        Args:
            table: [rows, columns] in float64; what it holds where not observed does not matter.
            observed: boolean [rows, columns], with at least one entry.
            rows: features of the rows, or None.
            columns: features of the columns, or None.

        Returns:
            what is known; columns that seem to have one unit share their deviation.
        """
        table = torch.where(observed, table, 0)
        # Squares of numbers near the ends of the scale are none.
        largest = table.abs().max()
        largest = torch.where(largest > 0, largest, 1)
        center, scale, alike = _units(table / largest, observed)
        return cls(table, observed, rows, columns, center * largest, scale * largest, alike)

    @property
    def values(self) -> Tensor:
        """The observed entries in these units, 0 where not observed, [rows, columns]."""
        return torch.where(self.observed, (self.table - self.center) / self.scale, 0)

    def back(self, filled: Tensor) -> Tensor:
        """Numbers [rows, columns] in these units, in the units of the table."""
        return filled * self.scale + self.center

    def without(self, hidden: Tensor) -> Known:
        """What would be known if these entries, boolean [rows, columns], were missing; units are found anew."""
        return Known.of(self.table, self.observed & ~hidden, self.rows, self.columns)

    def joined(self, table: Tensor, observed: Tensor) -> Known:
        """With further rows of the same columns, [more, columns], below these; they have no features."""
        both = torch.cat([self.table, torch.where(observed, table, 0)])
        return replace(
            Known.of(both, torch.cat([self.observed, observed]), None, self.columns),
            center=self.center,
            scale=self.scale,
            alike=self.alike,
        )


def _units(table: Tensor, observed: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Centre and scale of each column, [columns], and whether they have one unit."""
    counts = observed.sum(0)
    whole = table.sum() / counts.sum()
    means = torch.where(counts > 0, table.sum(0) / counts.clamp_min(1), whole)
    squares = torch.where(observed, table - means, 0).square().sum(0)
    deviations = (squares / counts.clamp_min(1)).sqrt()
    if _one_unit(means, deviations, counts):
        center = whole + (means - whole) * counts / (counts + _IMAGINARY)
        pooled = (torch.where(observed, table - center, 0).square().sum() / counts.sum()).sqrt()
        return center, torch.where(pooled > 0, pooled, 1).expand(len(means)), True
    varied = deviations > 0
    # A geometric mean, as units multiply.
    typical = deviations[varied].log().mean().exp() if bool(varied.any()) else deviations.new_ones(())
    trust = (counts / _ENOUGH).clamp_max(1)
    own = torch.where(varied, deviations, typical)
    return means, own**trust * typical ** (1 - trust), False


def _one_unit(means: Tensor, deviations: Tensor, counts: Tensor) -> bool:
    """Whether columns look as if they were measured in one unit."""
    trusted = counts >= min(_ENOUGH, int(counts.max()))
    found = deviations[trusted & (deviations > 0)]
    if len(found) == 0:
        return True
    low, high = (float(value) for value in torch.quantile(found[: 1 << 20], found.new_tensor([0.05, 0.95])))
    middle = float(found.median())
    return high <= _ALIKE * low and float(means[trusted].std(correction=0)) <= _ALIKE * middle
