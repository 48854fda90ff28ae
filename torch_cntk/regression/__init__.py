"""Regression and classification of images, signals and tables with the kernel of any network."""

from torch_cntk.regression.classifier import KernelClassifier
from torch_cntk.regression.dynamics import TrainingDynamics
from torch_cntk.regression.rates import max_learning_rate
from torch_cntk.regression.regressor import KernelRegressor

__all__ = ["KernelClassifier", "KernelRegressor", "TrainingDynamics", "max_learning_rate"]
