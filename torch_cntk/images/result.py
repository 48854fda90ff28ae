"""What ``inpaint`` gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.brief import Brief
from torch_cntk.images.chosen import Chosen
from torch_cntk.images.files import Photograph, write_image
from torch_cntk.images.filler import Pass, Series
from torch_cntk.solvers import Status

__all__ = ["InpaintingResult"]

_LOWEST, _HIGHEST = -1.0, 2.0
"""Of pixels in [0, 1] that were filled: they overshoot a little. Levels up to 255 are far beyond."""


@dataclass(frozen=True, repr=False)
class InpaintingResult(Brief):
    """What ``inpaint`` gives.

    Attributes:
        image: as the input, every unobserved pixel filled; observed ones are those of the input, to the bit. A NumPy
            array if the input was one.
        residual: largest relative residual of any channel of any image, relative to what is left after its mean.
        iterations: of the solver.
        converged: whether the residual is within the solver's tolerance.
        status: how the solver ended; its value is a sentence.
        solver: what solved it, in words.
        ridge: that was taken, by the last pass where there are some.
        seconds: wall time, without the time to compute the kernel; passes count in full, and so does their choice.
        passes: how many there were after the first regression (the most of any image of the batch).
        guidance: what they were made with, of each image of the batch (of each mask's channels, if channels have masks
            of their own); empty without passes, or if ``passes`` names the fillers.
        choice: what ``passes="auto"`` and the like chose, and why, in words; of images of a batch that were treated
            differently, one after the other with their numbers. Empty where nothing was to be chosen.
        chosen: the same for ``inpaint(passes=...)``, of each image of the batch: to fill another image so.
        std: of the image's shape and in its units, the standard deviation of each filled pixel, 0 at observed ones:
            that of the Gaussian process whose covariance is the kernel, times the factor that makes the channel's
            observed pixels most likely; of the image without the noise that the ridge stands for, and without what the
            channel's mean is unsure of. None unless samples were asked for.
        samples: [n, ...], images drawn from that process; observed pixels are those of the input, to the bit. Channels
            that have the same mask vary together as the observed pixels do.
        std_error: relative error of ``std`` (one standard deviation): 0 where it is exact, else that of the draws that
            it was found from.
        std_how: how it was found, in words.
        first_ridge: that of the first regression.
        photograph: if the image was a file, the filled one with its opacity and notes; ``save`` writes it.
    """

    image: Tensor
    residual: float
    iterations: int
    converged: bool
    status: Status = field(repr=False)
    solver: str
    ridge: float
    seconds: float
    passes: int = 0
    guidance: tuple[Pass | Series, ...] = field(default=(), repr=False)
    choice: str = field(default="", repr=False)
    chosen: tuple[Chosen, ...] = field(default=(), repr=False)
    std: Tensor | None = field(default=None, repr=False)
    samples: Tensor | None = field(default=None, repr=False)
    std_error: float = field(default=0.0, repr=False)
    std_how: str = field(default="", repr=False)
    first_ridge: float = field(default=0.0, repr=False)
    photograph: Photograph | None = None

    def save(self, path: str | Path, quality: int | None = None) -> None:
        """Write the filled image; what the file it came from says beside its pixels is kept.

        Args:
            path: .png, .jpg, .jpeg, .tif, .tiff, .webp, .bmp or .avif.
            quality: of JPEG, 1 to 100; by default that of the original, and 95 if there is none.

        Raises:
            TypeError: the quality is no integer.
            ValueError: this is no single picture with values in [0, 1], the suffix is another one, or the format cannot
                hold the picture.
            OSError: the folder does not exist, or the file cannot be written.
        """
        if self.photograph is not None:
            photograph = self.photograph
            write_image(path, photograph.pixels, photograph.alpha, quality, metadata=photograph.metadata)
            return
        write_image(path, _picture(self.image), quality=quality)


def _picture(image: Tensor | np.ndarray) -> Tensor:
    """As ``write_image`` takes it, [channels, H, W].

    Raises:
        ValueError: it is a batch, a signal or a video, or of another scale.
    """
    pixels = torch.as_tensor(np.ascontiguousarray(image) if isinstance(image, np.ndarray) else image)
    pixels = pixels.double() if pixels.dtype == torch.float64 else pixels.float()
    if pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim not in (2, 3):
        raise ValueError(
            f"expected one image [channels, H, W] to save, got {tuple(pixels.shape)}; "
            f"tc.images.write_image(path, result.image[0]) writes one of several"
        )
    low, high = (float(level) for level in torch.aminmax(pixels))
    if low < _LOWEST or high > _HIGHEST:
        raise ValueError(
            f"expected values in [0, 1] to save, got {low:.4g} to {high:.4g}; "
            f"tc.images.write_image(path, result.image / 255) writes levels up to 255"
        )
    return pixels.reshape(-1, *pixels.shape[-2:])
