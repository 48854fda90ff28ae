"""What regression, dynamics and kernels between inputs cannot take is refused in words, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc

NET = tc.Sequential(tc.Linear(3, 8), tc.ReLU(), tc.Linear(8, 1))
SIGNALS = tc.Sequential(tc.Conv1d(3, 2, 3), tc.GlobalAvgPool())
X, Y = torch.eye(4, 3, dtype=torch.float64) + 0.1, torch.arange(4.0, dtype=torch.float64)
TEXT = np.array(["a", "b", "a", "b"])


def dynamics(y: Any = Y, **options: Any) -> Any:
    return tc.TrainingDynamics(NET, X, y, **options)


def regressor(x: Any = X, y: Any = Y, **options: Any) -> Any:
    return tc.KernelRegressor(options.pop("network", NET), **options).fit(x, y)


def classifier(y: Any, **options: Any) -> Any:
    return tc.KernelClassifier(NET, **options).fit(X, y)


MESH = r"expected mesh to be one of torch_cntk\.distributed\.mesh\(\), or None, got"
REFUSED: dict[str, tuple[type[Exception], str, Callable[[], Any]]] = {
    "labels as text": (TypeError, "expected labels as .*, got text", lambda: dynamics(TEXT, loss="cross_entropy")),
    "labels as objects": (TypeError, "got an array of object", lambda: dynamics([None] * 4, loss="cross_entropy")),
    "ragged": (TypeError, "got rows of different", lambda: dynamics([[1], [1, 2], [1], [1]], loss="cross_entropy")),
    "targets as text": (TypeError, "expected targets to be an array of numbers, .*, got text", lambda: dynamics(TEXT)),
    "a dtype by name": (TypeError, "expected dtype to be a dtype", lambda: dynamics(dtype="float64")),
    "no device": (ValueError, "expected device to be one that torch can use", lambda: dynamics(device="gpu")),
    "a number as device": (TypeError, "expected device as a device or its name", lambda: regressor(device=3.5)),
    "a matrix as network": (TypeError, 'or "precomputed", got ndarray', lambda: regressor(network=np.eye(3))),
    "another word": (TypeError, "or \"precomputed\", got 'linear'", lambda: regressor(network="linear")),
    "sparse inputs": (TypeError, "expected inputs as an ordinary tensor", lambda: regressor(X.to_sparse())),
    "sparse targets": (TypeError, "expected targets as an ordinary", lambda: regressor(y=Y[:, None].to_sparse())),
    "no numbers": (TypeError, "expected inputs with numbers", lambda: regressor(X.to("meta"))),
    "no targets": (
        TypeError,
        "expected targets to be an array of numbers, .*, got NoneType",
        lambda: regressor(y=None),
    ),
    "center": (TypeError, "expected center to be True or False, got 'yes'", lambda: regressor(center="yes")),
    "seed": (TypeError, "expected random_state to be an integer", lambda: regressor().sample_y(X, 2, "a")),
    "no seed": (TypeError, "expected random_state to be an integer", lambda: regressor().sample_y(X, 2, None)),
    "scores of text": (TypeError, "expected targets to be an array of numbers", lambda: regressor().score(X, TEXT)),
    "labels of two kinds": (
        TypeError,
        "expected labels of one kind, which can be sorted, got int, str",
        lambda: classifier(np.array([1, "a", 2, "b"], dtype=object)),
    ),
    "calibrated": (TypeError, "expected calibrated to be True or False", lambda: classifier(TEXT, calibrated="yes")),
    "a mesh of gram": (TypeError, MESH, lambda: NET.gram(X, mesh="all")),  # type: ignore[call-overload]
    "of arrays": (TypeError, MESH, lambda: NET.gram(X.numpy(), mesh="all")),  # type: ignore[call-overload]
    "of an operator": (TypeError, MESH, lambda: NET.gram_operator(X, mesh="all")),  # type: ignore[call-overload]
    "of a regression": (TypeError, MESH, lambda: regressor(mesh=3)),
    "gram's dtype": (TypeError, "expected dtype to be", lambda: NET.gram(X, dtype="float32")),  # type: ignore[call-overload]
    "of signals": (TypeError, "expected dtype to be", lambda: regressor(X[..., None], network=SIGNALS, dtype="f")),
    "an operator's rate": (
        TypeError,
        "expected the kernel as a matrix, got GramOperator, which stores none",
        lambda: tc.max_learning_rate(NET.gram_operator(X)),
    ),
    "a network's rate": (TypeError, r"expected the kernel .*, \[n, n\], got", lambda: tc.max_learning_rate(NET)),
    "a vector's rate": (ValueError, r"expected \[n, n\] as the kernel, got", lambda: tc.max_learning_rate([1.0])),
    "options of tune": (
        TypeError,
        "expected options as names, .*, got 'weight_std'",
        lambda: tc.tune(NET, x=X, y=Y, options="weight_std"),
    ),
    "how weights are drawn": (
        TypeError,
        "expected redraw to be a function",
        lambda: tc.monte_carlo_kernel(NET, X.float(), redraw="normal"),  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_words(name: str) -> None:
    error, text, call = REFUSED[name]
    with pytest.raises(error, match=text):
        call()


def test_targets_may_be_what_holds_numbers(generator: torch.Generator) -> None:
    x = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(6, generator=generator, dtype=torch.float64)
    expected = regressor(x, y, ridge=0.1).predict(x)
    given = y.clone().requires_grad_(), y.numpy().astype(object), y.tolist(), y.numpy().astype(">f8"), y.numpy()[::1]
    for same in given:
        found = regressor(x, same, ridge=0.1)
        assert torch.equal(found.predict(x), expected)
        assert found.score(x, same) == regressor(x, y, ridge=0.1).score(x, y)
