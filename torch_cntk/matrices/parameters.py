"""Estimators in the manner of scikit-learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

from torch_cntk._internal.parameters import Estimator, Parameters

__all__ = ["Completer", "Estimator", "Parameters"]


class Completer(Estimator, ABC):
    """An estimator that is fitted to a matrix and its features, and completes it."""

    @abstractmethod
    def fit(
        self,
        Y: Any,  # noqa: N803
        observed: Any = None,
        features: Any = None,
        row_features: Any = None,
        *,
        column_weight: Any = None,
    ) -> Self:
        """Fit to a matrix."""

    @abstractmethod
    def predict(self, features: Any = None, row_features: Any = None) -> Any:
        """Complete it."""

    def fit_predict(
        self,
        Y: Any,  # noqa: N803
        observed: Any = None,
        features: Any = None,
        row_features: Any = None,
        *,
        column_weight: Any = None,
    ) -> Any:
        """``fit`` and then ``predict``."""
        fitted = self.fit(Y, observed, features, row_features, column_weight=column_weight)
        return fitted.predict()

    def fit_transform(
        self,
        Y: Any,  # noqa: N803
        observed: Any = None,
        *,
        features: Any = None,
        row_features: Any = None,
        column_weight: Any = None,
    ) -> Any:
        """``fit_predict``, by the name that pipelines call it."""
        return self.fit_predict(Y, observed, features, row_features, column_weight=column_weight)
