"""Regression with the kernel of a network."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.agreed_memory import on_ranks
from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.memory import allocating
from torch_cntk._internal.ranks import Mesh
from torch_cntk.regression.base import KernelEstimator, Network, Ridge
from torch_cntk.regression.gram import as_columns, as_inputs, returned
from torch_cntk.solvers import Solver

__all__ = ["KernelRegressor"]


class KernelRegressor(KernelEstimator):
    """Regression with the exact kernel of an infinitely wide network, in scikit-learn's manner.

    That is what the network predicts after training all of its layers by gradient descent on the squared error (kind
    "ntk"), or its last one alone ("nngp"), as its width goes to infinity. A fit on inputs of which the first ones have
    been fitted before, with other targets or another ridge, computes the kernel of the new ones alone.

    Args:
        network: any network of torch_cntk: for rows of numbers one of ``Linear`` layers, for images and signals one
            that ends in no pixels (``Flatten``, ``GlobalAvgPool``). Or "precomputed": inputs are kernels then, [n, n]
            to fit and [m, n] to predict.
        kind: "ntk" or "nngp".
        ridge: added to the kernel's diagonal, relative to its mean; or "cv": the one of 1e-8 to 100 with the least
            squared leave-one-out error, in closed form.
        center: whether the mean of the targets is taken off, and added to predictions.
        solver: "auto" factorises up to 30,000 inputs; or a ``Solver``.
        dtype: of the computation between images; see ``Layer.gram``.
        device: where to compute; by default where the inputs are, if they are a tensor, else the CPU.
        progress: whether to show bars.
        mesh: of ``torch_cntk.distributed.mesh()``: processes that call the same methods with the same arguments. They
            divide the computing of the kernel; all of them get the same results. With a kernel of images, or a direct
            solution, the bits are those of one process.

    Attributes:
        ridge_: the ridge, relative to the kernel's mean diagonal.
        amplitude_: mean square of the targets in the norm of the kernel, [k]: the factor of the kernel that makes the
            targets most likely.
        residual_: largest relative residual of the equations.
        solver_: what solved them.
        n_iter_: iterations that it took.
        n_features_in_: length of the inputs' first axis after n.

    Example:
        >>> import numpy as np
        >>> import torch_cntk as tc
        >>> x = np.linspace(-1, 1, 30)[:, None]
        >>> net = tc.Sequential(tc.Linear(1, 8, bias=True), tc.ReLU(), tc.Linear(8, 1))
        >>> model = tc.KernelRegressor(net, ridge=1e-6).fit(x, np.abs(x[:, 0]))
        >>> model.predict([[0.5]]).round(2)
        array([0.5])
    """

    _estimator_type = "regressor"

    def __init__(
        self,
        network: Network,
        *,
        kind: Literal["ntk", "nngp"] = "ntk",
        ridge: Ridge = "cv",
        center: bool = True,
        solver: Literal["auto"] | Solver = "auto",
        dtype: torch.dtype = torch.float64,
        device: str | None = None,
        progress: bool = False,
        mesh: Mesh | None = None,
    ) -> None:
        self.network = network
        self.kind = kind
        self.ridge = ridge
        self.center = center
        self.solver = solver
        self.dtype = dtype
        self.device = device
        self.progress = progress
        self.mesh = mesh

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags

        tags = super().__sklearn_tags__()
        tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        tags.target_tags.multi_output = True
        return tags

    @on_ranks
    def fit(self, X: Any, y: Any) -> KernelRegressor:  # noqa: N803 - scikit-learn's name
        """Regress targets on inputs.

        Args:
            X: [n, features] or [n, channels, *size]: a tensor or array.
            y: [n] or [n, k], finite.

        Returns:
            itself.

        Raises:
            TypeError: something is not numbers, or the network is none.
            ValueError: an option is out of range, shapes do not fit each other or the network, or something is not
                finite.

        Warns:
            UserWarning: the kernel is singular and there is no ridge, or an iteration ended before its tolerance.
        """
        with self._ranks.together("reading inputs and targets"):
            inputs, targets = self._read(X, y)
        self._agree(inputs, targets)
        self._single = np.ndim(y) == 1
        with allocating("fitting the regression"):
            self._mean = targets.mean(0) if self.center else torch.zeros_like(targets[0])
            centred = (targets - self._mean).T.contiguous()
            self._regress(inputs, centred)
            self.amplitude_ = (centred * self._weights).sum(1).clamp_min(0) / len(inputs)
        return self

    def _read(self, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Inputs [n, ...] and targets [n, k].

        Raises:
            TypeError: they are no numbers, or an option has another type.
            ValueError: they do not fit each other.
        """
        self._check_options()
        read = as_inputs(inputs, self._device)
        if not isinstance(self.center, bool):
            raise TypeError(f"expected center to be True or False, got {self.center!r}")
        values = as_columns(targets, self._device, name="targets").to(read.device)
        if len(values) != len(read) or values.ndim > 2:
            shape = tuple(np.shape(targets))
            raise ValueError(f"expected targets [{len(read)}] or [{len(read)}, k], got shape {shape}")
        return read, values

    @on_ranks
    def predict(self, X: Any, return_std: bool = False, return_cov: bool = False) -> Any:  # noqa: N803
        """Predict targets.

        Args:
            X: [m, ...], inputs as ``fit`` had them.
            return_std: whether to give standard deviations as well: those of the Gaussian process whose covariance is
                the kernel times ``amplitude_``, of the function without the noise that the ridge stands for.
            return_cov: whether to give covariances between the inputs as well, of the same process.

        Returns:
            [m] or [m, k], as the targets were, in float64: a tensor if X is one, else an array; and the standard
            deviations, of the same shape, or covariances, [m, m] or [m, m, k].

        Raises:
            ValueError: nothing has been fitted, the inputs have another shape, both standard deviations and covariances
                are asked for, or one of them with a precomputed kernel.
        """
        if return_std and return_cov:
            raise ValueError("expected return_std or return_cov, got both")
        self._require_fitted()
        inputs = self._inputs(X)
        cross = self._kernel.cross(inputs)
        mean = self._shaped(self._predicted(cross).T + self._mean)
        if return_cov:
            covariance = self._covariance(inputs, cross)[..., None] * self.amplitude_
            return returned(mean, X), returned(covariance[..., 0] if self._single else covariance, X)
        if not return_std:
            return returned(mean, X)
        variance = self._variance(inputs, cross)[:, None] * self.amplitude_
        return returned(mean, X), returned(self._shaped(variance.sqrt()), X)

    @on_ranks
    def sample_y(self, X: Any, n_samples: int = 1, random_state: int = 0) -> Any:  # noqa: N803
        """Functions drawn from the Gaussian process that ``predict`` tells mean and covariance of.

        Args:
            X: [m, ...], inputs as ``fit`` had them.
            n_samples: how many functions.
            random_state: seed of the draws.

        Returns:
            [m, n_samples], or [m, k, n_samples] for several targets, in float64: a tensor if X is one, else an array.

        Raises:
            TypeError: a number is no integer.
            ValueError: nothing has been fitted, the inputs have another shape, or the kernel is precomputed.
        """
        self._require_fitted()
        count = positive_int(n_samples, "n_samples")
        inputs = self._inputs(X)
        cross = self._kernel.cross(inputs)
        mean = self._predicted(cross).T + self._mean
        values, vectors = torch.linalg.eigh(self._covariance(inputs, cross))
        # Of eigenvalues below 0 rounding is to blame.
        root = vectors * values.clamp_min(0).sqrt()
        generator = torch.Generator().manual_seed(positive_int(random_state, "random_state", least=0) + 1)
        noise = torch.randn(len(inputs), mean.shape[1] * count, generator=generator, dtype=torch.float64).to(root)
        drawn = (root @ noise).reshape(len(inputs), -1, count)
        return returned(self._shaped(mean[..., None] + drawn * self.amplitude_.sqrt()[:, None]), X)

    def _shaped(self, values: Tensor) -> Tensor:
        return values[:, 0] if self._single else values

    def score(self, X: Any, y: Any) -> float:  # noqa: N803 - scikit-learn's name
        """R^2 of the predictions, the mean over targets.

        Raises:
            ValueError: nothing has been fitted, or shapes do not fit each other.
        """
        predicted = torch.as_tensor(np.asarray(self.predict(X))).double()
        truth = as_columns(y, "cpu", name="targets")
        if truth.numel() != predicted.numel() or len(truth) != len(predicted):
            raise ValueError(f"expected targets {list(predicted.shape)}, got shape {tuple(np.shape(y))}")
        # [n, 1] beside [n] would be taken as a difference of all pairs.
        truth = truth.reshape(predicted.shape)
        left = (truth - predicted).square().sum(0)
        return float((1 - left / (truth - truth.mean(0)).square().sum(0)).mean())
