"""Image covariances in displacement-major form: described first (``expression``), computed afterwards (``evaluation``).

Displacements never meet another except in a resampling, so a level between two resamplings is a ``program`` of
``steps`` that a slab of displacements runs through while it sits in the cache: one trip through memory a level.
"""

from torch_cntk.covariance.lattice.evaluation import Evaluation
from torch_cntk.covariance.lattice.expression import Features, Lattice, Stored

__all__ = ["Evaluation", "Features", "Lattice", "Stored"]
