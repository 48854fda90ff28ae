"""Classification with the kernel of a network."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from torch_cntk._internal.agreed_memory import on_ranks
from torch_cntk._internal.memory import allocating
from torch_cntk._internal.ranks import Mesh
from torch_cntk.regression.base import KernelEstimator, Network, Ridge
from torch_cntk.regression.gram import as_inputs, returned
from torch_cntk.solvers import Solver

__all__ = ["KernelClassifier"]

_SHARPNESS = (-4.0, 8.0)
"""Bounds of the logarithm of what decisions, which are near 0 and 1, are multiplied by before the softmax."""


class KernelClassifier(KernelEstimator):
    """Classification by kernel regression of one number a class, in scikit-learn's manner; see ``KernelRegressor``.

    The class with the largest regression of its indicator (1 for its members, 0 for others, less the mean) is
    predicted: what an infinitely wide network does that is trained on the squared error, which classifies about as well
    as one trained on the cross entropy.

    Args:
        network: see ``KernelRegressor``, as the others.
        kind: see there.
        ridge: see there.
        calibrated: whether ``predict_proba`` is the softmax of the regression times a number, which is chosen to make
            the labels most likely, each predicted without having been seen. Otherwise it is the regression itself,
            clipped to [0, 1] and divided by its sum, which is not calibrated.
        solver: see there.
        dtype: see there.
        device: see there.
        progress: see there.
        mesh: see there.

    Attributes:
        classes_: the labels, sorted.
        sharpness_: what the regression is multiplied by before the softmax, if it is calibrated.
        ridge_: the ridge, relative to the kernel's mean diagonal.
        residual_: largest relative residual of the equations.
        solver_: what solved them.
        n_iter_: iterations that it took.
        n_features_in_: length of the inputs' first axis after n.
    """

    _estimator_type = "classifier"

    def __init__(
        self,
        network: Network,
        *,
        kind: Literal["ntk", "nngp"] = "ntk",
        ridge: Ridge = "cv",
        calibrated: bool = False,
        solver: Literal["auto"] | Solver = "auto",
        dtype: torch.dtype = torch.float64,
        device: str | None = None,
        progress: bool = False,
        mesh: Mesh | None = None,
    ) -> None:
        self.network = network
        self.kind = kind
        self.ridge = ridge
        self.calibrated = calibrated
        self.solver = solver
        self.dtype = dtype
        self.device = device
        self.progress = progress
        self.mesh = mesh

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        return tags

    @on_ranks
    def fit(self, X: Any, y: Any) -> KernelClassifier:  # noqa: N803 - scikit-learn's name
        """Learn labels of inputs.

        Args:
            X: [n, features] or [n, channels, *size]: a tensor or array.
            y: [n], labels of any kind that can be sorted, of at least two classes.

        Returns:
            itself.

        Raises:
            TypeError: the inputs are not numbers, or the network is none.
            ValueError: an option is out of range, shapes do not fit each other or the network, an input is not finite,
                or all labels are the same.

        Warns:
            UserWarning: the kernel is singular and there is no ridge, or an iteration ended before its tolerance.
        """
        with self._ranks.together("reading inputs and labels"):
            inputs, members = self._read(X, y)
        self._agree(inputs, members, classes=self.classes_.tolist())
        indicators = torch.nn.functional.one_hot(members, len(self.classes_)).double()
        with allocating("fitting the classification"):
            self._mean = indicators.mean(0)
            self._regress(inputs, (indicators - self._mean).T.contiguous())
            self.sharpness_ = self._calibrate(members) if self.calibrated else None
        return self

    def _read(self, inputs: Any, labels: Any) -> tuple[Tensor, Tensor]:
        """Inputs [n, ...] and the number of each one's class, [n].

        Raises:
            TypeError: they are no numbers, an option has another type, or labels cannot be sorted.
            ValueError: they do not fit each other, or there are fewer than two classes.
        """
        self._check_options()
        read = as_inputs(inputs, self._device)
        if not isinstance(self.calibrated, bool):
            raise TypeError(f"expected calibrated to be True or False, got {self.calibrated!r}")
        given = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        if given.shape != (len(read),):
            raise ValueError(f"expected labels [{len(read)}], got shape {given.shape}")
        if given.dtype.kind == "f" and not np.isfinite(given).all():
            raise ValueError("expected labels without NaN or infinity")
        try:
            self.classes_, index = np.unique(given, return_inverse=True)
        except TypeError:
            kinds = sorted({type(label).__name__ for label in given.tolist()})
            raise TypeError(f"expected labels of one kind, which can be sorted, got {', '.join(kinds)}") from None
        if len(self.classes_) < 2:
            raise ValueError(f"expected labels of at least two classes, got {self.classes_[0]!r} alone")
        return read, torch.from_numpy(index).to(read.device)

    def _calibrate(self, members: Tensor) -> float:
        """The factor before the softmax that makes the labels most likely, each left out in turn."""
        (errors,) = self._left_out((self.ridge_,))
        scores = (self._targets - errors).T

        def loss(logarithm: float) -> float:
            return float(torch.nn.functional.cross_entropy(scores * float(np.exp(logarithm)), members))

        return float(np.exp(scipy.optimize.minimize_scalar(loss, bounds=_SHARPNESS, method="bounded").x))

    @on_ranks
    def _scores(self, inputs: Any) -> Tensor:
        """The regression of each class's indicator, [m, classes]."""
        self._require_fitted()
        cross = self._kernel.cross(self._inputs(inputs))
        return self._predicted(cross).T + self._mean

    def predict(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's name
        """The labels of inputs, [m], as an array.

        Raises:
            ValueError: nothing has been fitted, or the inputs have another shape.
        """
        index = self._scores(X).argmax(1).cpu().numpy()
        return self.classes_[index]

    def predict_proba(self, X: Any) -> Any:  # noqa: N803 - scikit-learn's name
        """A share for each class of each input, [m, classes], adding up to 1: a tensor if X is one, else an array.

        They are calibrated only if the classifier is, which is said at ``calibrated``.

        Raises:
            ValueError: nothing has been fitted, or the inputs have another shape.
        """
        scores = self._scores(X)
        if self.sharpness_ is not None:
            return returned(torch.softmax(scores * self.sharpness_, 1), X)
        clipped = scores.clamp(0, 1)
        total = clipped.sum(1, keepdim=True)
        # Regressions add up to 1, so that one of them is positive.
        return returned(clipped / total, X)

    def score(self, X: Any, y: Any) -> float:  # noqa: N803 - scikit-learn's name
        """Share of labels that are predicted right.

        Raises:
            ValueError: nothing has been fitted, or shapes do not fit each other.
        """
        labels = y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
        predicted = self.predict(X)
        if labels.shape != predicted.shape:
            raise ValueError(f"expected labels [{len(predicted)}], got shape {labels.shape}")
        return float((predicted == labels).mean())
