"""Kernel regression and classification against scikit-learn's with the same kernel, and their manners."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, cross_val_score

import torch_cntk as tc
from torch_cntk.regression import gram


def rows_net() -> tc.Sequential:
    return tc.Sequential(tc.Linear(3, 8), tc.ReLU(), tc.Linear(8, 1))


def images_net(head: tc.Layer) -> tc.Sequential:
    return tc.Sequential(tc.Conv2d(2, 4, 3), tc.ReLU(), tc.Conv2d(4, 4, 3), tc.ReLU(), head)


def rows(generator: torch.Generator, n: int = 30) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y = torch.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 5
    return x.numpy(), y.numpy()


class Given(Kernel):  # type: ignore[misc]
    """A kernel of scikit-learn's that asks ours."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, x: Any, y: Any = None, eval_gradient: bool = False) -> Any:
        others = None if y is None else torch.as_tensor(y)
        return self.scale * rows_net().gram(torch.as_tensor(x), others).numpy()

    def diag(self, x: Any) -> Any:
        return self(x).diagonal()

    def is_stationary(self) -> bool:
        return False


def test_regression_is_that_of_scikit_learn(generator: torch.Generator) -> None:
    x, y = rows(generator)
    new = rows(generator, 9)[0]
    model = tc.KernelRegressor(rows_net(), ridge=1e-2).fit(x, y)
    kernel = rows_net().gram(torch.as_tensor(x)).numpy()
    alpha = 1e-2 * kernel.diagonal().mean()
    other = KernelRidge(alpha=alpha, kernel="precomputed").fit(kernel, y - y.mean())
    expected = other.predict(rows_net().gram(torch.as_tensor(new), torch.as_tensor(x)).numpy()) + y.mean()
    np.testing.assert_allclose(model.predict(new), expected, rtol=0, atol=1e-10)
    assert model.score(x, y) == pytest.approx(1 - ((model.predict(x) - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def test_deviations_are_those_of_a_gaussian_process(generator: torch.Generator) -> None:
    x, y = rows(generator)
    new = rows(generator, 9)[0]
    model = tc.KernelRegressor(rows_net(), ridge=1e-2).fit(x, y)
    kernel = rows_net().gram(torch.as_tensor(x)).numpy()
    noise = 1e-2 * kernel.diagonal().mean()
    centred = y - y.mean()
    amplitude = centred @ np.linalg.solve(kernel + noise * np.eye(30), centred) / 30
    assert float(model.amplitude_) == pytest.approx(amplitude, rel=1e-9)
    process = GaussianProcessRegressor(Given(amplitude), alpha=amplitude * noise, optimizer=None).fit(x, centred)
    mean, deviation = process.predict(new, return_std=True)
    found, std = model.predict(new, return_std=True)
    np.testing.assert_allclose(found, mean + y.mean(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(std, deviation, rtol=1e-7)


def test_covariances_and_samples_belong_to_the_same_process(generator: torch.Generator) -> None:
    x, y = rows(generator)
    new = rows(generator, 4)[0]
    model = tc.KernelRegressor(rows_net(), ridge=1e-2).fit(x, y)
    mean, deviation = model.predict(new, return_std=True)
    again, covariance = model.predict(new, return_cov=True)
    np.testing.assert_array_equal(mean, again)
    np.testing.assert_allclose(np.sqrt(covariance.diagonal()), deviation, rtol=1e-7)
    kernel = rows_net().gram(torch.as_tensor(x)).numpy()
    scale = float(model.amplitude_)
    process = GaussianProcessRegressor(Given(scale), alpha=scale * 1e-2 * kernel.diagonal().mean(), optimizer=None)
    expected = process.fit(x, y - y.mean()).predict(new, return_cov=True)[1]
    np.testing.assert_allclose(covariance, expected, rtol=0, atol=1e-9 * scale)
    samples = model.sample_y(new, 4000, random_state=3)
    assert samples.shape == (4, 4000)
    np.testing.assert_array_equal(samples, model.sample_y(new, 4000, random_state=3))
    # Standard errors of the mean and of a variance of 4,000 draws, five of them.
    assert (np.abs(samples.mean(1) - mean) <= 5 * deviation / 4000**0.5).all()
    assert np.abs(np.cov(samples) - covariance).max() <= 5 * (2 / 4000) ** 0.5 * covariance.diagonal().max()
    several = tc.KernelRegressor(rows_net(), ridge=1e-2).fit(x, np.stack([y, y], 1))
    assert several.sample_y(new, 3).shape == (4, 2, 3)
    assert several.predict(new, return_cov=True)[1].shape == (4, 4, 2)
    with pytest.raises(ValueError, match="return_std or return_cov"):
        model.predict(new, return_std=True, return_cov=True)


def test_ridge_is_that_of_least_leave_one_out_error(generator: torch.Generator) -> None:
    x, y = rows(generator, 12)
    y = y + 0.3 * torch.randn(12, generator=generator, dtype=torch.float64).numpy()
    model = tc.KernelRegressor(rows_net(), center=False).fit(x, y)
    errors = []
    for ridge in (model.ridge_ / 10**0.5, model.ridge_, model.ridge_ * 10**0.5):
        kernel = rows_net().gram(torch.as_tensor(x)).numpy()
        scale = ridge * kernel.diagonal().mean()
        left_out = 0.0
        for k in range(12):
            rest = np.arange(12) != k
            weights = np.linalg.solve(kernel[np.ix_(rest, rest)] + scale * np.eye(11), y[rest])
            left_out += (kernel[k, rest] @ weights - y[k]) ** 2
        errors.append(left_out)
    assert errors[1] == min(errors)


@pytest.mark.parametrize("head", [tc.Flatten(), tc.GlobalAvgPool()], ids=["flatten", "pool"])
def test_images_of_two_kinds_are_told_apart(head: Any, generator: torch.Generator) -> None:
    x = torch.randn(40, 2, 4, 4, generator=generator, dtype=torch.float64)
    labels = np.array(["even", "striped"])[np.arange(40) % 2]
    x[1::2, :, ::2] += 1.5
    model = tc.KernelClassifier(images_net(head)).fit(x[:30], labels[:30])
    # Of ten images, chance makes one or two unlike their kind.
    assert model.score(x[30:], labels[30:]) >= 0.7
    assert list(model.classes_) == ["even", "striped"]
    shares = model.predict_proba(x[30:])
    assert isinstance(shares, torch.Tensor)
    assert torch.allclose(shares.sum(1), torch.ones(10, dtype=torch.float64))
    assert ((shares >= 0) & (shares <= 1)).all()
    assert (model.classes_[shares.argmax(1).numpy()] == model.predict(x[30:])).all()


def test_calibrated_shares_are_as_sure_as_they_are_right(generator: torch.Generator) -> None:
    x = torch.randn(300, 3, generator=generator, dtype=torch.float64).numpy()
    # One label in five is wrong.
    truth = (x[:, 0] > 0) ^ (torch.rand(300, generator=generator).numpy() < 0.2)
    model = tc.KernelClassifier(rows_net(), calibrated=True, ridge=0.3).fit(x[:200], truth[:200])
    shares = model.predict_proba(x[200:])
    right = (model.predict(x[200:]) == truth[200:]).mean()
    # A standard error of a share of a hundred is 0.04, of both together 0.06.
    assert abs(shares.max(1).mean() - right) < 0.2
    assert model.sharpness_ is not None


def test_manners_of_scikit_learn(generator: torch.Generator) -> None:
    x, y = rows(generator)
    model = tc.KernelRegressor(rows_net(), ridge=0.1)
    other = clone(model)
    assert other.get_params().keys() == model.get_params().keys()
    assert other.set_params(ridge=1.0).ridge == 1.0
    assert is_regressor(model)
    assert is_classifier(tc.KernelClassifier(rows_net()))
    assert cross_val_score(model, x, y, cv=3).shape == (3,)
    search = GridSearchCV(tc.KernelClassifier(rows_net()), {"ridge": [1e-3, 1.0]}, cv=2).fit(x, y > y.mean())
    assert search.best_params_["ridge"] in (1e-3, 1.0)
    # Folds of a matrix, which is computed once.
    kernel = rows_net().gram(torch.as_tensor(x)).numpy()
    given = cross_val_score(tc.KernelRegressor("precomputed", ridge=0.1), kernel, y, cv=3)
    np.testing.assert_allclose(given, cross_val_score(model, x, y, cv=3), rtol=1e-9)


def test_fitted_models_are_kept(generator: torch.Generator) -> None:
    x, y = rows(generator)
    model = tc.KernelRegressor(rows_net()).fit(x, y)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_known_kernels_are_not_computed_again(generator: torch.Generator) -> None:
    x, y = rows(generator)
    model = tc.KernelRegressor(rows_net(), ridge=0.1).fit(x[:20], y[:20])
    with mock.patch.object(gram.TrainingKernel, "_gram", side_effect=AssertionError):
        model.set_params(ridge=0.2).fit(x[:20], -y[:20])
        model.fit(x[:10], y[:10])
    model.fit(x[:20], y[:20])
    shapes = []
    original = gram.TrainingKernel._gram

    def counted(self: Any, inputs: Any, others: Any) -> Any:
        shapes.append((len(inputs), 0 if others is None else len(others)))
        return original(self, inputs, others)

    with mock.patch.object(gram.TrainingKernel, "_gram", counted):
        model.fit(x, y)
        assert shapes == [(10, 20), (10, 0)]
        model.set_params(kind="nngp").fit(x, y)
    assert shapes[2:] == [(30, 0)]
    fresh = tc.KernelRegressor(rows_net(), ridge=0.2, kind="nngp").fit(x, y)
    np.testing.assert_allclose(model.predict(x), fresh.predict(x), rtol=1e-9)


def test_changes_in_place_are_seen_by_the_next_fit(generator: torch.Generator) -> None:
    x, y = rows(generator)
    other = x[::-1].copy()
    changing = x.copy()
    model = tc.KernelRegressor(rows_net(), ridge=0.1).fit(changing, y)
    before = model.predict(x)
    changing[:] = other
    np.testing.assert_array_equal(model.predict(x), before)
    fresh = tc.KernelRegressor(rows_net(), ridge=0.1).fit(other, y)
    np.testing.assert_allclose(model.fit(changing, y).predict(x), fresh.predict(x), rtol=1e-9)


def test_networks_that_read_alike_are_told_apart(generator: torch.Generator) -> None:
    x, y = rows(generator)
    square, sine = (
        tc.Sequential(tc.Linear(3, 8), tc.Elementwise(function), tc.Linear(8, 1))
        for function in (lambda u: u**2, lambda u: torch.sin(2 * u))
    )
    assert repr(square) == repr(sine)
    expected = tc.KernelRegressor(sine, ridge=0.1).fit(x, y).predict(x)
    model = tc.KernelRegressor(square, ridge=0.1).fit(x, y)
    np.testing.assert_allclose(model.set_params(network=sine).fit(x, y).predict(x), expected, rtol=1e-9)
    model = tc.KernelRegressor(square, ridge=0.1).fit(x, y)
    square[1] = tc.Elementwise(lambda u: torch.sin(2 * u))
    np.testing.assert_allclose(model.fit(x, y).predict(x), expected, rtol=1e-9)


def test_scores_compare_columns_with_columns(generator: torch.Generator) -> None:
    x, y = rows(generator)
    model = tc.KernelRegressor(rows_net(), ridge=0.1).fit(x, y)
    assert model.score(x, y[:, None]) == model.score(x, y)
    with pytest.raises(ValueError, match=r"expected targets \[30\], got shape \(1,\)"):
        model.score(x, y[:1])
    kinds = tc.KernelClassifier(rows_net(), ridge=0.1).fit(x, y > y.mean())
    with pytest.raises(ValueError, match=r"expected labels \[30\], got shape \(30, 1\)"):
        kinds.score(x, (y > y.mean())[:, None])


def test_arrays_that_cannot_be_written_are_taken(generator: torch.Generator) -> None:
    x, y = rows(generator)
    x.flags.writeable = y.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tc.KernelRegressor(rows_net()).fit(x, y).score(x, y)


def test_several_targets_and_iterations(generator: torch.Generator) -> None:
    x, y = rows(generator)
    both = np.stack([y, -2 * y], 1)
    model = tc.KernelRegressor(rows_net(), ridge=0.1).fit(x, both)
    assert model.predict(x).shape == (30, 2)
    np.testing.assert_allclose(model.predict(x)[:, 1], -2 * model.predict(x)[:, 0], rtol=0, atol=1e-9)
    iterated = tc.KernelRegressor(rows_net(), ridge=0.1, solver=tc.ConjugateGradient(tolerance=1e-10)).fit(x, both)
    np.testing.assert_allclose(iterated.predict(x), model.predict(x), rtol=0, atol=1e-7)
    assert iterated.n_iter_ > 0


def test_equal_inputs_without_a_ridge_are_reported(generator: torch.Generator) -> None:
    x, y = rows(generator)
    x[1] = x[0]
    with pytest.warns(UserWarning, match="the kernel between the inputs is singular"):
        model = tc.KernelRegressor(rows_net(), ridge=0.0).fit(x, y)
    assert model.predict(x)[0] == pytest.approx(y[:2].mean(), abs=1e-5)


def test_mistakes_are_told(generator: torch.Generator) -> None:
    x, y = rows(generator)
    net = rows_net()
    with pytest.raises(ValueError, match="expected KernelRegressor to be fitted"):
        tc.KernelRegressor(net).predict(x)
    with pytest.raises(ValueError, match="expected KernelClassifier to be fitted"):
        tc.KernelClassifier(net).predict(x)
    for model, given, targets, message in (
        (tc.KernelRegressor(net), x, y[:-1], r"expected targets \[30\]"),
        (tc.KernelRegressor(net), x, np.where(y > y.mean(), math.nan, y), "expected finite targets"),
        (tc.KernelRegressor(net), np.where(x > 0, math.nan, x), y, "expected finite inputs"),
        (tc.KernelRegressor(net), x[:, :2], y, "expected the network's 3 features"),
        (tc.KernelRegressor(net), x[:, 0], y, r"expected \[n, features\] or"),
        (tc.KernelRegressor(net, ridge=-1.0), x, y, "ridge"),
        (tc.KernelRegressor(net, ridge="loo"), x, y, 'a number or "cv"'),  # type: ignore[arg-type]
        (tc.KernelRegressor(net, kind="both"), x, y, 'kind "ntk" or "nngp"'),  # type: ignore[arg-type]
        (tc.KernelRegressor("precomputed"), x, y, r"a precomputed kernel \[n, n\]"),
        (tc.KernelClassifier(net), x, y[:-1] > 5, r"expected labels \[30\]"),
        (tc.KernelClassifier(net), x, np.zeros(30), "at least two classes"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(given, targets)
    with pytest.raises(TypeError, match="expected a network of torch_cntk"):
        tc.KernelRegressor(torch.nn.Linear(3, 1)).fit(x, y)  # type: ignore[arg-type]
    model = tc.KernelRegressor(net).fit(x, y)
    with pytest.raises(ValueError, match=r"expected inputs of shape \[m, 3\]"):
        model.predict(x[:, :2])
