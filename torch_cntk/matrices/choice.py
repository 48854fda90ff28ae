"""Which passes suit a matrix: the ones that predict entries best which were left out as the missing ones are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.optimize
import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.dealing import by_rank
from torch_cntk._internal.ranks import Mesh
from torch_cntk.matrices.fillers import Columns, Entries, Filled, Filler, LowRank, Means, each_pass
from torch_cntk.matrices.known import Known
from torch_cntk.matrices.options import Precision
from torch_cntk.matrices.told import Nearest, Told

__all__ = ["Chain", "Choice", "Plan", "Trials", "choose", "families", "left_out_like_missing", "trial_count"]

Chain = tuple[Filler, ...]
"""Fillers one after the other, each of which sees the result of the one before."""

_NOISES = (0.03, 0.1, 0.3, 1.0)
"""Candidates of ``Entries``; on ratings 0.5 to 1 is best, on tables with little noise 0.03."""
_SIDES = (0.5, 2.0)
"""Weights of features beside the entries, where there are any: 2 was best of features that tell much."""
_DEPTHS = (1, 3)
_ENTRIES = 3
"""Passes of ``Entries`` at most: further ones gained nothing on ratings."""
_COLUMNS = {0: 8, 1: 5, 3: 5}
"""Passes of ``Columns`` at most for each number of hidden layers; linear ones converge slowest."""
_SHRINKAGES = (0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03)
_PATIENCE = 2
"""A chain ends when so many passes in a row have brought no gain."""
_HOPELESS = 1.1
"""A chain ends after its first pass if that is so many times worse than the best first pass of its family."""
_WORK = 2e12
"""FLOPs of a pass above which it is not tried, if others can be: a core takes some minutes. One regression between
100,000 ratings of 943 users takes 4e11."""
_SHARE = 0.15
"""Of the observed entries, to be left out in a trial."""
_SPARSE = 0.6
"""Of the entries: if a larger part is missing, rows that borrow the holes of others would have next to nothing left."""
_TOGETHER = 1.2
"""Times as large a singular value as chance makes it; of entries missing one by one, 0.85 to 1.15 were seen."""
_LOOKED_AT = 500
"""Rows and columns of which this is found out, at most."""
_TRIALS = ((1_000, 4), (50_000, 2))
"""Observed entries, and how many trials a matrix gets that has no more of them; larger ones get one."""
_LIGHT = 0.02
"""Parts of a mixture with smaller weights are left out: their time buys nothing."""
_SCARCE = 30
"""Fewer left-out entries tell nothing about a mixture: the best chain is taken by itself."""


@dataclass(frozen=True)
class Plan:
    """A mixture of chains.

    Attributes:
        parts: chains with their weights, which sum to 1; the heaviest first.
    """

    parts: tuple[tuple[float, Chain], ...]

    @property
    def passes(self) -> int:
        """The largest number of kernel regressions in a chain."""
        return max(sum(isinstance(filler, Entries | Columns) for filler in chain) for _, chain in self.parts)

    def filled(self, known: Known) -> Filled:
        """Fill a matrix, in the units of ``Known.values``."""
        values, residual = torch.zeros_like(known.table), 0.0
        told: Tensor | None = None
        for weight, chain in self.parts:
            for filled in each_pass(known, chain):
                residual = max(residual, filled.residual)
            values += weight * filled.values
            told = filled.values if isinstance(chain[-1], Told) else told
        if told is not None:
            # Of a column without an entry, its features are all that is known: the other parts give it a mean.
            values = torch.where(known.observed.any(0), values, told)
        return Filled(values, residual)


@dataclass(frozen=True, eq=False)
class Choice:
    """A plan and why it was chosen.

    Attributes:
        plan: the mixture.
        left_out: its predictions of entries that were left out, in the units of the table, [rows, columns]; NaN at
            the others.
        errors: root mean square error of the best chain of each family at those entries, and of the mixture, in the
            units of ``Known.values``.
    """

    plan: Plan
    left_out: Tensor
    errors: dict[str, float]


def left_out_like_missing(observed: Tensor, generator: torch.Generator) -> Tensor:
    """Choose observed entries to leave out, as the missing ones are: blocks where blocks are missing.

    Where what is missing lies together, some rows get the holes of another row in addition to their own. Else, and
    where so much is missing that little would be left of those rows, entries are drawn one by one. Each column keeps
    two entries, and no row loses its last one.

    Args:
        observed: boolean [rows, columns], True = known.
        generator: of the choice, on the CPU.

    Returns:
        boolean [rows, columns], within ``observed``.
    """
    seen = observed.cpu()
    missing = 1 - float(seen.double().mean())
    borrowing, drawing = _SHARE / max(missing, _SHARE), max(_SHARE - missing, 0.0)
    if missing > _SPARSE or not _lie_together(~seen):
        borrowing, drawing = 0.0, _SHARE
    borrowed = ~seen[torch.randperm(len(seen), generator=generator)]
    lent = torch.rand(len(seen), 1, generator=generator, dtype=torch.float64) < borrowing
    hidden = seen & borrowed & lent
    hidden |= seen & (torch.rand(seen.shape, generator=generator, dtype=torch.float64) < drawing)
    hidden &= (seen & ~hidden).any(1, keepdim=True)
    hidden &= (seen & ~hidden).sum(0) >= 2
    return hidden.to(observed.device)


def _lie_together(missing: Tensor) -> bool:
    """Whether missing entries of boolean [rows, columns] lie in blocks, rather than where chance puts them."""
    some = [torch.linspace(0, n - 1, min(n, _LOOKED_AT)).long() for n in missing.shape]
    rest = missing[some[0]][:, some[1]].double()
    rest = rest - rest.mean(0) - rest.mean(1, keepdim=True) + rest.mean()
    small = rest @ rest.T if rest.shape[0] < rest.shape[1] else rest.T @ rest
    # Of independent entries of variance v, the largest singular value is about sqrt(v) (sqrt(rows) + sqrt(columns)).
    largest = math.sqrt(max(float(torch.linalg.eigvalsh(small)[-1]), 0))
    chance = float(rest.std(correction=0)) * sum(math.sqrt(n) for n in rest.shape)
    return largest > _TOGETHER * chance


def families(known: Known, passes: Literal["auto"] | int, precision: Precision = "float64") -> dict[str, list[Chain]]:
    """Chains to choose from, by the family of which the best one takes part in the mixture.

    Args:
        known: what is observed.
        passes: "auto", or a number of passes of ``Entries``.
        precision: of their products.
    """
    sides = _SIDES if known.rows is not None or known.columns is not None else _SIDES[:1]

    def entries(count: int, first: int, depth: int) -> list[Chain]:
        """So many passes, the first of another depth, for each noise and weight of the features."""
        made: list[Chain] = []
        for noise in _NOISES:
            for side in sides:
                start, later = (
                    Entries(layers, noise, means=known.alike, side=side, precision=precision)
                    for layers in (first, depth)
                )
                made.append((start, *(count - 1) * (later,)))
        return made

    if passes == 1:
        return {"entries": [chain for depth in _DEPTHS for chain in entries(1, depth, depth)]}
    if passes != "auto":
        return {"entries": [chain for depth in _DEPTHS for chain in entries(passes, 1, depth)]}
    found: dict[str, list[Chain]] = {
        "means": [(Means(),)],
        "low rank": [tuple(LowRank(share, means) for share in _SHRINKAGES) for means in (True, False)],
        "entries": [chain for depth in _DEPTHS for chain in entries(_ENTRIES, 1, depth)],
    }
    found |= {f"columns, {depth} hidden layers": [most * (Columns(depth),)] for depth, most in _COLUMNS.items()}
    found |= {"nearest rows": [(Nearest(),)], "nearest columns": [(Nearest(columns=True),)]}
    if known.columns is not None:
        found["features"] = [(Told(),)]
    light = {name: chains for name, chains in found.items() if chains[0][0].cost(known) <= _WORK}
    return light or {"means": found["means"]}


def trial_count(entries: int) -> int:
    """How many trials a matrix with so many observed entries gets."""
    return next((trials for most, trials in _TRIALS if entries <= most), 1)


class Trials:
    """Left-out entries of some masks, and what chains say of them.

    Attributes:
        truth: the entries that were left out, one trial behind the other, in the units of ``known.values``.
        places: boolean [rows, columns], one a trial.
    """

    def __init__(self, known: Known, seed: int) -> None:
        self._known = known
        generator = torch.Generator().manual_seed(seed)
        count = trial_count(int(known.observed.sum()))
        self.places = [left_out_like_missing(known.observed, generator) for _ in range(count)]
        self._rest = [known.without(hidden) for hidden in self.places]
        self.truth = torch.cat([known.values[hidden] for hidden in self.places])

    def of_pass(self, filler: Filler, before: list[Filled] | None) -> tuple[list[Filled], Tensor]:
        """The next pass of each trial, and its predictions, as ``truth`` is."""
        last = [None] * len(self._rest) if before is None else [filled.values for filled in before]
        filled = [filler.filled(rest, estimate) for rest, estimate in zip(self._rest, last, strict=True)]
        found = [
            ((rest.back(one.values) - self._known.center) / self._known.scale)[hidden]
            for rest, one, hidden in zip(self._rest, filled, self.places, strict=True)
        ]
        return filled, torch.cat(found)

    def of_plan(self, plan: Plan) -> Tensor:
        """Predictions of a mixture."""
        mixed = torch.zeros_like(self.truth)
        for weight, chain in plan.parts:
            state: list[Filled] | None = None
            for filler in chain:
                state, predicted = self.of_pass(filler, state)
            mixed += weight * predicted
        return mixed

    def of_means(self) -> Tensor:
        """The means of columns without the entries that are left out."""
        found = [
            ((rest.center - self._known.center) / self._known.scale).expand_as(hidden)[hidden]
            for rest, hidden in zip(self._rest, self.places, strict=True)
        ]
        return torch.cat(found)

    def error(self, predicted: Tensor) -> float:
        """Root mean square error."""
        return float((predicted - self.truth).square().mean().sqrt())

    def spread(self, predicted: Tensor) -> Tensor:
        """Predictions in the units of the table at their places, means where several trials have one, else NaN."""
        total, count = torch.zeros_like(self._known.table), torch.zeros_like(self._known.table)
        parts = torch.split(predicted, [int(hidden.sum()) for hidden in self.places])
        for hidden, part in zip(self.places, parts, strict=True):
            total[hidden] += part
            count[hidden] += 1
        return torch.where(count > 0, self._known.back(total / count), torch.nan)


@dataclass(frozen=True, eq=False)
class _Tried:
    chain: Chain
    predicted: Tensor
    error: float


def _best(trials: Trials, chains: Sequence[Chain], *, whole: bool) -> _Tried:
    """The chain with the smallest error, cut after its best pass unless it is to be taken as a ``whole``."""
    best: _Tried | None = None
    first_passes: dict[Filler, tuple[list[Filled], Tensor]] = {}
    best_first = torch.inf
    for chain in chains:
        state: list[Filled] | None = None
        futile, lowest = 0, torch.inf
        for number, filler in enumerate(chain):
            if number == 0 and filler in first_passes:
                state, predicted = first_passes[filler]
            else:
                state, predicted = trials.of_pass(filler, state)
            error = trials.error(predicted)
            if number == 0:
                first_passes[filler] = state, predicted
                best_first = min(best_first, error)
            if (not whole or number == len(chain) - 1) and (best is None or error < best.error):
                best = _Tried(chain[: number + 1], predicted, error)
            futile = 0 if error < lowest else futile + 1
            lowest = min(lowest, error)
            if not whole and (futile == _PATIENCE or error > _HOPELESS * best_first):
                break
    assert best is not None
    return best


def _weights(predictions: Sequence[Tensor], truth: Tensor) -> list[float]:
    """Weights of at least 0 with sum 1 whose mixture has the smallest squared error."""
    columns = torch.stack(list(predictions), 1).cpu().numpy()
    # One more equation, of great weight, sets the sum.
    heavy = 1e3 * float(np.sqrt(np.square(columns).sum() + 1))
    left = np.vstack([columns, np.full((1, columns.shape[1]), heavy)])
    weights, _ = scipy.optimize.nnls(left, np.append(truth.cpu().numpy(), heavy))
    weights = np.where(weights < _LIGHT * weights.sum(), 0, weights)
    return [float(weight) for weight in weights / weights.sum()]


def choose(
    known: Known,
    passes: Literal["auto"] | int,
    *,
    precision: Precision = "float64",
    seed: int = 0,
    progress: bool = False,
    mesh: Mesh | None = None,
) -> Choice:
    """Choose among the chains of ``families`` by entries that are left out.

    Args:
        known: what is observed.
        passes: "auto" mixes the best chains of all families; a number takes the best chain of so many passes.
        precision: of products with kernels.
        seed: of the entries that are left out.
        progress: whether to show a bar.
        mesh: ranks that call this with the same arguments and divide the families; the choice is that of one process.

    Returns:
        the plan, with its predictions of the left-out entries. Of a mixture, its few weights were fitted to them.
    """
    trials = Trials(known, seed)
    whole = passes != "auto"
    if len(trials.truth) == 0:
        chain = families(known, passes, precision)["entries"][-1] if whole else (Means(),)
        return Choice(Plan(((1.0, chain),)), torch.full_like(known.table, torch.nan), {})
    found = families(known, passes, precision)
    with tqdm(total=len(found), disable=not progress, desc="choosing passes", unit="family") as bar:

        def best_of(name: str) -> _Tried:
            best = _best(trials, found[name], whole=whole)
            bar.update()
            return best

        best_ones = by_rank(mesh or Mesh.alone(), best_of, list(found), known.table.device)
    tried = dict(zip(found, best_ones, strict=True))
    best = list(tried.values())
    if len(trials.truth) < _SCARCE:
        weights = [float(one is min(best, key=lambda one: one.error)) for one in best]
    else:
        weights = _weights([one.predicted for one in best], trials.truth)
    parts = [(weight, one) for weight, one in zip(weights, best, strict=True) if weight > 0]
    parts.sort(key=lambda part: -part[0])
    mixed = torch.stack([weight * one.predicted for weight, one in parts]).sum(0)
    errors = {name: one.error for name, one in tried.items()} | {"mixture": trials.error(mixed)}
    plan = Plan(tuple((weight, one.chain) for weight, one in parts))
    return Choice(plan, trials.spread(mixed), errors)
