"""What regression and classification have in common: the kernel, the ridge and the equations."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from torch_cntk._internal.agreed_memory import ranks_of
from torch_cntk._internal.checks import as_precision, finite_number
from torch_cntk._internal.contexts import plain
from torch_cntk._internal.parameters import Estimator
from torch_cntk._internal.ranks import Mesh
from torch_cntk._internal.user_warnings import warn_user
from torch_cntk.layers import Layer
from torch_cntk.regression.gram import Settings, TrainingKernel, as_inputs, checked_network
from torch_cntk.solvers import Factorisation, Regression, Solver, Status, automatic
from torch_cntk.solvers.leave_one_out import residuals

__all__ = ["RIDGES", "KernelEstimator", "Network", "Ridge"]

RIDGES = tuple(10.0 ** (k / 2) for k in range(-16, 5))
"""What ``ridge="cv"`` chooses from: 1e-8 to 100, relative to the kernel's mean diagonal."""

Network = Layer | Literal["precomputed"]
Ridge = float | Literal["cv"]


class KernelEstimator(Estimator):
    """Kernel regression of targets [n, k] on inputs; see ``KernelRegressor``.

    Attributes:
        ridge_: the ridge, relative to the kernel's mean diagonal.
        n_features_in_: length of the inputs' first axis after n.
        residual_: largest relative residual of the equations.
        solver_: what solved them.
        n_iter_: iterations that it took.
    """

    network: Network
    kind: str
    ridge: Ridge
    solver: Literal["auto"] | Solver
    dtype: torch.dtype
    device: str | None
    progress: bool
    mesh: Mesh | None = None

    @property
    def _ranks(self) -> Mesh:
        """Those that work on this.

        Raises:
            TypeError: the mesh is none.
        """
        return ranks_of(self.mesh)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_weights")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = False
        tags.input_tags.three_d_array = True
        tags.input_tags.pairwise = isinstance(self.network, str)
        tags.target_tags.required = True
        return tags

    def _check_options(self) -> None:
        checked_network(self.network)
        as_precision(self.dtype)
        if self.kind not in ("ntk", "nngp"):
            raise ValueError(f'expected kind "ntk" or "nngp", got {self.kind!r}')
        if isinstance(self.ridge, str):
            if self.ridge != "cv":
                raise ValueError(f'expected ridge to be a number or "cv", got {self.ridge!r}')
        else:
            finite_number(self.ridge, "ridge", minimum=0)
        if self.solver != "auto" and not isinstance(self.solver, Solver):
            raise ValueError(f'expected solver to be "auto" or a Solver, got {self.solver!r}')

    @property
    def _device(self) -> Any:
        """Where to compute; None for where the inputs are."""
        return self.device if self.device is not None or self.mesh is None else self.mesh.device

    def _inputs(self, inputs: Any) -> Tensor:
        """Inputs to predict at, the same on all ranks."""
        with self._ranks.together("reading inputs"):
            given = as_inputs(inputs, self._device)
        self._ranks.agree(inputs=given)
        return given

    def _agree(self, inputs: Tensor, targets: Tensor, **more: object) -> None:
        """Make sure that all ranks have the same options and data.

        Raises:
            ValueError: they do not.
        """
        own = {name: value for name, value in self.get_params().items() if name not in ("mesh", "device", "progress")}
        self._ranks.agree(options=own, inputs=inputs, targets=targets, **more)

    @plain()
    def _regress(self, inputs: Tensor, targets: Tensor) -> None:
        """Solve for the weights of centred targets, [k, n]."""
        settings = Settings(self.network, self.kind, self.dtype, self.progress)
        self._kernel = TrainingKernel(settings, inputs, getattr(self, "_kernel", None), self.mesh)
        self._targets = targets
        self.ridge_ = self._best_ridge() if isinstance(self.ridge, str) else float(self.ridge)
        observed = torch.ones(len(inputs), dtype=torch.bool, device=targets.device)
        regression = Regression(self._kernel.operator, observed, self.ridge_)
        solver = automatic(regression) if self.solver == "auto" else self.solver
        factorisation = solver.factorise(regression, progress=self.progress)
        solution = factorisation.solve(targets, progress=self.progress)
        self._factorisation: Factorisation = factorisation.unsaved()
        self._weights = solution.weights
        self.residual_ = float(solution.residual.max())
        self.solver_, self.n_iter_ = solution.solver, solution.iterations
        self.n_features_in_ = int(inputs.shape[1])
        if solution.status is not Status.CONVERGED:
            warn_user(_STATUSES.get(solution.status, solution.status.value) + f"; residual {self.residual_:.1e}")

    def _best_ridge(self) -> float:
        """Among ``RIDGES``, the one with the least squared leave-one-out error."""
        errors = [float(error.square().sum()) for error in self._left_out(RIDGES)]
        best: float = RIDGES[min(range(len(errors)), key=errors.__getitem__)]
        return best

    def _left_out(self, ridges: tuple[float, ...]) -> Any:
        """Leave-one-out errors of the targets for each ridge, [k, n] each.

        Raises:
            ValueError: the matrix of the kernel does not fit into memory.
        """
        matrix = self._kernel.matrix
        if matrix is None:
            raise ValueError(f"expected a ridge, as the matrix of {len(self._kernel.inputs):,} inputs does not fit")
        if len(matrix) < 2:
            raise ValueError(f"expected at least two inputs to choose the ridge, got {len(matrix)}")
        scale = float(matrix.diagonal().mean())
        return residuals(matrix, self._targets, [ridge * scale for ridge in ridges])

    @plain()
    def _predicted(self, cross: Tensor) -> Tensor:
        """The regression less what was taken off the targets, [k, m], given K between m inputs and the training's."""
        return self._weights @ cross.T

    @plain()
    def _covariance(self, inputs: Tensor, cross: Tensor) -> Tensor:
        """As ``_variance``, between all inputs, [m, m]."""
        solved = self._factorisation.solve(cross).weights
        prior = self._kernel.between(inputs)
        covariance = prior - cross @ solved.T
        return (covariance + covariance.T) / 2

    @plain()
    def _variance(self, inputs: Tensor, cross: Tensor) -> Tensor:
        """Of the Gaussian process whose covariance is K, [m], where it is certain of no more than the ridge allows."""
        solved = self._factorisation.solve(cross).weights
        prior = self._kernel.diagonal_of(inputs)
        # Rounding may take what the training inputs leave of it below 0.
        return (prior - (cross * solved).sum(1)).clamp_min(0)

    def _require_fitted(self) -> None:
        if not hasattr(self, "_weights"):
            from torch_cntk.regression.unfitted import not_fitted

            raise not_fitted(type(self).__name__)


_STATUSES = {
    Status.SINGULAR: (
        "the kernel between the inputs is singular (two of them may be equal): solved in the least-squares sense; give "
        "a ridge to choose otherwise"
    )
}
