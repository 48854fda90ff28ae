"""``import torch_cntk.baselines`` gives the module ``torch_cntk.matrices.baselines``."""

import sys

from torch_cntk.matrices import baselines
from torch_cntk.matrices.baselines import *  # noqa: F403 - for those who read the types

sys.modules[__name__] = baselines
