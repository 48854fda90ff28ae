"""The Nystrom preconditioner of large kernel matrices: a few of the inputs, the landmarks, stand for the rest.

K is near F F^T, a partial Cholesky decomposition of K whose pivots are the landmarks, and its inverse with a ridge is
that of F F^T + c, with c the ridge and the mean of what F F^T leaves of K's diagonal. F takes n m numbers for n inputs
and m landmarks, n m entries of K and n m^2 multiplications, once, and 2 n m an iteration; K itself is never stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.memory import available_bytes, require_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk.solvers.base import Regression
from torch_cntk.solvers.checkpoint import mesh_of
from torch_cntk.solvers.preconditioner import Map, Preconditioner

__all__ = ["LandmarkNystrom", "Landmarks", "suggested"]

_PRODUCTS = 5
"""Products with K that setting up may take as long as, if nobody asked for landmarks: it saves tens to hundreds."""
_FEWEST, _MOST = 100, 20_000
"""Landmarks that are worth while."""
_LEAST_INPUTS = 1000
"""Of fewer, an iteration takes no time."""
_FLOAT64 = 2
"""An operation in float64 takes as long as so many in float32, the unit of costs."""
_SHARE = 4
"""Of the memory that is free, landmarks that nobody asked for take one part in so many."""
_BLOCK = 128
"""Landmarks that are drawn at a time: products of matrices take most of the time from here on."""
_ROWS = 4096
"""Rows of F whose products are summed in float64 at a time."""
_FLOOR = 30
"""Roundings of the largest eigenvalue of F F^T that c is at least: of what lies along F, the inverse leaves a share of
c, as the difference of numbers that are nearly equal."""
_POWERS = 20
"""Of a power iteration for the largest eigenvalue, of which the order of magnitude is asked."""


@dataclass(frozen=True)
class Landmarks:
    """The preconditioner of ``ConjugateGradient`` for many inputs without displacements, as the columns of a matrix.

    Attributes:
        count: landmarks m; 1,000 to 20,000 are of use. More take fewer iterations and n m numbers of memory.
        choice: "pivoted": each is drawn in proportion to what the others leave of K's diagonal (Chen, Epperly, Tropp &
            Webber 2023, algorithm 2.1, in blocks as in Dong, Chen, Martinsson & Pearce 2023); or "random": uniformly.
        seed: of the draws.

    Raises:
        TypeError: a number is none.
        ValueError: the count is not positive, or the choice unknown.
    """

    count: int = 1000
    choice: Literal["pivoted", "random"] = "pivoted"
    seed: int = 0

    def __post_init__(self) -> None:
        positive_int(self.count, "the count of landmarks")
        if self.choice not in ("pivoted", "random"):
            raise ValueError(f'expected landmarks to be "pivoted" or "random", got {self.choice!r}')

    def __str__(self) -> str:
        return f"{self.count:,} {self.choice} landmarks"


def suggested(regression: Regression) -> Landmarks | None:
    """As many landmarks as are set up in the time of a few products with K; None where few inputs or masks want none.

    Setting up takes m entries of K and m^2 multiplications for each input.
    """
    operator = regression.operator
    inputs = math.prod(operator.size)
    if regression.observed.numel() != inputs or int(regression.observed.sum()) < _LEAST_INPUTS:
        return None
    # m (entries + 2 products of m numbers) = all that is allowed.
    each, allowed = 2.0 * _FLOAT64, _PRODUCTS * operator.cost
    count = int((math.sqrt(operator.entry_cost**2 + 4 * each * allowed) - operator.entry_cost) / (2 * each))
    free = available_bytes(operator.device)
    if free is not None:
        count = min(count, free // (_SHARE * operator.dtype.itemsize * inputs))
    count = min(count, inputs // 4, _MOST)
    return Landmarks(count) if count >= _FEWEST else None


class LandmarkNystrom(Preconditioner):
    """The inverse of F F^T + c on the observed inputs, F as above; its rows are divided among ranks.

    Args:
        regression: the equations.
        options: of the landmarks.

    Raises:
        OutOfMemoryError: F would not fit.
    """

    def __init__(self, regression: Regression, options: Landmarks) -> None:
        operator = regression.operator
        self._dtype, self._size = operator.dtype, operator.size
        self._mesh: Mesh = mesh_of(operator)
        self._pixels = math.prod(operator.size)
        self._share = self._mesh.share(self._pixels)
        seen = regression.observed.reshape(-1, self._pixels).any(0)
        count = min(options.count, int(seen.sum()))
        with self._mesh.together():
            self._require_room(count, len(regression.observed.reshape(-1, self._pixels)), options)
        cholesky = _PartialCholesky(regression, seen, self._mesh, self._share)
        self._factor, left = cholesky.factor(count, options)
        own = seen[self._share]
        total = self._mesh.sum(torch.stack((left[own].sum(), own.sum().double())))
        mean = float(total[0]) / max(float(total[1]), 1)
        inner = self._inner(self._factor)
        least = _FLOOR * torch.finfo(operator.dtype).eps * _largest_eigenvalue(inner)
        self._rest = max(regression.ridge + mean, least) or 1.0
        self._known: tuple[Tensor, Tensor] | None = None

    def _require_room(self, count: int, masks: int, options: Landmarks) -> None:
        """Refuse more landmarks than there is room for.

        Raises:
            OutOfMemoryError: so it is.
        """
        rows = self._share.stop - self._share.start
        each = self._dtype.itemsize
        # F, the columns of a block in float64 and their parts, two matrices of inner products a mask and their factor.
        needed = rows * count * each + 4 * 8 * rows * min(_BLOCK, count) + (masks + 2) * 8 * count**2

        def hint(free: int) -> str:
            return f"about {free // (2 * (rows * each + 8 * self._pixels // 64)):,} landmarks would fit"

        require_bytes(needed, f"a preconditioner of {options} for {self._pixels:,} inputs", hint, self._mesh.device)

    def _inner(self, factor: Tensor) -> Tensor:
        """F^T F over all ranks' rows, [m, m] in float64."""
        total = torch.zeros(*2 * factor.shape[1:], dtype=torch.float64, device=factor.device)
        for rows in torch.split(factor, _ROWS):
            wide = rows.double()
            total.addmm_(wide.T, wide)
        return self._mesh.sum(total)

    def restricted(self, mask: Tensor) -> Map:
        """Divide by F F^T and by the rest."""
        factor, mesh, share = self._factor, self._mesh, self._share
        cores = self._cores(mask)

        def divide(residual: Tensor) -> Tensor:
            flat = residual.reshape(len(residual), -1)
            # Residuals are zero at unobserved inputs, and so is what is made of them.
            inside = mesh.sum((flat[:, share] @ factor).double())
            weights = torch.cholesky_solve(inside[..., None], cores)[..., 0].to(self._dtype)
            own = factor @ weights.T
            found = flat - mesh.gather(own, self._pixels).T
            return found.reshape(residual.shape).mul_(mask).div_(self._rest)

        return divide

    def _cores(self, mask: Tensor) -> Tensor:
        """Cholesky factors of F^T F + c on each mask, [1 or k, m, m]; those of one mask are found once."""
        if self._known is not None and self._known[0] is mask:
            return self._known[1]
        cores = []
        for seen in mask.reshape(-1, self._pixels):
            own = seen[self._share]
            inner = self._inner(self._factor if bool(own.all()) else self._factor * own[:, None].to(self._dtype))
            inner.diagonal().add_(self._rest)
            cores.append(torch.linalg.cholesky(inner))
        found = torch.stack(cores)
        self._known = (mask, found) if len(found) == 1 else None
        return found


class _PartialCholesky:
    """K between some inputs, decomposed pivot by pivot; each rank has its share of the rows.

    Args:
        regression: has the operator.
        seen: inputs that can be pivots, boolean [n].
        mesh: the ranks.
        share: rows of this rank.
    """

    def __init__(self, regression: Regression, seen: Tensor, mesh: Mesh, share: slice) -> None:
        # Each rank finds the entries of its rows alone.
        self._operator, self._mesh, self._share = regression.operator.undivided(), mesh, share
        self._n = len(seen)
        self._rows = torch.arange(share.start, share.stop, device=seen.device)
        self._left = torch.where(seen, self._operator.diagonal.flatten(), 0)[share].clone()
        self._whole = float(self._mesh.sum(self._left.sum()[None]))

    def factor(self, count: int, options: Landmarks) -> tuple[Tensor, Tensor]:
        """F, [rows, at most ``count``], and what F F^T leaves of the diagonal, [rows]."""
        operator = self._operator
        factor = torch.zeros(len(self._rows), count, dtype=operator.dtype, device=self._rows.device)
        generator = torch.Generator().manual_seed(options.seed)
        filled = 0
        while filled < count:
            pivots = self._drawn(min(_BLOCK, count - filled), options.choice, generator)
            if len(pivots) == 0:
                break
            filled += self._eliminate(pivots, factor, filled, 1 / len(pivots) if options.choice == "pivoted" else 0.0)
        return factor[:, :filled].contiguous() if filled < count else factor, self._left

    def _drawn(self, most: int, choice: str, generator: torch.Generator) -> Tensor:
        """The next pivots, the same on all ranks; none where only rounding is left."""
        left = self._mesh.gather(self._left, self._n).cpu()
        left = torch.where(left > _NOTHING * self._whole / self._n, left, 0)
        weights = left if choice == "pivoted" else (left > 0).double()
        most = min(most, int((weights > 0).sum()))
        if most == 0:
            return torch.empty(0, dtype=torch.int64, device=self._rows.device)
        drawn = self._mesh.broadcast(torch.multinomial(weights, most, generator=generator))
        return drawn.to(self._rows.device)

    def _eliminate(self, pivots: Tensor, factor: Tensor, filled: int, share: float) -> int:
        """Add columns to F for some of the pivots; how many."""
        operator, before = self._operator, factor[:, :filled]
        beside = self._rows_of(pivots, before)
        block = operator.entries(pivots, pivots) - beside @ beside.T
        kept = self._mesh.broadcast(_independent(block, share))
        block, pivots, beside = block[kept][:, kept], pivots[kept], beside[kept]
        columns = operator.entries(self._rows, pivots).sub_((before @ beside.to(before.dtype).T).double())
        triangle = torch.linalg.cholesky(block)
        new = torch.linalg.solve_triangular(triangle, columns.T, upper=False).T
        factor[:, filled : filled + len(pivots)] = new
        self._left.sub_(new.square().sum(1)).clamp_min_(0)
        mine = (pivots >= self._share.start) & (pivots < self._share.stop)
        self._left[pivots[mine] - self._share.start] = 0
        return len(pivots)

    def _rows_of(self, pivots: Tensor, factor: Tensor) -> Tensor:
        """F's rows at the pivots, from the ranks that have them, [pivots, columns] in float64."""
        mine = (pivots >= self._share.start) & (pivots < self._share.stop)
        rows = torch.zeros(len(pivots), factor.shape[1], dtype=torch.float64, device=factor.device)
        rows[mine] = factor[pivots[mine] - self._share.start].double()
        return self._mesh.sum(rows)


_NOTHING = 1e-12
"""Share of the mean diagonal below which what is left of an input is taken for rounding."""


def _independent(block: Tensor, share: float) -> Tensor:
    """Places of rows of a covariance, the largest first, until they leave no more than a share of its trace."""
    left = block.diagonal().clone()
    kept: list[int] = []
    rows = torch.zeros(0, len(block), dtype=block.dtype, device=block.device)
    trace = float(left.sum())
    floor = _NOTHING * float(left.max())
    while len(kept) < len(block):
        place = int(left.argmax())
        if kept and (float(left.sum()) <= share * trace or float(left[place]) <= floor):
            break
        row = (block[place] - rows[:, place] @ rows) / left[place].sqrt()
        rows = torch.cat((rows, row[None]))
        left = (left - row.square()).clamp_min_(0)
        left[place] = 0
        kept.append(place)
    return torch.tensor(kept, device=block.device)


def _largest_eigenvalue(matrix: Tensor) -> float:
    """Of a positive semi-definite matrix, from below, to a few per cent."""
    vector = torch.ones(len(matrix), dtype=matrix.dtype, device=matrix.device)
    value = 0.0
    for _ in range(_POWERS if len(matrix) else 0):
        image = matrix @ vector
        value = float(image.norm())
        if value == 0:
            break
        vector = image / value
    return value
