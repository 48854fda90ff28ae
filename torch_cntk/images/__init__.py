"""Fill the missing pixels of images, signals and videos."""

from torch_cntk.images.autocorrelation import autocorrelation_network, autocorrelation_passes
from torch_cntk.images.guided import Guidance, guided_network
from torch_cntk.images.inpaint import InpaintingResult, default_kernel, default_network, inpaint, levels_for
from torch_cntk.images.trials import leave_out_error

__all__ = [
    "Guidance",
    "InpaintingResult",
    "autocorrelation_network",
    "autocorrelation_passes",
    "default_kernel",
    "default_network",
    "guided_network",
    "inpaint",
    "leave_out_error",
    "levels_for",
]
