"""Complete matrices from features of their rows and columns."""

import lazy_loader

from torch_cntk.matrices import features
from torch_cntk.matrices.completion import MatrixCompletion
from torch_cntk.matrices.ranking import Ranking, held_out_clicks
from torch_cntk.matrices.recommendation import InfiniteAutoencoder
from torch_cntk.matrices.validation import cross_validate

# Few users need them: each is imported when it is asked for.
__getattr__, _, _ = lazy_loader.attach(__name__, submodules=["baselines", "drug_response"])

__all__ = ["InfiniteAutoencoder", "MatrixCompletion", "Ranking", "cross_validate", "features", "held_out_clicks"]
