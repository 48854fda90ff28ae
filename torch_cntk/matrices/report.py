"""How good a completion is, beside what one would have taken instead, and which of them to trust."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.dealing import by_rank
from torch_cntk.matrices.judging import fold_count, folds_of, in_parts
from torch_cntk.matrices.peers import affordable, completed_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from torch_cntk.matrices.choice import Plan
    from torch_cntk.matrices.judged import Judged

__all__ = ["OURS", "Report", "reported", "verdict"]

OURS = "this completion"
_SURE = 2.0
"""Standard errors by which two mean squared errors must differ to be said to."""
_ADVICE = '; passes="auto" mixes features, entries and neighbours, and ridge="cv" chooses the ridge'
_WORST = 3
"""Rows that are named in the text: those that are told worst."""


@dataclass(frozen=True)
class Report:
    """What is known of the quality of a completion.

    Attributes:
        methods: names of what is compared; the first is the completion itself.
        rmse: root mean square error of each at the same left-out entries.
        r2: 1 less its squared errors over the squared deviations from the rows' means.
        compared: how many entries these are; ``parts`` of them at a time were left out.
        parts: into how many parts the entries were dealt.
        exact: whether ``left_out_rmse`` and the rows' numbers come from leaving out each entry by itself, in closed
            form; else they come from the same parts.
        left_out_rmse: root mean square error at all entries that were left out.
        left_out_r2: likewise.
        rows: labels of the rows, or their numbers.
        row_entries: how many entries of each were left out.
        row_rmse: of each, NaN where there is none.
        row_r2: of each, NaN where there are fewer than two different ones.
        coverage: share of left-out entries within the central intervals of these levels, see ``predict(return_std)``.
        origin: which ridge it was, and where it came from; or which passes.
        verdict: what to trust, in a sentence.
        truth: the left-out entries.
        predicted: what was said of them.
    """

    methods: tuple[str, ...]
    rmse: tuple[float, ...]
    r2: tuple[float, ...]
    compared: int
    parts: int
    exact: bool
    left_out_rmse: float
    left_out_r2: float
    rows: tuple[Any, ...]
    row_entries: tuple[int, ...]
    row_rmse: tuple[float, ...]
    row_r2: tuple[float, ...]
    coverage: dict[float, float]
    origin: str
    verdict: str
    truth: Tensor
    predicted: Tensor

    def __str__(self) -> str:
        part = f"a {_ORDINALS[self.parts]} at a time" if self.parts in _ORDINALS else f"in {self.parts} parts"
        how = "each by itself" if self.exact else part
        lines = [
            f"left-out entries, {how}: error {self.left_out_rmse:.4g}, R^2 {self.left_out_r2:.3f}",
            f"by row: {self._spread()}",
            f"beside others, on {self.compared:,} entries left out {part} (root mean square error, R^2 about the means "
            "of rows):",
        ]
        width = max(map(len, self.methods))
        table = zip(self.methods, self.rmse, self.r2, strict=True)
        lines += [f"  {name:<{width}}  {rmse:<9.4g} {r2:6.3f}" for name, rmse, r2 in table]
        held = ", ".join(f"{100 * share:.0f} % for {100 * level:g} %" for level, share in self.coverage.items())
        lines += [f"intervals of the standard deviations hold {held}", self.origin]
        return "\n".join([*lines, self.verdict])

    def _spread(self) -> str:
        told = [(r2, row) for r2, row in zip(self.row_r2, self.rows, strict=True) if not math.isnan(r2)]
        if not told:
            return "too few entries"
        told.sort(key=lambda pair: pair[0])
        worst = ", ".join(f"{row} ({r2:.2f})" for r2, row in told[:_WORST])
        return f"R^2 from {told[0][0]:.2f} to {told[-1][0]:.2f}, median {told[len(told) // 2][0]:.2f}; lowest {worst}"

    def by_row(self) -> dict[str, list[Any]]:
        """A column each of labels, numbers of entries, errors and R^2; ``pandas.DataFrame(report.by_row())``."""
        return {
            "row": list(self.rows),
            "entries": list(self.row_entries),
            "rmse": list(self.row_rmse),
            "r2": list(self.row_r2),
        }

    def by_method(self) -> dict[str, list[Any]]:
        """A column each of methods, errors and R^2 at the same left-out entries."""
        return {"method": list(self.methods), "rmse": list(self.rmse), "r2": list(self.r2)}

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw predictions of left-out entries against what they are; see ``matrices.plotting.left_out``."""
        from torch_cntk.matrices.plotting import left_out

        return left_out(self.truth, self.predicted, axes)


_ORDINALS = {2: "half", 3: "third", 4: "quarter", 5: "fifth", 10: "tenth"}


def reported(model: Judged) -> Report:
    """Judge a fitted completion.

    Raises:
        ValueError: there are fewer than two observed entries.
    """
    matrix = model._matrix
    entries = int(matrix.observed.sum())
    if entries < 2:
        raise ValueError(f"expected at least two observed entries to leave some out, got {entries}")
    judged = model._judged()
    parts, tried = fold_count(entries)
    fold = folds_of(matrix.observed, parts, model.seed)
    hidden = (fold >= 0) & (fold < tried)
    ours = judged.values if not judged.exact else model._clipped(in_parts(model, fold, tried).values)
    others = _others(matrix.values, matrix.observed, fold, tried, model)
    found = {OURS: ours, **{name: model._clipped(values) for name, values in others.items()}}
    means = _means(matrix.values, matrix.observed)
    scores = {name: _score(values, matrix.values, hidden, means) for name, values in found.items()}
    left = ~torch.isnan(judged.values)
    rmse, r2 = _score(judged.values, matrix.values, left, means)
    rows = [_score(*(part[row] for part in (judged.values, matrix.values, left, means))) for row in range(len(left))]
    names = range(len(left)) if matrix.rows is None else matrix.rows
    squares = {name: (values - matrix.values)[hidden].square() for name, values in found.items()}
    return Report(
        methods=tuple(scores),
        rmse=tuple(score[0] for score in scores.values()),
        r2=tuple(score[1] for score in scores.values()),
        compared=int(hidden.sum()),
        parts=parts,
        exact=judged.exact,
        left_out_rmse=rmse,
        left_out_r2=r2,
        rows=tuple(names),
        row_entries=tuple(left.sum(1).tolist()),
        row_rmse=tuple(row[0] for row in rows),
        row_r2=tuple(row[1] for row in rows),
        coverage=model._calibrated().coverage,
        origin=_passes_of(model.plan_) if model.plan_ is not None else _ridge_of(model.ridge_, model.ridges_),
        verdict=verdict(squares, scores[OURS][1], "" if model.plan_ is not None else _ADVICE),
        truth=matrix.values[left].cpu(),
        predicted=judged.values[left].cpu(),
    )


def _others(values: Tensor, observed: Tensor, fold: Tensor, tried: int, model: Judged) -> dict[str, Tensor]:
    """What simple methods say of the entries of some parts, left out one part at a time; by rank."""
    names = affordable(*values.shape)
    found = {name: torch.full_like(values, torch.nan) for name in names}
    rounds = [(part, name) for part in range(tried) for name in names]
    with tqdm(total=len(rounds), disable=not model.progress, desc="comparing", unit="fit") as bar:

        def said(one: tuple[int, str]) -> Tensor:
            part, name = one
            hidden = fold == part
            filled = completed_by(name, torch.where(observed, values, 0), observed & ~hidden)
            bar.update()
            return filled[hidden]

        entries = by_rank(model._ranks, said, rounds, values.device)
    for (part, name), filled in zip(rounds, entries, strict=True):
        found[name][fold == part] = filled
    return found


def _means(values: Tensor, observed: Tensor) -> Tensor:
    """The mean of each row's observed entries at all its entries, [rows, columns]."""
    known = torch.where(observed, values, 0)
    return (known.sum(1) / observed.sum(1).clamp_min(1))[:, None].expand(values.shape)


def _score(predicted: Tensor, truth: Tensor, where: Tensor, means: Tensor) -> tuple[float, float]:
    """Root mean square error and R^2 about given means; NaN where nothing can be said."""
    count = int(where.sum())
    if count == 0:
        return math.nan, math.nan
    error = float((predicted - truth)[where].square().sum())
    spread = float((means - truth)[where].square().sum())
    return math.sqrt(error / count), 1 - error / spread if spread > 0 and count > 1 else math.nan


def _ridge_of(ridge: float, tried: tuple[float, ...]) -> str:
    """Where the ridge came from, and whether it was at the edge of what was tried."""
    if not tried:
        return f"ridge {ridge:.1e}, as given"
    note = f"ridge {ridge:.1e}, the best of {len(tried)} from {tried[0]:.0e} to {tried[-1]:.0e} at left-out entries"
    if ridge == tried[0]:
        return f"{note}, the smallest of them: there is hardly noise"
    if ridge == tried[-1]:
        return f"{note}, the largest of them: the features say hardly anything"
    return note


def _passes_of(plan: Plan) -> str:
    """What a mixture of passes consists of."""
    parts = [f"{100 * weight:.0f} % {_KINDS.get(type(chain[-1]).__name__, 'other')}" for weight, chain in plan.parts]
    passes = f"{plan.passes} pass{'' if plan.passes == 1 else 'es'}"
    return f"a mixture, chosen by entries that were left out: {', '.join(parts)}; at most {passes}"


_KINDS = {
    "Means": "means",
    "LowRank": "low rank",
    "Entries": "a kernel of rows and columns",
    "Columns": "columns regressed on each other",
    "Told": "the features of the columns",
    "Nearest": "neighbours",
}


def verdict(squares: dict[str, Tensor], r2: float, advice: str = "") -> str:
    """What to trust.

    Args:
        squares: squared errors of each method at the same entries; the first method is the completion.
        r2: of the completion.
        advice: what may do better, behind the sentence if the completion is not the best.

    Returns:
        a sentence.
    """
    (ours, own), *others = squares.items()
    means = {name: float(errors.mean()) for name, errors in others}
    best = min(means, key=lambda name: means[name])
    difference = squares[best] - own
    error = float(difference.std() / math.sqrt(max(len(difference), 1))) if len(difference) > 1 else math.inf
    here, there = math.sqrt(float(own.mean())), math.sqrt(means[best])
    beside = f"{here:.3g} at left-out entries beside {there:.3g} of {best}, the best of the others"
    gap = means[best] - float(own.mean())
    if gap > _SURE * error:
        warning = "" if r2 > 0 else "; but it tells rows no better than their means do"
        return f"Trust {ours}: its error is {beside}{warning}."
    if -gap > _SURE * error:
        return f"Trust {best} rather than {ours}: its error is {beside}{advice}."
    return f"Trust {ours} or {best} alike: the error is {beside}, a difference within chance."
