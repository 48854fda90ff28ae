"""How the pair (Sigma, Theta) is stored while it travels through a network."""

from torch_cntk.covariance.attention import Attention, Mechanism
from torch_cntk.covariance.base import Covariance
from torch_cntk.covariance.extent import Extent
from torch_cntk.covariance.gram import Gram
from torch_cntk.covariance.lattice import Features, Lattice, Stored
from torch_cntk.covariance.pairs import Pairs
from torch_cntk.covariance.patches import Gains, Patches
from torch_cntk.covariance.resampling import Filter, Linear, Nearest, Resampling
from torch_cntk.covariance.selection import Every, Extended, Inserted, Pooled, Whole
from torch_cntk.covariance.table import Geometry, Slab, Table
from torch_cntk.covariance.window import TAPERS, Taper, Window, WindowShare

__all__ = [
    "TAPERS",
    "Attention",
    "Covariance",
    "Every",
    "Extended",
    "Extent",
    "Features",
    "Filter",
    "Gains",
    "Geometry",
    "Gram",
    "Inserted",
    "Lattice",
    "Linear",
    "Mechanism",
    "Nearest",
    "Pairs",
    "Patches",
    "Pooled",
    "Resampling",
    "Slab",
    "Stored",
    "Table",
    "Taper",
    "Whole",
    "Window",
    "WindowShare",
]
