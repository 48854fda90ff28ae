"""``import torch_cntk.drug_response`` gives the module ``torch_cntk.matrices.drug_response``."""

import sys

from torch_cntk.matrices import drug_response
from torch_cntk.matrices.drug_response import *  # noqa: F403 - for those who read the types

sys.modules[__name__] = drug_response
