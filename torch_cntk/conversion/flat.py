"""Networks as one flat list of steps: see ``layers.network``."""

from torch_cntk.conversion.scales import Scales
from torch_cntk.layers.graph import assemble
from torch_cntk.layers.network import channels_of, flatten

__all__ = ["Scales", "assemble", "channels_of", "flatten"]
