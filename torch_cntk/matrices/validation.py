"""Cross-validation of completions: entries, whole columns or whole rows are left out, by themselves or in groups."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.dealing import by_rank
from torch_cntk._internal.memory import allocating
from torch_cntk._internal.ranks import Mesh
from torch_cntk.matrices.forms import is_series
from torch_cntk.matrices.judging import folds_of
from torch_cntk.matrices.peers import affordable, completed_by
from torch_cntk.matrices.report import OURS
from torch_cntk.matrices.tables import Matrix, read_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from torch_cntk.matrices.completion import MatrixCompletion

__all__ = ["METRICS", "Leave", "Metric", "Validation", "cross_validate"]

Leave = Literal["entries", "columns", "rows"]
_LEAVE: tuple[Leave, ...] = get_args(Leave)
Metric = Literal["rmse", "mae", "r2", "pearson"]
METRICS: tuple[Metric, ...] = get_args(Metric)
Line = dict[str, Any]


@dataclass(frozen=True)
class Validation:
    """Scores of methods on the same left-out entries.

    Attributes:
        lines: one for each method and fold: method, fold, entries, rmse, mae, r2 (about the mean of what was not left
            out), pearson, seconds.
    """

    lines: tuple[Line, ...]

    @property
    def methods(self) -> list[str]:
        """Their names, the completion first."""
        return list(dict.fromkeys(line["method"] for line in self.lines))

    def values(self, method: str, metric: Metric) -> list[float]:
        """A metric of a method, for each fold.

        Raises:
            ValueError: there is no such method or metric.
        """
        if method not in self.methods or metric not in METRICS:
            raise ValueError(f"expected one of {self.methods} and one of {METRICS}, got {method!r} and {metric!r}")
        return [line[metric] for line in self.lines if line["method"] == method]

    def frame(self) -> Any:
        """The lines as a frame of pandas."""
        import pandas

        return pandas.DataFrame(list(self.lines))

    def __str__(self) -> str:
        width = max(map(len, self.methods))
        head = f"{'':{width}}  " + "  ".join(f"{metric:>17}" for metric in METRICS)
        return "\n".join([head, *(f"{name:<{width}}  {self._means(name)}" for name in self.methods)])

    def _means(self, method: str) -> str:
        cells = []
        for metric in METRICS:
            values = torch.tensor([value for value in self.values(method, metric) if not math.isnan(value)])
            spread = f" +- {float(values.std()):.2g}" if len(values) > 1 else ""
            cells.append(f"{float(values.mean()):.4g}{spread}" if len(values) else "-")
        return "  ".join(f"{cell:>17}" for cell in cells)

    def plot(self, metric: Metric = "rmse", axes: Axes | None = None) -> Axes:
        """Draw a metric of each method over the folds; see ``matrices.plotting.folds``."""
        from torch_cntk.matrices.plotting import folds

        return folds({name: self.values(name, metric) for name in self.methods}, metric, axes)


def cross_validate(
    model: MatrixCompletion,
    Y: Any,  # noqa: N803
    observed: Any = None,
    features: Any = None,
    row_features: Any = None,
    *,
    leave: Leave = "entries",
    groups: Any = None,
    folds: int = 5,
    seed: int = 0,
    progress: bool = False,
    mesh: Mesh | None = None,
) -> Validation:
    """Fit a completion, and simple methods, without some of what is known, and compare what they say of it.

    Each fold is fitted from the start: the ridge, the passes and what else is chosen have not seen what is left out.

    Args:
        model: with its options; it is not changed.
        Y: as in ``fit``.
        observed: likewise.
        features: likewise.
        row_features: likewise.
        leave: "entries" leaves out entries here and there, "columns" or "rows" all entries of some columns or rows: of
            a column that nobody has measured. Without features, nothing but means is to be expected then.
        groups: of the columns (or rows): one label for each, or a Series of pandas by their labels. All of a group are
            left out together, as what belongs to one patient, chip or chemical.
        folds: into how many parts all is dealt; each is left out once.
        seed: of the parts.
        progress: whether to show a bar.
        mesh: of ``torch_cntk.distributed.mesh()``: processes that call this with the same arguments and divide the
            fits, of which each is made by one. The scores are those of one process, to the bit.

    Returns:
        the scores, on every rank.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an option is out of range, groups do not fit, or there are fewer things to leave out than folds.
    """
    if leave not in _LEAVE:
        raise ValueError(f"expected leave to be one of {', '.join(_LEAVE)}, got {leave!r}")
    if positive_int(folds, "folds") < 2:
        raise ValueError(f"expected at least 2 folds, got {folds}")
    matrix = read_matrix(Y, observed, model.device)
    fold = _folds(matrix, leave, groups, folds, seed)
    names = affordable(*matrix.values.shape)
    known = torch.where(matrix.observed, matrix.values, 0)
    # Ranks that divide the fits do not divide them once more.
    alone = {} if mesh is None else {"mesh": None}
    rounds = [(number, name) for number in range(folds) for name in (OURS, *names)]
    with (
        allocating("cross-validation"),
        warnings.catch_warnings(),
        tqdm(total=len(rounds), disable=not progress, desc="cross-validation", unit="fit") as bar,
    ):
        # Of rows without an entry and the like, for each fold again.
        warnings.simplefilter("ignore", UserWarning)

        def line(part: tuple[int, str]) -> Line:
            number, name = part
            hidden = fold == number
            rest = matrix.observed & ~hidden
            start = time.perf_counter()
            if name == OURS:
                fitted = copy.copy(model).set_params(**alone).fit(Y, rest, features, row_features)
                filled = fitted._filled()
            else:
                filled = model._clipped(completed_by(name, known, rest))
            seconds = time.perf_counter() - start
            scores = _scores(filled[hidden], known[hidden], float(known[rest].mean()))
            bar.update()
            return {"method": name, "fold": number, "entries": int(hidden.sum()), **scores, "seconds": seconds}

        lines = by_rank(mesh or Mesh.alone(), line, rounds)
    order = {name: place for place, name in enumerate((OURS, *names))}
    return Validation(tuple(sorted(lines, key=lambda line: (order[line["method"]], line["fold"]))))


def _folds(matrix: Matrix, leave: Leave, groups: Any, folds: int, seed: int) -> Tensor:
    """Which fold leaves out each entry, [rows, columns]; -1 where nothing is observed.

    Raises:
        ValueError: there are fewer things to leave out than folds, or groups of entries.
    """
    observed = matrix.observed
    if leave == "entries":
        if groups is not None:
            raise ValueError('expected groups with leave="columns" or "rows", got some of entries')
        _check_enough(int(observed.sum()), folds, "observed entries")
        return folds_of(observed, folds, seed)
    axis = 0 if leave == "columns" else 1
    labels = matrix.columns if leave == "columns" else matrix.rows
    having = observed.any(axis)
    given = list(range(len(having))) if groups is None else _listed(groups, labels, len(having), leave)
    members: dict[Any, list[int]] = {}
    for place in having.nonzero()[:, 0].tolist():
        members.setdefault(given[place], []).append(place)
    _check_enough(len(members), folds, "groups" if groups is not None else leave)
    line = torch.full(having.shape, -1, dtype=torch.int64)
    sizes = [0] * folds
    order = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed)).tolist()
    shuffled = [list(members.values())[place] for place in order]
    # The largest first, each into the smallest fold.
    for places in sorted(shuffled, key=len, reverse=True):
        smallest = sizes.index(min(sizes))
        line[places] = smallest
        sizes[smallest] += len(places)
    line = line.to(observed.device)
    whole = line.expand(observed.shape) if leave == "columns" else line[:, None].expand(observed.shape)
    return torch.where(observed, whole, -1)


def _check_enough(count: int, folds: int, what: str) -> None:
    """Refuse folds that would be empty.

    Raises:
        ValueError: so it is.
    """
    if count < folds:
        raise ValueError(f"expected at least {folds} {what} for {folds} folds, got {count}")


def _listed(groups: Any, labels: Sequence[Any] | None, count: int, leave: str) -> list[Any]:
    """The group of each column or row.

    Raises:
        ValueError: there is not one for each.
    """
    if is_series(groups) and labels is not None:
        lost = [label for label in labels if label not in groups.index]
        if lost:
            raise ValueError(f"expected a group for each of the {leave}, got none for {lost[0]!r}")
        return list(groups.loc[list(labels)])
    found = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if len(found) != count:
        raise ValueError(f"expected a group for each of {count} {leave}, got {len(found)}")
    return found


def _scores(predicted: Tensor, truth: Tensor, mean: float) -> dict[str, float]:
    """The metrics of one fold."""
    errors = predicted - truth
    spread = float((truth - mean).square().sum())
    deviations = [part - part.mean() for part in (predicted, truth)]
    norms = float(deviations[0].norm() * deviations[1].norm())
    # Rounding of a constant is no correlation.
    flat = norms <= 1e-12 * float(predicted.norm() * truth.norm())
    return {
        "rmse": float(errors.square().mean().sqrt()),
        "mae": float(errors.abs().mean()),
        "r2": 1 - float(errors.square().sum()) / spread if spread > 0 else math.nan,
        "pearson": math.nan if flat else float(deviations[0] @ deviations[1]) / norms,
    }
