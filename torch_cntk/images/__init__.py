"""Fill the missing pixels of images, signals and videos."""

from torch_cntk.images.autocorrelation import autocorrelation_network, autocorrelation_passes
from torch_cntk.images.files import Photograph, check_output, read_image, read_mask, write_image
from torch_cntk.images.guided import Guidance, guided_network
from torch_cntk.images.inpaint import InpaintingResult, default_kernel, default_network, inpaint, levels_for
from torch_cntk.images.trials import leave_out_error

__all__ = [
    "Guidance",
    "InpaintingResult",
    "Photograph",
    "autocorrelation_network",
    "autocorrelation_passes",
    "check_output",
    "default_kernel",
    "default_network",
    "guided_network",
    "inpaint",
    "leave_out_error",
    "levels_for",
    "read_image",
    "read_mask",
    "write_image",
]
