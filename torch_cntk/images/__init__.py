"""Fill the missing pixels of images, signals and videos.

``inpaint`` is what users call. Underneath, a fill is one regression (``fill``) of what is known (``Observed``), and
what differs is the ``Filler`` that poses its ``Equations``: ``Periodic``, ``Guided``, ``Autocorrelated``, ``Coarse``,
or a user's own.
"""

from torch_cntk.images import plotting
from torch_cntk.images.array_call import inpaint_array
from torch_cntk.images.autocorrelation import Autocorrelated, autocorrelation_network, autocorrelation_passes
from torch_cntk.images.averaged import Averaged
from torch_cntk.images.calibration import std_factor
from torch_cntk.images.certainty import std_picture
from torch_cntk.images.coarse import Coarse
from torch_cntk.images.default import default_kernel, default_network, levels_for
from torch_cntk.images.files import Photograph, check_output, read_image, read_mask, write_image
from torch_cntk.images.fill import Filled, each_pass, fill
from torch_cntk.images.filler import Equations, Filler, Local, Locality, Refiner, Series
from torch_cntk.images.group_flow import Followed, GroupFlow
from torch_cntk.images.guided import Guidance, Guided, guided_network
from torch_cntk.images.influence import influence
from torch_cntk.images.inpaint import InpaintingResult, inpaint
from torch_cntk.images.leaving_out import leave_out_error
from torch_cntk.images.module import Inpaint
from torch_cntk.images.observed import Observed
from torch_cntk.images.patch_fill import PatchFill
from torch_cntk.images.periodic import Periodic
from torch_cntk.images.posterior import Draws, Posterior
from torch_cntk.images.ranking import Sweep, SweepRow, psnr, random_mask, sweep
from torch_cntk.images.windows import Cut

__all__ = [
    "Autocorrelated",
    "Averaged",
    "Coarse",
    "Cut",
    "Draws",
    "Equations",
    "Filled",
    "Filler",
    "Followed",
    "GroupFlow",
    "Guidance",
    "Guided",
    "Inpaint",
    "InpaintingResult",
    "Local",
    "Locality",
    "Observed",
    "PatchFill",
    "Periodic",
    "Photograph",
    "Posterior",
    "Refiner",
    "Series",
    "Sweep",
    "SweepRow",
    "autocorrelation_network",
    "autocorrelation_passes",
    "check_output",
    "default_kernel",
    "default_network",
    "each_pass",
    "fill",
    "guided_network",
    "influence",
    "inpaint",
    "inpaint_array",
    "leave_out_error",
    "levels_for",
    "plotting",
    "psnr",
    "random_mask",
    "read_image",
    "read_mask",
    "std_factor",
    "std_picture",
    "sweep",
    "write_image",
]
