"""``import torch_cntk.features`` gives the module ``torch_cntk.matrices.features``."""

import sys

from torch_cntk.matrices import features
from torch_cntk.matrices.features import *  # noqa: F403 - for those who read the types

sys.modules[__name__] = features
