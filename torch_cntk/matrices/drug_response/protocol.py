"""The paper's protocol: whole profiles are held out within each cell type, and predictions compared fold by fold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import positive_int
from torch_cntk.matrices.drug_response.data import DrugResponse

__all__ = ["METRICS", "Comparison", "Method", "compare", "folds", "metrics"]

Method = Callable[[Tensor, Tensor], Tensor]
"""Completes a tensor [drugs, cells, genes], given which pairs [drugs, cells] it may look at; see ``baselines``."""

METRICS = ("Pearson r", "mean R2", "mean cosine")


def metrics(predicted: Tensor, true: Tensor) -> Tensor:
    """How well profiles are predicted: Pearson's r over all numbers, R^2 and cosine of each profile, averaged.

    Args:
        predicted: [profiles, genes].
        true: [profiles, genes].

    Returns:
        [3], in the order of ``METRICS``.
    """
    pair = torch.stack([predicted.flatten(), true.flatten()])
    r = torch.corrcoef(pair)[0, 1]
    spread = (true - true.mean(1, keepdim=True)).square().sum(1)
    r2 = 1 - (predicted - true).square().sum(1) / spread
    cosine = torch.nn.functional.cosine_similarity(predicted, true, dim=1)
    return torch.stack([r, r2.mean(), cosine.mean()])


def folds(observed: Tensor, count: int, reference: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Hold out the drugs of each cell type in turn.

    Args:
        observed: boolean [drugs, cells].
        count: of the folds.
        reference: the cell type that is never held out.
        generator: source of randomness.

    Yields:
        boolean [drugs, cells] for each fold: the pairs held out. Each pair of a cell type other than the reference is
        held out once; cell types with fewer drugs than folds never are.
    """
    fold_of = torch.full(observed.shape, -1)
    for cell in range(observed.shape[1]):
        drugs = observed[:, cell].nonzero()[:, 0]
        if cell == reference or len(drugs) < count:
            continue
        order = torch.randperm(len(drugs), generator=generator)
        fold_of[drugs[order], cell] = torch.arange(len(drugs)) % count
    for fold in range(count):
        yield fold_of == fold


@dataclass(frozen=True)
class Comparison:
    """Metrics of several methods on the same folds.

    Attributes:
        methods: their names.
        values: [methods, folds of all rounds, metrics].
        held_out: profiles held out in each fold, over those that were not.
    """

    methods: tuple[str, ...]
    values: Tensor
    held_out: float

    def p_values(self, method: str, other: str) -> Tensor:
        """Two-sided paired t-tests over the folds, as in the paper, one a metric, [3].

        Folds share most of what they learn from, so that these are too small; see ``corrected_p_values``.
        """
        first, second = (self.values[self.methods.index(name)].numpy() for name in (method, other))
        return torch.from_numpy(np.atleast_1d(scipy.stats.ttest_rel(first, second).pvalue))

    def corrected_p_values(self, method: str, other: str) -> Tensor:
        """The same with the variance of Nadeau & Bengio (2003), which allows for what folds have in common, [3]."""
        difference = self.values[self.methods.index(method)] - self.values[self.methods.index(other)]
        count = len(difference)
        variance = difference.var(0) * (1 / count + self.held_out)
        t = difference.mean(0) / variance.sqrt()
        return torch.from_numpy(2 * scipy.stats.t.sf(np.abs(t.numpy()), count - 1))

    def table(self, best: str | None = None) -> list[tuple[str, ...]]:
        """Rows of text: mean and standard deviation over folds of each metric and, against ``best``, both p-values."""
        rows = [("method", *METRICS, *(() if best is None else ("p (r, R2, cosine)", "corrected p")))]
        for name, values in zip(self.methods, self.values, strict=True):
            cells = [f"{mean:.3f} +- {std:.3f}" for mean, std in zip(values.mean(0), values.std(0), strict=True)]
            if best is not None:
                tests = (self.p_values, self.corrected_p_values)
                cells += ["" if name == best else ", ".join(f"{p:.1e}" for p in test(best, name)) for test in tests]
            rows.append((name, *cells))
        return rows


def compare(
    data: DrugResponse,
    methods: Mapping[str, Method],
    *,
    reference: str = "MCF7",
    count: int = 10,
    rounds: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> Comparison:
    """Cross-validate methods within cell types, on the same folds.

    Args:
        data: profiles. Cell types with fewer drugs than folds are left out altogether, as in the paper.
        methods: by name.
        reference: the cell type that is in training only.
        count: folds of a round.
        rounds: each with other folds.
        seed: of the folds.
        progress: whether to show a bar.

    Returns:
        the metrics of each method in each fold.

    Raises:
        TypeError: a number is no integer.
        ValueError: a number is below 1, there is no such reference, or no cell type has enough drugs.
    """
    positive_int(count - 1, "count - 1")
    positive_int(rounds, "rounds")
    place = data.cell(reference)
    keep = [k for k, n in enumerate(data.observed.sum(0).tolist()) if n >= count or k == place]
    if len(keep) < 2:
        raise ValueError(f"expected a cell type besides {reference} with at least {count} drugs, got none")
    data = data.select_cells(keep)
    observed, place = data.observed, data.cell(reference)
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, list[Tensor]] = {name: [] for name in methods}
    shares = []
    with tqdm(total=rounds * count * len(methods), disable=not progress, unit="fit") as bar:
        for _ in range(rounds):
            for held_out in folds(observed, count, place, generator):
                known = observed & ~held_out
                shares.append(int(held_out.sum()) / int(known.sum()))
                # What is held out is not there to be looked at.
                tensor = torch.where(known[..., None], data.tensor, torch.nan)
                for name, method in methods.items():
                    bar.set_description(name)
                    filled = method(tensor, known)
                    values[name].append(metrics(filled[held_out], data.tensor[held_out]))
                    bar.update()
    stacked = torch.stack([torch.stack(found) for found in values.values()])
    return Comparison(tuple(methods), stacked, float(np.mean(shares)))
