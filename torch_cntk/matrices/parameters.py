"""Estimators in the manner of scikit-learn."""

from torch_cntk._internal.parameters import Estimator, Parameters

__all__ = ["Estimator", "Parameters"]
