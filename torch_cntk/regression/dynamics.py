"""What infinitely wide networks predict at any time of their training: mean and covariance over their initial weights.

Lee et al. 2019, "Wide neural networks of any depth evolve as linear models under gradient descent". Called as
neural-tangents' ``predict`` is: learning rates, times and losses mean the same there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.checks import as_precision, finite_number
from torch_cntk._internal.contexts import plain
from torch_cntk._internal.memory import allocating
from torch_cntk.regression.base import Network
from torch_cntk.regression.decay import progress
from torch_cntk.regression.gram import Settings, TrainingKernel, as_columns, as_inputs, checked_network, returned
from torch_cntk.regression.losses import integrated_gradients
from torch_cntk.regression.rates import checked_momentum

__all__ = ["Loss", "TrainingDynamics"]

_ROUNDING = 1e-6
"""Relative to the largest entry: what a kernel in float32 may lack in symmetry or sign."""

Loss: TypeAlias = Literal["mse", "cross_entropy"] | Callable[[Tensor, Tensor], Tensor]


def _check_no_gradient(*given: object) -> None:
    """Refuse what would lose its gradient without a word.

    Raises:
        ValueError: gradients are recorded, and something requires one.
    """
    if torch.is_grad_enabled() and any(isinstance(one, Tensor) and one.requires_grad for one in given):
        raise ValueError("expected tensors that require no gradients, as none pass through the dynamics; detach() them")


def _axes(values: Any) -> int:
    """How many there are of targets; 0 where rows differ in length, which is refused later."""
    try:
        return values.ndim if isinstance(values, Tensor) else np.ndim(values)
    except ValueError:
        return 2


class TrainingDynamics:
    """Training of an infinitely wide network by gradient descent with small steps, at any time.

    All layers are trained (kind "ntk") or the last one alone ("nngp"). With the squared error everything is in closed
    form, of one eigendecomposition: mean and covariance of an ensemble of networks that differ in their initial weights
    (neural-tangents' ``gradient_descent_mse_ensemble``), or one network from given initial outputs
    (``gradient_descent_mse``). Another loss is integrated (``gradient_descent``). The covariance is that of the
    networks themselves, whose weights have the variances that the kernel says: it has no factor that fits targets, as
    ``KernelRegressor`` has.

    Args:
        network: as for ``KernelRegressor``; or "precomputed", for ``x`` as a kernel [n, n] and [m, n] in ``predict``.
        x: training inputs, [n, features] or [n, channels, *size].
        y: targets, [n] or [n, k]. For "cross_entropy" labels [n] from 0 on, or probabilities [n, k].
        kind: "ntk" or "nngp".
        loss: "mse", half the squared error on average over inputs and outputs; "cross_entropy", on average over inputs;
            or a function of outputs [n, k] and targets that gives a number and can be differentiated.
        learning_rate: of a step, the unit of time.
        momentum: of gradient descent, in [0, 1); None for none. With it the equation is the one of second order,
            f'' = -(1 - momentum) f' - rate K g, with time in steps.
        ridge: added to the kernel's diagonal, relative to its mean; for "mse" alone.
        initial: outputs of one network before its training at the training inputs, of y's shape (for labels [n, k]);
            None is 0, the mean of all networks.
        tolerance: relative error of a step of the integration, for other losses than "mse".
        dtype: of the computation between images; see ``Layer.gram``.
        device: where to compute; by default where the inputs are, if they are a tensor, else the CPU.
        progress: whether to show bars.

    Raises:
        TypeError: something is not numbers, labels are text, or the network is none.
        ValueError: an option is out of range, shapes do not fit, or something is not finite.
    """

    def __init__(
        self,
        network: Network,
        x: Any,
        y: Any,
        *,
        kind: Literal["ntk", "nngp"] = "ntk",
        loss: Loss = "mse",
        learning_rate: float = 1.0,
        momentum: float | None = None,
        ridge: float = 0.0,
        initial: Any = None,
        tolerance: float = 1e-6,
        dtype: torch.dtype = torch.float64,
        device: str | None = None,
        progress: bool = False,
    ) -> None:
        checked_network(network)
        as_precision(dtype)
        if kind not in ("ntk", "nngp"):
            raise ValueError(f'expected kind "ntk" or "nngp", got {kind!r}')
        if loss not in ("mse", "cross_entropy") and not callable(loss):
            raise ValueError(f'expected loss "mse", "cross_entropy" or a function, got {loss!r}')
        self.kind, self.loss = kind, loss
        self.learning_rate = _positive(learning_rate, "learning_rate")
        self.momentum = None if momentum is None else checked_momentum(momentum)
        self.ridge = finite_number(ridge, "ridge", minimum=0)
        if self.ridge and loss != "mse":
            raise ValueError(f'expected no ridge with another loss than "mse", got {self.ridge:g}')
        self.tolerance = _positive(tolerance, "tolerance")
        self._device = device
        self._form = x if isinstance(x, Tensor) else np.empty(0)
        _check_no_gradient(x, y, initial)
        inputs = as_inputs(x, device)
        self._single = _axes(y) == 1 and loss != "cross_entropy"
        self._targets = self._read(y, "targets", labels=loss == "cross_entropy").to(inputs.device)
        if len(self._targets) != len(inputs):
            raise ValueError(f"expected targets [{len(inputs)}] or [{len(inputs)}, k], got shape {tuple(np.shape(y))}")
        if loss == "cross_entropy":
            _check_probabilities(self._targets)
        self._given = initial is not None
        self._initial = self._start(initial, len(inputs))
        with allocating("the kernel between training inputs"):
            self._train = TrainingKernel(Settings(network, kind, dtype, progress), inputs)
        if self._train.matrix is None:
            raise ValueError(f"expected inputs whose kernel fits into memory, got {len(inputs):,}")
        self._other: TrainingKernel | None = None
        self._solve()

    @plain()
    def _solve(self) -> None:
        """The kernel's eigenvectors, for the squared error.

        Raises:
            ValueError: what was given is no kernel.
        """
        matrix = self._own()
        scale = float(matrix.abs().max())
        if float((matrix - matrix.T).abs().max()) > _ROUNDING * scale:
            raise ValueError("expected a symmetric kernel between the training inputs, got one that is not")
        if self.loss != "mse":
            return
        # Symmetric up to rounding.
        values, self._vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
        if float(values.min()) < -_ROUNDING * len(matrix) * scale:
            raise ValueError(
                f"expected a positive semi-definite kernel, got one with the eigenvalue {float(values.min()):.3g}"
            )
        self._values = values.clamp_min(0) + self.ridge * float(matrix.diagonal().mean())

    def _read(self, values: Any, name: str, *, labels: bool = False) -> Tensor:
        """Targets or outputs as [n, k] in float64; labels as one row of probabilities each.

        Raises:
            TypeError: they are no numbers.
            ValueError: they are of another shape, or labels are no integers from 0 on.
        """
        if not labels or _axes(values) > 1:
            found = as_columns(values, self._device, name=name)
            if found.ndim != 2:
                raise ValueError(f"expected {name} [n] or [n, k], got shape {tuple(found.shape)}")
            return found
        array = values if isinstance(values, Tensor) else np.asarray(values)
        if isinstance(array, np.ndarray) and array.dtype.kind not in "biufc":
            got = "text" if array.dtype.kind in "US" else f"an array of {array.dtype}"
            raise TypeError(
                f"expected labels as integers from 0 on, [n], or probabilities [n, k], got {got}; "
                "np.unique(labels, return_inverse=True)[1] numbers them"
            )
        numbers = torch.as_tensor(array)
        if numbers.ndim != 1 or numbers.is_floating_point() or numbers.dtype == torch.bool or int(numbers.min()) < 0:
            raise ValueError("expected labels as integers from 0 on, [n], or probabilities [n, k], got others")
        return torch.nn.functional.one_hot(numbers.long()).double()

    def _start(self, initial: Any, count: int, name: str = "initial") -> Tensor:
        """Initial outputs, [count, k].

        Raises:
            ValueError: they are of another shape.
        """
        wanted = (count, self._targets.shape[1])
        if initial is None:
            return torch.zeros(wanted, dtype=torch.float64, device=self._targets.device)
        found = self._read(initial, name).to(self._targets.device)
        if tuple(found.shape) != wanted:
            raise ValueError(f"expected {name} {list(wanted)}, got shape {tuple(np.shape(initial))}")
        return found

    @plain()
    def predict(
        self,
        x: Any = None,
        time: Any = None,
        *,
        initial: Any = None,
        return_std: bool = False,
        return_cov: bool = False,
    ) -> Any:
        """Outputs at one time or several.

        Args:
            x: [m, ...], inputs as the training inputs are; those themselves by default.
            time: in steps of the learning rate, at least 0: a number or an array of them. None and infinity are the
                end of training: the posterior mean, and for kind "nngp" the posterior's covariance.
            initial: outputs of the one network before its training at these inputs, [m] or [m, k], where those at the
                training inputs were given; the latter by default where ``x`` is left out.
            return_std: whether to give standard deviations over initial weights as well, for "mse".
            return_cov: whether to give covariances over initial weights as well, for "mse".

        Returns:
            [*times, m] or [*times, m, k], as the targets were, in float64: a tensor if the inputs are one, else an
            array. With standard deviations a pair of these; with covariances the second is [*times, m, m], the same
            for each output.

        Raises:
            TypeError: a time is no number.
            ValueError: a time is negative, or infinite with another loss than "mse"; inputs or initial outputs do not
                fit; both of the last two are asked for, or one of them with another loss than "mse", with a precomputed
                kernel, or of one network.
        """
        self._check(return_std, return_cov, initial, x)
        _check_no_gradient(x, initial)
        times, shape = _times(time)
        if self.loss != "mse" and bool(torch.isinf(times).any()):
            raise ValueError('expected finite times with another loss than "mse", got infinity')
        inputs = self._train.inputs if x is None else as_inputs(x, self._device)
        with allocating("the kernel between inputs"):
            cross = self._own() if x is None else self._train.cross(inputs)
        begun = self._initial if x is None and initial is None else self._start(initial, len(cross))
        mean = begun + cross @ self._pushes(times.to(cross.device))
        found = [mean.reshape(*shape, *mean.shape[1:])]
        if return_std or return_cov:
            spread = self._covariances(inputs, cross, times.to(cross.device), whole=return_cov)
            spread = spread if return_cov else spread.clamp_min(0).sqrt()[..., None].expand(mean.shape)
            found.append(spread.reshape(*shape, *spread.shape[1:]))
        if self._single:
            found = [one if number and return_cov else one[..., 0] for number, one in enumerate(found)]
        parts = tuple(returned(one, self._form if x is None else x) for one in found)
        return parts if len(parts) > 1 else parts[0]

    def _own(self) -> Tensor:
        matrix = self._train.matrix
        assert matrix is not None
        return matrix

    def _check(self, std: bool, cov: bool, initial: Any, x: Any) -> None:
        """Refuse combinations that there are not.

        Raises:
            ValueError: this is one.
        """
        if std and cov:
            raise ValueError("expected return_std or return_cov, got both")
        if (std or cov) and self.loss != "mse":
            raise ValueError('expected loss "mse" with return_std or return_cov: no other has a Gaussian outcome')
        if (std or cov) and self._given:
            raise ValueError("expected no initial outputs with return_std or return_cov: one network has no spread")
        if initial is not None and not self._given:
            raise ValueError("expected initial outputs at the training inputs as well, in the constructor")
        if initial is None and self._given and x is not None:
            raise ValueError("expected initial outputs at these inputs, as there are some at the training inputs")

    def _pushes(self, times: Tensor) -> Tensor:
        """What the kernel takes to the change of the outputs, [times, n, k]."""
        if self.loss == "mse":
            gap = self._vectors.T @ (self._targets - self._initial)
            pushes: Tensor = self._vectors @ (self._progress(times)[:, :, None] * gap)
            return pushes
        total = integrated_gradients(
            self._gradient,
            self._own(),
            self._initial,
            times,
            rate=self.learning_rate,
            momentum=self.momentum,
            tolerance=self.tolerance,
        )
        return -total

    def _gradient(self, outputs: Tensor) -> Tensor:
        """Of the loss, [n, k].

        Raises:
            ValueError: the loss gives no number, or one without a gradient.
        """
        if not callable(self.loss):
            return (outputs.softmax(1) - self._targets) / len(outputs)
        with torch.enable_grad():
            followed = outputs.detach().requires_grad_()
            parts = (followed[:, 0], self._targets[:, 0]) if self._single else (followed, self._targets)
            loss = self.loss(*parts)
            if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
                got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
                raise ValueError(f"expected a loss that gives one number with a gradient by the outputs, got {got}")
            (gradient,) = torch.autograd.grad(loss.sum(), followed)
        return gradient

    def _progress(self, times: Tensor) -> Tensor:
        """(1 - e(t)) / eigenvalue, [times, n]."""
        scale = self.learning_rate / self._targets.numel()
        return progress(scale * self._values, times, self.momentum) * scale

    def _covariances(self, inputs: Tensor, cross: Tensor, times: Tensor, *, whole: bool) -> Tensor:
        """Over initial weights, [times, m, m], or their diagonals [times, m].

        With A = (1 - e) / K in the kernel's eigenvectors: k(x, x') - K_xX A k_Xx' - k_xX A K_Xx' + K_xX A k A K_Xx',
        where k is the kernel of kind "nngp". That of the ridge is noise of the targets, which kind "nngp" counts.
        """
        done = self._progress(times)
        nngp = self._nngp()
        prior = nngp.between(inputs) if whole else nngp.diagonal_of(inputs)
        inside = cross @ self._vectors
        if self.kind == "nngp":
            # -(1 - e^2) / K.
            factor = done * (done * self._values - 2)
            if whole:
                covariances: Tensor = prior + torch.einsum("an,tn,bn->tab", inside, factor, inside)
                return covariances
            variances: Tensor = prior + factor @ inside.square().T
            return variances
        beside = nngp.cross(inputs)
        matrix = nngp.matrix
        assert matrix is not None
        found = []
        for one in done:
            weights = (inside * one) @ self._vectors.T
            if whole:
                both = weights @ beside.T
                found.append(prior + weights @ matrix @ weights.T - both - both.T)
            else:
                found.append(prior + ((weights @ matrix - 2 * beside) * weights).sum(1))
        return torch.stack(found)

    def _nngp(self) -> TrainingKernel:
        """The kernel of kind "nngp" between training inputs.

        Raises:
            ValueError: the kernel is precomputed.
        """
        settings = self._train.settings
        if isinstance(settings.network, str):
            raise ValueError("expected a network, whose kernels tell the covariance over initial weights, got a matrix")
        if self.kind == "nngp":
            return self._train
        if self._other is None:
            other = Settings(settings.network, "nngp", settings.dtype, settings.progress)
            self._other = TrainingKernel(other, self._train.inputs)
        return self._other


def _check_probabilities(rows: Tensor) -> None:
    """Refuse what are no probabilities, [n, k].

    Raises:
        ValueError: one is negative, or those of an input are not 1 together.
    """
    sums = rows.sum(1)
    if bool((rows < 0).any()) or not torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-5):
        raise ValueError(
            f"expected probabilities of at least 0 that are 1 together for each input, got sums from "
            f"{float(sums.min()):g} to {float(sums.max()):g}"
        )


def _positive(value: object, name: str) -> float:
    number = finite_number(value, name, minimum=0)
    if number == 0:
        raise ValueError(f"expected {name} above 0, got 0")
    return number


def _times(time: Any) -> tuple[Tensor, tuple[int, ...]]:
    """Times, [k] in float64, and the shape that they were given in.

    Raises:
        TypeError: one is no number.
        ValueError: one is negative or NaN, or there is none.
    """
    if time is None:
        return torch.tensor([math.inf], dtype=torch.float64), ()
    try:
        given = torch.as_tensor(time if isinstance(time, Tensor) else np.asarray(time, dtype=np.float64)).double()
    except (TypeError, ValueError) as error:
        raise TypeError(f"expected time as a number or an array of them, got {time!r}") from error
    if given.numel() == 0 or not bool((given >= 0).all()):
        raise ValueError(f"expected times of at least 0, got {time!r}")
    return given.flatten(), tuple(given.shape)
