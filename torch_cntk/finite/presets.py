"""Published settings of finite networks for inpainting, each with its source.

What cannot be taken over is said in ``Preset.differs``. All of them normalise over the batch, as their sources do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch_cntk.finite.training import Training
from torch_cntk.layers import Sequential
from torch_cntk.priors import Meshgrid, Prior, Uniform
from torch_cntk.zoo.hourglass import hourglass

__all__ = ["PRESETS", "Preset", "preset"]

_DIP = "Ulyanov, Vedaldi & Lempitsky, Deep Image Prior (CVPR 2018); their published notebook"
_PADDING = "circular padding in place of reflection, and weights N(0, 1 / fan_in) in place of torch's uniform ones"


@dataclass(frozen=True)
class Preset:
    """A published way to fill an image.

    Attributes:
        name: of the preset.
        source: where it was published.
        differs: what is not as there.
        prior: of the network's input.
        training: how it is trained.
        build: makes the network for so many channels of the image.
    """

    name: str
    source: str
    differs: str
    prior: Prior
    training: Training
    build: Callable[[int], Sequential]

    def network(self, channels: int = 3) -> Sequential:
        """The network, with freshly drawn weights, for an image of so many channels."""
        return self.build(channels)


_STANDARD = Training(parameterisation="standard", batch_norm=True)
"""What all of them have in common."""


def _dip(name: str, notebook: str, prior: Prior, training: Training, build: Callable[[int], Sequential]) -> Preset:
    return Preset(name, f"{_DIP} {notebook}", _PADDING, prior, training, build)


PRESETS: Mapping[str, Preset] = {
    entry.name: entry
    for entry in (
        _dip(
            "dip-library",
            "inpainting.ipynb, figure 8",
            Uniform(0, 0.1),
            replace(_STANDARD, steps=3001, lr=0.01),
            lambda channels: hourglass(
                6,
                (16, 32, 64, 128, 128, 128),
                0,
                channels=channels,
                in_channels=1,
                down_filter=5,
                one_by_one=False,
                bias=True,
            ),
        ),
        _dip(
            "dip-vase",
            "inpainting.ipynb, figure 6",
            Meshgrid(),
            replace(_STANDARD, steps=5001, lr=0.01, jitter=0.03),
            lambda channels: hourglass(5, 128, 0, channels=channels, in_channels=2, bias=True),
        ),
        _dip(
            "dip-kate",
            "inpainting.ipynb, figure 7 (top)",
            Uniform(0, 0.1),
            replace(_STANDARD, steps=6001, lr=0.01, jitter=0.03),
            lambda channels: hourglass(5, 128, 128, channels=channels, bias=True),
        ),
        _dip(
            "dip-half-missing",
            "restoration.ipynb, figure 7 (bottom)",
            Uniform(0, 0.1),
            replace(_STANDARD, steps=11000, lr=0.001, jitter=0.03),
            lambda channels: hourglass(5, 128, 4, "bilinear", channels=channels, bias=True),
        ),
        Preset(
            "sgld-large-hole",
            "Cheng, Gadelha, Maji & Sheldon, A Bayesian Perspective on the Deep Image Prior (CVPR 2019): six levels of "
            "128 filters, Adam with Langevin noise of twice the learning rate, average of the outputs after a burn-in",
            f"{_PADDING}; numbers of steps are those of their denoising experiment; no weight decay",
            Uniform(0, 0.1),
            replace(
                _STANDARD, steps=20000, lr=0.01, jitter=0.03, langevin=2.0, iterate="average", decay=None, burn_in=7000
            ),
            lambda channels: hourglass(6, 128, 0, channels=channels, bias=True),
        ),
    )
}
"""By name."""


def preset(name: str) -> Preset:
    """A published way to fill an image, by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in PRESETS:
        raise ValueError(f"expected one of the presets {', '.join(sorted(PRESETS))}, got {name!r}")
    return PRESETS[name]
