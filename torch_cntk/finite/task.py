"""What is to be trained on what, checked before long work."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from torch_cntk.covariance import Extent
from torch_cntk.finite.model import has_sigmoid
from torch_cntk.finite.options import Training
from torch_cntk.images.observed import Observed
from torch_cntk.layers import Layer
from torch_cntk.priors import Prior

__all__ = ["Task"]


@dataclass(frozen=True)
class Task:
    """What is to be trained on what, checked.

    Attributes:
        net: as the user gave it.
        prior: of its input.
        target: [channels, *size], zero where not observed.
        observed: [*size].
        truth: [channels, *size], or None.
        source: the size of the network's input; its output is at least the image.
        shape: of the image as the user gave it.
        measured: [channels, *size], what the user's image holds; 0 where it holds nothing.
        known: boolean, [*size] or [channels, *size], where that is put back. Where NaN is missing it is more than
            ``observed``: a pixel of which one channel is missing is not trained on, but its other channels are known.
    """

    net: Layer
    prior: Prior
    target: Tensor
    observed: Tensor
    truth: Tensor | None
    source: tuple[int, ...]
    shape: tuple[int, ...]
    measured: Tensor
    known: Tensor

    @classmethod
    def of(
        cls,
        net: Layer,
        image: Tensor,
        observed: Tensor | None,
        prior: Prior,
        training: Training,
        truth: Tensor | None,
    ) -> Task:
        """Check everything that can be checked before long work.

        Raises:
            TypeError: a type is wrong.
            ValueError: shapes or values do not fit.
        """
        if not isinstance(net, Layer):
            raise TypeError(f"expected a network of torch_cntk, got {type(net).__name__}; see from_torch")
        ndim = net.ndim or 2
        given = Observed.of(image, observed, ndim)
        batch, mask = given.pixels, given.mask
        if len(batch) != 1:
            raise ValueError(f"expected one image, [channels, *size], got a batch of {len(batch)}")
        target = torch.where(mask, batch, 0)[0]
        _check_channels(net, len(target))
        _check_range(net, training, target)
        if training.channels_last and ndim != 2:
            raise ValueError(f"expected 2 dimensions for channels_last, got {ndim}")
        if truth is not None and (not isinstance(truth, torch.Tensor) or truth.shape != image.shape):
            raise ValueError(f"expected a truth of the image's shape {tuple(image.shape)}")
        whole = None if truth is None else truth.detach().to(target).reshape(target.shape)
        source = _source(net, tuple(target.shape[1:]))
        measured, known = target, mask[0]
        if observed is None:
            values = image.detach().reshape(target.shape)
            known = ~torch.isnan(values)
            measured = torch.where(known, values, 0)
        return cls(net, prior, target, mask[0], whole, source, tuple(image.shape), measured, known)

    def fingerprint(self, training: Training, given: Tensor) -> str:
        """What must be equal for a checkpoint to belong to the run with a given input, in words."""
        options = {name: value for name, value in asdict(training).items() if name not in ("compile", "steps")}
        for name in ("optimiser", "schedule"):
            value = options[name]
            options[name] = getattr(value, "__qualname__", type(value).__qualname__) if callable(value) else value
        if training.schedule is not None:
            # Where on its way a schedule is depends on their number.
            options["steps"] = training.steps
        digest = hashlib.sha256()
        for tensor in (self.target, self.observed, given):
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        facts = {"net": self.net.description(), "prior": repr(self.prior), "options": options}
        return json.dumps(facts | {"image": digest.hexdigest(), "shape": self.shape}, sort_keys=True, default=str)


def _check_channels(net: Layer, channels: int) -> None:
    """Refuse a network without weights, or one for other images.

    Raises:
        ValueError: it is one of these.
    """
    if net.in_channels is None or net.out_channels is None:
        raise ValueError("expected a network with weights, got one that takes any number of channels")
    if net.out_channels != channels:
        raise ValueError(f"expected an image of the network's {net.out_channels} channels, got {channels}")


def _check_range(net: Layer, training: Training, target: Tensor) -> None:
    """Refuse what a sigmoid can never give.

    Raises:
        ValueError: an observed pixel is not in [0, 1].
    """
    low, high = float(target.min()), float(target.max())
    if has_sigmoid(net, training) and not 0 <= low <= high <= 1:
        raise ValueError(f"expected observed pixels in [0, 1] for the sigmoid head, got {low:g} to {high:g}")


def _source(net: Layer, size: tuple[int, ...]) -> tuple[int, ...]:
    """The smallest size of an input whose output covers an image of a size."""
    extent = net.propagate(Extent.start(len(size)))
    steps = [(g * s).numerator for g, s in zip(extent.granule, extent.scale, strict=True)]
    return extent.input_size(tuple(math.ceil(n / step) * step for n, step in zip(size, steps, strict=True)))
