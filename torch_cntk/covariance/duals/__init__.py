"""Dual activations: what a nonlinearity does to a covariance.

For a centred Gaussian pair (f, f') with variances v, v' and covariance sigma, the dual of phi is
E[phi(f) phi(f')] (the new NNGP covariance) and its slope E[phi'(f) phi'(f')] (the factor that the NTK takes).
Activations are normalised so that E[phi(f)^2] = 1 for f ~ N(0, 1): variance survives any depth. Those that are not
homogeneous can be had as they are as well, with a gain of 1.
"""

from torch_cntk.covariance.duals.base import Dual, Scaled
from torch_cntk.covariance.duals.clipped import Clipped
from torch_cntk.covariance.duals.closed import Erf, Gelu, Sine
from torch_cntk.covariance.duals.exponential import Bump, Exponential, Wave
from torch_cntk.covariance.duals.hermite import Hermite
from torch_cntk.covariance.duals.piecewise import Jump, Rectifier
from torch_cntk.covariance.duals.tabulated import Tabulated
from torch_cntk.covariance.duals.tuned import Tuned, rectifier

__all__ = ["Bump", "Clipped", "Dual", "Erf", "Exponential", "Gelu", "Hermite", "Jump", "Rectifier", "Scaled", "Sine"]
__all__ += ["Tabulated", "Tuned", "Wave", "rectifier"]
