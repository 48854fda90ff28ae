"""Recommendation from clicks alone: regression between users' rows in closed form, the infinite autoencoder."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from torch_cntk._internal.checks import finite_number, positive_int
from torch_cntk._internal.contexts import weightless
from torch_cntk._internal.memory import allocating
from torch_cntk._internal.user_warnings import warn_user
from torch_cntk.layers import Layer
from torch_cntk.matrices.forms import is_frame
from torch_cntk.matrices.parameters import Estimator
from torch_cntk.matrices.ranking import Ranking, held_out_clicks, judged
from torch_cntk.matrices.sides import Activation, fully_connected
from torch_cntk.operators.gram import GramOperator
from torch_cntk.solvers import Regression, Solver, Status, automatic

__all__ = ["RIDGES", "InfiniteAutoencoder"]

RIDGES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""What ``ridge="cv"`` chooses from, relative to the kernel's mean diagonal. On ratings of films 1 to 10 are best."""
_HELD_OUT = 0.2
_TRIED = 10
"""Length of the lists by whose nDCG the ridge is chosen."""


class InfiniteAutoencoder(Estimator):
    """Which items a user will click next, from the clicks of all users (Sachdeva et al. 2022).

    An autoencoder of infinite width is told each user's row of clicks and learns to reproduce it. In closed form: with
    K the NTK between users' rows X [users, items], the scores of a user with row x are k(x, X) (K + ridge)^-1 X. The
    ridge keeps it from the identity. Users do not have to be those of ``fit``.

    Args:
        hidden_layers: of the network; 1 as published.
        activation: a name among ``ACTIVATIONS``, or an activation layer.
        ridge: relative to the kernel's mean diagonal, above 0; or "cv": the one among ``RIDGES`` whose lists of ten
            have the largest nDCG, a fifth of each user's clicks being held out.
        normalize: whether to divide each row by its norm, so that users of many clicks do not rule.
        solver: "auto" solves directly up to 30,000 users; or a ``Solver``.
        device: where to compute; by default where the clicks are, if they are a tensor, else the CPU.
        seed: of what is held out.

    Attributes:
        ridge_: the ridge, relative.
        weights_: [items, users], (K + ridge)^-1 X transposed.
        rankings_: of ``ridge="cv"``, how good each ridge was; else empty.
        users_: labels of the users, of a frame, else None.
        items_: labels of the items, of a frame, else None.
        n_features_in_: number of items.
    """

    def __init__(
        self,
        hidden_layers: int = 1,
        activation: Activation | Layer = "relu",
        *,
        ridge: float | Literal["cv"] = "cv",
        normalize: bool = True,
        solver: Literal["auto"] | Solver = "auto",
        device: str | None = None,
        seed: int = 0,
    ) -> None:
        self.hidden_layers = hidden_layers
        self.activation = activation
        self.ridge = ridge
        self.normalize = normalize
        self.solver = solver
        self.device = device
        self.seed = seed

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")

    @allocating("fitting the recommender")
    def fit(self, clicks: Any) -> InfiniteAutoencoder:
        """Learn from clicks.

        Args:
            clicks: [users, items]: a tensor, array, sparse array or frame of booleans or numbers, or nested lists; what
                is not 0 (and not missing) is a click. Pass ``ratings >= 4`` to count good ratings alone.

        Returns:
            itself.

        Raises:
            TypeError: the clicks are not numbers or booleans.
            ValueError: an option is out of range, the shape is wrong, or there is no click.

        Warns:
            UserWarning: an iterative solver ended before its tolerance.
        """
        self._check_options()
        seen = self._read(clicks)
        if not bool(seen.any()):
            raise ValueError("expected at least one click, got none")
        self.users_ = clicks.index if is_frame(clicks) else None
        self.items_ = clicks.columns if is_frame(clicks) else None
        self.n_features_in_ = seen.shape[1]
        self.rankings_: dict[float, Ranking] = {}
        if isinstance(self.ridge, str):
            rest, hidden = held_out_clicks(seen, _HELD_OUT, seed=self.seed)
            if not bool(hidden.any()):
                raise ValueError('expected a user with two clicks for ridge="cv", got none; give a number')
            for ridge in RIDGES:
                self._regress(rest, ridge)
                self.rankings_[ridge] = judged(self._best(rest, min(_TRIED, seen.shape[1])), hidden)
            self.ridge_ = max(RIDGES, key=lambda ridge: self.rankings_[ridge].ndcg)
        else:
            self.ridge_ = float(self.ridge)
        self._regress(seen, self.ridge_)
        self._clicks = seen
        return self

    def _check_options(self) -> None:
        """Refuse options that are out of range.

        Raises:
            ValueError: so it is.
        """
        if isinstance(self.ridge, str):
            if self.ridge != "cv":
                raise ValueError(f'expected ridge to be a number or "cv", got {self.ridge!r}')
        elif finite_number(self.ridge, "ridge", minimum=0) == 0:
            raise ValueError("expected ridge > 0, got 0: without one, the best answer is what is known already")
        if self.solver != "auto" and not isinstance(self.solver, Solver):
            raise ValueError(f'expected solver to be "auto" or a Solver, got {self.solver!r}')
        positive_int(self.seed + 1, "seed + 1")

    def _read(self, clicks: Any) -> Tensor:
        """Clicks as boolean [users, items].

        Raises:
            TypeError: they are not numbers or booleans.
            ValueError: the shape is wrong.
        """
        if isinstance(clicks, Tensor):
            tensor = clicks.to_dense() if clicks.layout != torch.strided else clicks
        else:
            array = clicks.toarray() if scipy.sparse.issparse(clicks) else np.asarray(clicks)
            if array.dtype == object:
                array = np.array([[value is not None and value == value and bool(value) for value in r] for r in array])
            if array.dtype.kind not in "biuf":
                raise TypeError(f"expected clicks as booleans or numbers, got {array.dtype}")
            tensor = torch.from_numpy(np.array(array))
        if tensor.ndim != 2 or tensor.numel() == 0:
            raise ValueError(f"expected clicks [users, items], got shape {tuple(tensor.shape)}")
        seen = (tensor != 0) & ~torch.isnan(tensor.double())
        return seen.to(self.device)

    def _rows(self, seen: Tensor) -> Tensor:
        """Users' rows as the network is told them; it takes the mean of their products."""
        rows = seen.double()
        if self.normalize:
            rows = rows / rows.sum(1, keepdim=True).clamp_min(1).sqrt()
        return rows * math.sqrt(seen.shape[1])

    def _regress(self, seen: Tensor, ridge: float) -> None:
        """Find the weights for these clicks. Users without a click teach nothing, and are left out."""
        self._learned = seen[seen.any(1)]
        with weightless():
            network = fully_connected(self.hidden_layers, self.activation)
        self._operator = GramOperator(network.propagate, self._rows(self._learned))
        every = torch.ones(len(self._learned), dtype=torch.bool, device=seen.device)
        regression = Regression(self._operator, every, ridge)
        solver = automatic(regression) if self.solver == "auto" else self.solver
        assert isinstance(solver, Solver)
        solution = solver.solve(regression, self._learned.double().T.contiguous())
        if solution.status not in (Status.CONVERGED, Status.EARLY):
            warn_user(f"{solution.status.value}; residual {float(solution.residual.max()):.1e}")
        self.weights_ = solution.weights

    def _scores(self, seen: Tensor) -> Tensor:
        """[users, items]; zeros for users without a click, of whom nothing is known but how popular items are."""
        scores = self._operator.cross_multiply(self._rows(seen), self.weights_).T
        popular = self._learned.double().mean(0)
        return torch.where(seen.any(1, keepdim=True), scores, popular)

    def _best(self, seen: Tensor, k: int) -> Tensor:
        """The k items of the largest scores that a user has not clicked, [users, k]; -1 where there are no more."""
        best = self._scores(seen).masked_fill(seen, -torch.inf).topk(k, dim=1)
        return best.indices.masked_fill(best.values == -torch.inf, -1)

    def scores(self, clicks: Any = None) -> Any:
        """How much each user is expected to like each item.

        Args:
            clicks: [users, items] of other users, or of the same with more clicks; those of ``fit`` by default.

        Returns:
            [users, items] in float64: a tensor; or a frame, if ``clicks`` (or what was fitted) is one. Users without a
            click get how popular items are.

        Raises:
            ValueError: ``fit`` was not called, or there are other items.
        """
        seen, users = self._given(clicks)
        scores = self._scores(seen)
        if users is None:
            return scores
        import pandas as pd

        return pd.DataFrame(scores.cpu().numpy(), index=users, columns=self.items_)

    def recommend(self, user: Any = None, k: int = 10, *, clicks: Any = None) -> list[Any]:
        """The items that a user will like best, of those that the user has not clicked.

        Args:
            user: a label of the fitted frame, or the number of a row; or None with ``clicks``.
            k: how many items, if there are so many.
            clicks: of somebody else, [items], booleans or numbers.

        Returns:
            labels of the items, or their numbers, the best first.

        Raises:
            TypeError: ``k`` is no integer.
            ValueError: ``fit`` was not called, there is no such user, or both or neither of user and clicks are given.
        """
        positive_int(k, "k")
        if (user is None) == (clicks is None):
            raise ValueError("expected a user or clicks, got both or neither")
        if clicks is not None:
            seen, _ = self._given([list(clicks)])
        else:
            everybody, users = self._given(None)
            seen = everybody[self._place(user, users)][None]
        best = [item for item in self._best(seen, min(k, self.n_features_in_))[0].tolist() if item >= 0]
        return best if self.items_ is None else [self.items_[item] for item in best]

    def _place(self, user: Any, users: Any) -> int:
        """The row of a user.

        Raises:
            ValueError: there is none.
        """
        labels = list(range(len(self._clicks)) if users is None else users)
        if user not in labels:
            raise ValueError(f"expected a user among the {len(labels)} of fit(), got {user!r}")
        return labels.index(user)

    def _given(self, clicks: Any) -> tuple[Tensor, Any]:
        """Clicks, by default those of ``fit``, and the labels of their users, if there are any.

        Raises:
            ValueError: ``fit`` was not called, or there are other items.
        """
        if not self.__sklearn_is_fitted__():
            raise ValueError("expected fit() before this, got an estimator that has not been fitted")
        if clicks is None:
            return self._clicks, self.users_
        if is_frame(clicks) and self.items_ is not None and list(clicks.columns) != list(self.items_):
            raise ValueError("expected the items of fit() in the same order, got other labels")
        seen = self._read(clicks)
        if seen.shape[1] != self.n_features_in_:
            raise ValueError(f"expected the {self.n_features_in_} items of fit(), got {seen.shape[1]}")
        return seen.to(self._clicks.device), clicks.index if is_frame(clicks) else None

    def evaluate(self, held_out: Any, k: int = 10, *, clicks: Any = None) -> Ranking:
        """How good the recommendations are, by clicks that were held out.

        Args:
            held_out: [users, items], what was not told to ``fit`` (``held_out_clicks`` splits).
            k: length of the lists; at most the number of items is taken.
            clicks: what is known of the same users; those of ``fit`` by default.

        Returns:
            nDCG and hit rates.

        Raises:
            ValueError: ``fit`` was not called, shapes differ, or nothing is held out.
        """
        seen, _ = self._given(clicks)
        hidden, _ = self._given(held_out)
        if hidden.shape != seen.shape:
            raise ValueError(f"expected held-out clicks of shape {tuple(seen.shape)}, got {tuple(hidden.shape)}")
        hidden = hidden & ~seen
        if not bool(hidden.any()):
            raise ValueError("expected a held-out click that fit() was not told, got none")
        return judged(self._best(seen, min(positive_int(k, "k"), self.n_features_in_)), hidden)
