"""Virtual drug screening: files, folds, metrics, priors and methods."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.stats
import torch

import torch_cntk as tc
from torch_cntk import baselines
from torch_cntk.matrices.drug_response import (
    METRICS,
    Comparison,
    DrugResponse,
    MixedNTK,
    PaperNTK,
    ResidualNTK,
    compare,
    estimates,
    folds,
    metrics,
    one_hot_prior,
    read_drug_response,
    reference_prior,
)

DRUGS, CELLS, GENES = ("aspirin", "b", "c"), ("MCF7", "PC3"), ("g1", "g2", "g3", "g4")


def small(generator: torch.Generator) -> torch.Tensor:
    """[3 drugs, 2 cells, 4 genes], one pair not measured."""
    tensor = torch.rand(3, 2, 4, generator=generator, dtype=torch.float64) + 0.5
    tensor[1, 1] = math.nan
    return tensor


def assert_read(data: DrugResponse, tensor: torch.Tensor) -> None:
    assert (data.drugs, data.cells, data.genes) == (DRUGS, CELLS, GENES)
    assert torch.allclose(data.tensor, tensor, equal_nan=True)
    assert data.observed.tolist() == [[True, True], [True, False], [True, True]]


def test_reads_tensors_of_matlab(tmp_path: Path, generator: torch.Generator) -> None:
    tensor = small(generator)
    labels = {
        name: np.array([[label] for label in given], dtype=object)
        for name, given in (("pertIds", DRUGS), ("geneIds", GENES), ("cellIds", CELLS))
    }
    scipy.io.savemat(tmp_path / "large.mat", {"T": tensor.permute(0, 2, 1).numpy(), **labels})
    assert_read(read_drug_response(tmp_path / "large.mat"), tensor)
    scipy.io.savemat(tmp_path / "wrong.mat", {"T": tensor.numpy(), **labels})
    with pytest.raises(ValueError, match="3 drugs x 4 genes x 2 cells, got"):
        read_drug_response(tmp_path / "wrong.mat")
    scipy.io.savemat(tmp_path / "less.mat", {"T": tensor.numpy()})
    with pytest.raises(ValueError, match="got no pertIds, geneIds, cellIds"):
        read_drug_response(tmp_path / "less.mat")


def lines(tensor: torch.Tensor) -> Iterator[Any]:
    for drug, cell in (~tensor.isnan().any(2)).nonzero().tolist():
        yield DRUGS[drug], CELLS[cell], tensor[drug, cell]


def test_reads_npz(tmp_path: Path, generator: torch.Generator) -> None:
    tensor = small(generator)
    np.savez(tmp_path / "t.npz", T=tensor.numpy(), drug=DRUGS, cell=CELLS, feature=GENES)
    assert_read(read_drug_response(tmp_path / "t.npz"), tensor)
    drug, cell, values = zip(*lines(tensor), strict=True)
    controls = torch.rand(2, 4, generator=generator, dtype=torch.float64) + 0.5
    np.savez(
        tmp_path / "x.npz",
        X=torch.stack(values).numpy(),
        drug=drug,
        cell=cell,
        gene_entrez=GENES,
        ctrl=controls.flip(0).numpy(),
        ctrl_cell=CELLS[::-1],
    )
    data = read_drug_response(tmp_path / "x.npz")
    assert_read(data, tensor)
    assert data.controls is not None
    assert torch.equal(data.controls, controls)
    change = data.fold_change()
    assert torch.allclose(change.tensor[2, 1], torch.log2(tensor[2, 1]) - torch.log2(controls[1]))
    assert change.controls is None
    with pytest.raises(ValueError, match="a control for each cell type, got none"):
        change.fold_change()
    np.savez(tmp_path / "no.npz", T=tensor.numpy())
    with pytest.raises(ValueError, match="expected T or X with drug, cell and gene"):
        read_drug_response(tmp_path / "no.npz")


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_reads_long_tables_and_averages_replicates(
    tmp_path: Path, suffix: Any, delimiter: Any, generator: torch.Generator
) -> None:
    tensor = small(generator)
    path = tmp_path / f"long.{suffix}"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["drug", "g1", "cell", "g2", "g3", "g4"])
        for drug, cell, values in lines(tensor):
            for shift in (-0.25, 0.25):
                first, *rest = (repr(float(v)) for v in values + shift)
                writer.writerow([drug, first, cell, *rest])
    data = read_drug_response(path)
    assert_read(data, tensor)
    path.write_text("drug,g\na,1\n")
    with pytest.raises(ValueError, match="expected columns cell, drug and genes"):
        read_drug_response(path)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_drug_response(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"expected a file of \.mat, \.npz, \.csv, \.tsv"):
        read_drug_response(tmp_path / "a.xlsx")
    (tmp_path / "a.mat").write_bytes(b"not a file of MATLAB" * 20)
    with pytest.raises(ValueError, match="no MATLAB file that scipy can read"):
        read_drug_response(tmp_path / "a.mat")
    (tmp_path / "a.csv").write_text("cell,drug,g\nx,y,much\n")
    with pytest.raises(ValueError, match="expected numbers under each gene"):
        read_drug_response(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="expected a tensor of"):
        DrugResponse(torch.zeros(1, 2, 3), ("a",), ("b",), ("c",))


# The protocol.


def test_metrics_are_what_they_say(generator: torch.Generator) -> None:
    true = torch.randn(7, 11, generator=generator, dtype=torch.float64)
    predicted = true + torch.randn(7, 11, generator=generator, dtype=torch.float64)
    r, r2, cosine = metrics(predicted, true).tolist()
    assert r == pytest.approx(scipy.stats.pearsonr(predicted.flatten(), true.flatten()).statistic)
    scores = [
        1 - ((p - t) ** 2).sum() / ((t - t.mean()) ** 2).sum()
        for p, t in zip(predicted.numpy(), true.numpy(), strict=True)
    ]
    assert r2 == pytest.approx(np.mean(scores))
    angles = [
        p @ t / np.linalg.norm(p) / np.linalg.norm(t) for p, t in zip(predicted.numpy(), true.numpy(), strict=True)
    ]
    assert cosine == pytest.approx(np.mean(angles))
    assert len(METRICS) == 3


def test_folds_part_each_cell_type(generator: torch.Generator) -> None:
    observed = torch.rand(23, 6, generator=generator) < 0.8
    observed[:, 4] = False
    observed[:3, 4] = True
    held = torch.stack(list(folds(observed, 5, 1, generator)))
    assert held.shape == (5, 23, 6)
    once = observed.clone()
    once[:, [1, 4]] = False  # the reference, and too few drugs
    assert torch.equal(held.sum(0), once.long())
    counts = held.sum(1)
    assert bool((counts.amax(0) - counts.amin(0) <= 1).all())


def toy(generator: torch.Generator, drugs: int = 12, cells: int = 4, genes: int = 30) -> DrugResponse:
    """Effects of drugs that differ a little from cell type to cell type; half of the cell type's own."""
    effect = torch.randn(drugs, 1, genes, generator=generator, dtype=torch.float64)
    own = torch.randn(1, cells, genes, generator=generator, dtype=torch.float64)
    gain = 1 + 0.5 * torch.rand(1, cells, 1, generator=generator, dtype=torch.float64)
    noise = 0.2 * torch.randn(drugs, cells, genes, generator=generator, dtype=torch.float64)
    tensor = gain * effect + 0.5 * own + noise
    tensor[3, 2] = math.nan
    names = [f"c{k}" for k in range(cells - 1)]
    return DrugResponse(tensor, tuple(map(str, range(drugs))), ("MCF7", *names), tuple(map(str, range(genes))))


def test_methods_see_nothing_of_what_is_held_out(generator: torch.Generator) -> None:
    data = toy(generator)
    seen = torch.zeros(12, 4, dtype=torch.long)

    def spy(tensor: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        assert torch.equal(torch.isfinite(tensor).all(2), observed)
        assert bool(observed[:, 0].all())
        seen.add_(observed.long())
        return torch.where(observed[..., None], tensor, data.tensor)

    comparison = compare(data, {"oracle": spy, "cell": baselines.cell_mean}, count=3, rounds=2)
    assert comparison.values.shape == (2, 6, 3)
    assert torch.allclose(comparison.values[0], torch.ones(6, 3, dtype=torch.float64))
    # Each pair is held out once a round, but for the reference.
    assert torch.equal(seen[:, 1:], 4 * data.observed[:, 1:].long())
    assert comparison.held_out == pytest.approx(35 / 3 / (47 - 35 / 3), rel=0.02)
    with pytest.raises(ValueError, match="expected a cell type besides MCF7 with at least 13 drugs"):
        compare(data, {}, count=13)
    with pytest.raises(ValueError, match="expected a cell type among MCF7, c0, c1, c2, got 'HELA'"):
        compare(data, {}, count=3, reference="HELA")


def test_p_values(generator: torch.Generator) -> None:
    values = torch.randn(2, 10, 3, generator=generator, dtype=torch.float64)
    comparison = Comparison(("a", "b"), values, 0.25)
    expected = [scipy.stats.ttest_rel(values[0, :, k], values[1, :, k]).pvalue for k in range(3)]
    assert comparison.p_values("a", "b").tolist() == pytest.approx(expected)
    difference = (values[0] - values[1]).numpy()
    t = difference.mean(0) / np.sqrt(difference.var(0, ddof=1) * (1 / 10 + 0.25))
    expected = 2 * scipy.stats.t.sf(np.abs(t), 9)
    assert comparison.corrected_p_values("a", "b").tolist() == pytest.approx(expected.tolist())
    assert (comparison.corrected_p_values("a", "b") > comparison.p_values("a", "b")).all()
    header, first, second = comparison.table("a")
    assert header == ("method", *METRICS, "p (r, R2, cosine)", "corrected p")
    assert first[0] == "a"
    assert first[-1] == ""
    assert second[-1].count(",") == 2


# Priors.


def test_reference_prior_equals_its_definition(generator: torch.Generator) -> None:
    tensor = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    observed = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]]).bool()
    holes = torch.where(observed[..., None], tensor, math.nan)
    prior = reference_prior(holes, observed, 0, 0.75).reshape(4, 3, 10)
    for drug in range(4):
        own = tensor[drug, 0] if observed[drug, 0] else tensor[observed[:, 0], 0].mean(0)
        for cell in range(3):
            mean = tensor[observed[:, cell], cell].mean(0)
            expected = torch.cat([0.75 * own.norm() * mean / mean.norm(), own])
            assert torch.allclose(prior[drug, cell], expected)
    with pytest.raises(ValueError, match="reference cell type, got none"):
        reference_prior(holes, observed & False, 0)


def test_one_hot_prior(generator: torch.Generator) -> None:
    prior = one_hot_prior(torch.ones(2, 3, dtype=torch.bool), 1.0, 0.5).reshape(2, 3, 5)
    assert prior[1, 2].tolist() == [0, 0, 1, 0, 0.5]
    assert one_hot_prior(torch.ones(2, 3, dtype=torch.bool), 2.0, 0).reshape(2, 3, 3)[1, 0].tolist() == [2, 0, 0]


def test_one_hot_prior_of_the_cell_type_is_the_mean_over_it(generator: torch.Generator) -> None:
    data = toy(generator)
    observed = data.observed & (torch.rand(12, 4, generator=generator) < 0.7)
    observed[0] = True
    columns = torch.where(observed[..., None], data.tensor, math.nan).flatten(0, 1).T
    features = one_hot_prior(observed, drug_weight=0)
    with pytest.warns(UserWarning, match="singular"):
        filled = tc.MatrixCompletion(1, ridge=0, center=False).fit(columns, features=features).predict()
    expected = baselines.cell_mean(data.tensor, observed).flatten(0, 1).T
    missing = ~observed.flatten()
    assert torch.allclose(filled[:, missing], expected[:, missing], rtol=1e-8, atol=1e-9)


def one_hot_variances(depth: int, activation: Any, drug_weight: float) -> tuple[float, float, float, float]:
    """What the kernel under the prior of cell and drug is the covariance of: a constant, effects of the cell, of the
    drug, and of the pair alone."""
    features = one_hot_prior(torch.ones(2, 2, dtype=torch.bool), 1.0, drug_weight)
    features = tc.features.unit(features) * features.shape[1] ** 0.5
    kernel = tc.GramOperator(tc.matrices.completion.fully_connected(depth, activation).propagate, features).dense()
    same, cell, drug, none = (float(kernel[0, place]) for place in (0, 2, 1, 3))
    return none, cell - none, drug - none, same - cell - drug + none


def mixed_model(tensor: Any, observed: Any, precisions: tuple[float, float, float]) -> torch.Tensor:
    """Henderson's equations: a constant and effects of cells and drugs, each times the root of its precision shrunken
    towards 0, fitted by least squares; their sum at every pair, [drugs, cells, genes]."""
    drugs, cells = observed.shape
    cell, drug = torch.eye(cells).double(), torch.eye(drugs).double()
    design = torch.cat(
        [
            torch.ones(drugs, cells, 1).double(),
            cell[None].expand(drugs, -1, -1),
            drug[:, None].expand(-1, cells, -1),
        ],
        2,
    )
    constant, of_cells, of_drugs = precisions
    penalty = torch.diag(torch.tensor([constant] + [of_cells] * cells + [of_drugs] * drugs).double())
    x = design[observed]
    effects = torch.linalg.pinv(x.T @ x + penalty, hermitian=True) @ x.T @ tensor[observed]
    return design @ effects


def missing_pairs(generator: torch.Generator) -> Any:
    data = toy(generator)
    observed = data.observed & (torch.rand(12, 4, generator=generator) < 0.7)
    # All cell types and drugs are connected, and a pair is missing.
    observed[0], observed[:, 0] = True, True
    observed[-1, -1] = False
    return data.tensor, observed


def one_hot_completion(
    tensor: Any, observed: Any, depth: Any, activation: Any, drug_weight: Any, *, ridge: Any = 0.0, center: Any = False
) -> Any:
    columns = torch.where(observed[..., None], tensor, math.nan).flatten(0, 1).T
    features = one_hot_prior(observed, 1.0, drug_weight)
    model = tc.MatrixCompletion(depth, activation, ridge=ridge, center=center).fit(columns, features=features)
    return model.predict().T.reshape(tensor.shape)


@pytest.mark.parametrize("ridge", [0.0, 0.05])
@pytest.mark.parametrize(("depth", "activation"), [(1, "relu"), (3, "relu"), (2, "gelu")])
def test_one_hot_prior_of_cell_and_drug_is_a_model_of_random_effects(
    depth: Any, activation: Any, ridge: Any, generator: torch.Generator
) -> None:
    tensor, observed = missing_pairs(generator)
    for drug_weight in (0.75, 0.1):
        constant, cell, drug, pair = one_hot_variances(depth, activation, drug_weight)
        noise = pair + ridge * (constant + cell + drug + pair)
        expected = mixed_model(tensor, observed, (noise / constant, noise / cell, noise / drug))
        filled = one_hot_completion(tensor, observed, depth, activation, drug_weight, ridge=ridge)
        # What is particular to the pair is a difference of the kernel's entries, and has lost some of their digits.
        assert torch.allclose(filled[~observed], expected[~observed], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 3])
def test_one_hot_prior_of_little_drug_is_the_mean_over_the_cell_type(depth: Any, generator: torch.Generator) -> None:
    """ReLU: what is particular to the pair falls as the drug's weight, the drug's effect as its square."""
    tensor, observed = missing_pairs(generator)
    expected = baselines.cell_mean(tensor, observed)[~observed]
    errors = []
    for drug_weight in (1e-4, 1e-5, 1e-6):
        filled = one_hot_completion(tensor, observed, depth, "relu", drug_weight)[~observed]
        errors.append(float((filled - expected).norm() / expected.norm()))
    assert errors[0] < 0.02
    assert errors[1] / errors[0] == pytest.approx(0.1, rel=0.2)
    assert errors[2] / errors[1] == pytest.approx(0.1, rel=0.2)


def test_smooth_activations_keep_the_drug_however_little_it_weighs(generator: torch.Generator) -> None:
    tensor, observed = missing_pairs(generator)
    _, _, drug, pair = one_hot_variances(2, "erf", 1e-3)
    filled = one_hot_completion(tensor, observed, 2, "erf", 1e-3)[~observed]
    # The constant and the cell types' effects are free; the drugs' are to the pair's as the kernel's slopes are.
    expected = mixed_model(tensor, observed, (0.0, 0.0, pair / drug))[~observed]
    assert torch.allclose(filled, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    mean = baselines.cell_mean(tensor, observed)[~observed]
    assert float((filled - mean).norm()) > 0.01 * float(mean.norm())


def test_one_hot_prior_under_a_linear_network_is_the_additive_model(generator: torch.Generator) -> None:
    tensor, observed = missing_pairs(generator)
    with pytest.warns(UserWarning, match="singular"):
        filled = one_hot_completion(tensor, observed, 0, "relu", 0.75)
    assert torch.allclose(filled[~observed], baselines.additive(tensor, observed)[~observed], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("ridge", [0.0, 0.02])
def test_new_drugs_in_a_complete_design_are_shrunken_means(ridge: Any, generator: torch.Generator) -> None:
    data = toy(generator)
    observed = torch.ones_like(data.observed)
    observed[9:] = False
    tensor = torch.randn(data.tensor.shape, generator=generator, dtype=torch.float64)
    filled = one_hot_completion(tensor, observed, 2, "relu", 0.75, ridge=ridge, center=True)
    constant, cell, drug, pair = one_hot_variances(2, "relu", 0.75)
    noise = pair + ridge * (constant + cell + drug + pair)
    means = tensor[:9].mean(0)
    shrinkage = 9 * cell / (9 * cell + noise)
    expected = means.mean(0) + shrinkage * (means - means.mean(0))
    for new in (9, 11):
        assert torch.allclose(filled[new], expected, rtol=1e-8, atol=1e-9)


def test_estimates_are_made_without_the_profile_itself(generator: torch.Generator) -> None:
    data = toy(generator)
    observed = data.observed

    def method(tensor: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        # What it knows it repeats; of the rest it says how many profiles it knew.
        return torch.where(known[..., None], tensor, float(known.sum()))

    found = estimates(method, data.tensor, observed, folds=5)
    total = int(observed.sum())
    sizes = {total - len(range(fold, total, 5)) for fold in range(5)}
    assert set(found[observed].flatten().tolist()) <= {float(size) for size in sizes}
    assert set(found[~observed].flatten().tolist()) == {float(total)}


# Methods.


@pytest.mark.parametrize("prior", ["reference", "one-hot", baselines.additive])
def test_paper_ntk_is_kernel_regression_on_its_prior(prior: Any, generator: torch.Generator) -> None:
    data = toy(generator, drugs=6)
    observed = data.observed
    filled = PaperNTK(0, prior, cell_weight=0.6)(data.tensor, observed)
    if prior == "reference":
        features = reference_prior(data.tensor, observed, 0, 0.6)
    elif prior == "one-hot":
        features = one_hot_prior(observed)
    else:
        features = prior(data.tensor, observed).flatten(0, 1)
    z = torch.cat([features, 1.5 * torch.eye(24, dtype=torch.float64)], 1)
    z = z / z.norm(dim=1, keepdim=True)
    xi = (z @ z.T).clamp(-1, 1)
    kernel = 2 * xi * (1 - xi.arccos() / math.pi) + (1 - xi**2).sqrt() / math.pi
    known = observed.flatten()
    y = data.tensor.flatten(0, 1)[known]
    expected = kernel[~known][:, known] @ torch.linalg.solve(kernel[known][:, known], y)
    assert torch.allclose(filled[~observed], expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(filled[observed], data.tensor[observed])


def test_mixed_prior_goes_by_the_number_of_drugs(generator: torch.Generator) -> None:
    data = toy(generator)
    observed = data.observed.clone()
    observed[5:, 1] = False
    one, other = baselines.cell_mean(data.tensor, observed), baselines.drug_mean(data.tensor, observed)
    filled = MixedNTK(baselines.cell_mean, baselines.drug_mean, 6)(data.tensor, observed)
    assert torch.equal(filled[:, 1], one[:, 1])
    assert torch.equal(filled[:, 2:].nan_to_num(), other[:, 2:].nan_to_num())
    for threshold, expected in ((100, one), (1, other)):
        filled = MixedNTK(baselines.cell_mean, baselines.drug_mean, threshold)(data.tensor, observed)
        assert torch.equal(filled.nan_to_num(), expected.nan_to_num())


def test_residual_ntk_tells_drugs_apart_that_the_mean_over_the_cell_type_does_not(generator: torch.Generator) -> None:
    data = toy(generator, drugs=16)
    methods: dict[str, Any] = {
        "cell": baselines.cell_mean,
        "ntk": ResidualNTK(0, baselines.cell_mean, hidden_layers=(1,)),
    }
    methods["plain"] = ResidualNTK(0, None, (), hidden_layers=(1,), cell_weights=(1.0,))
    values = compare(data, methods, count=4, rounds=1, seed=int(torch.randint(99, (1,), generator=generator))).values
    # Effects of drugs are most of the variance, and known from the reference.
    assert bool((values[1].mean(0) > values[0].mean(0) + 0.2).all())
    assert float(values[2, :, 0].mean()) > 0.8


def test_the_best_candidate_is_chosen_by_what_was_left_out(generator: torch.Generator) -> None:
    data = toy(generator)
    candidates: dict[str, Any] = {"hidden_layers": (0, 2), "cell_weights": (0.01, 1.0)}
    model, filled = ResidualNTK(0, None, (), **candidates).best(data.tensor, data.observed)
    profiles = data.tensor[data.observed]
    mean = profiles.mean(0)

    def score(fitted: Any) -> float:
        return float(metrics((fitted.left_out() + mean[:, None]).T[data.observed.flatten()], profiles).sum())

    for depth in candidates["hidden_layers"]:
        for weight in candidates["cell_weights"]:
            alone = ResidualNTK(0, None, (), hidden_layers=(depth,), cell_weights=(weight,))
            assert score(alone.best(data.tensor, data.observed)[0]) <= score(model) + 1e-12
    assert bool(torch.isfinite(filled).all())


def test_box_plots(generator: torch.Generator) -> None:
    pytest.importorskip("matplotlib")
    comparison = Comparison(("a", "b"), torch.rand(2, 10, 3, generator=generator, dtype=torch.float64), 0.2)
    axes = tc.plotting.boxplots(comparison)
    assert [place.get_title() for place in axes] == list(METRICS)
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["a", "b"]
