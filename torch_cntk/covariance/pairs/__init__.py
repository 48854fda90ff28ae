"""The storage form of covariances between the pixels of two images, for any number of pairs."""

from torch_cntk.covariance.pairs.evaluation import Evaluation, Images, Kind
from torch_cntk.covariance.pairs.expression import Pairs

__all__ = ["Evaluation", "Images", "Kind", "Pairs"]
