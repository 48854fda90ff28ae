"""What a kernel is tuned on: rows and images with targets, or blocks of the observed pixels of one image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.arrays import tensor_of
from torch_cntk._internal.checks import check_dense
from torch_cntk.images.arrays import read
from torch_cntk.images.canvas import canvas_for
from torch_cntk.images.observed import Observed
from torch_cntk.layers import Layer
from torch_cntk.priors import Prior

__all__ = ["Data", "Pixels", "Rows"]

_BLOCKS = 4
"""Of an image: pixels of different blocks count as independent, which costs a fourth of the time of one large block."""


class Data(ABC):
    """Kernels between points, and their targets."""

    @abstractmethod
    def parts(self, network: Layer, prior: Prior | None, kind: str) -> Iterator[tuple[Tensor, Tensor]]:
        """K between some points, [n, n] in float64, and their centred targets, [k, n]."""


@dataclass(frozen=True, eq=False)
class Rows(Data):
    """Inputs with targets.

    Attributes:
        inputs: [n, ...].
        targets: [k, n], centred, in float64.
    """

    inputs: Tensor
    targets: Tensor

    @classmethod
    def of(cls, x: object, y: object, points: int, generator: torch.Generator) -> Rows:
        """Check inputs [n, ...] and targets [n] or [n, k], and take some of them if they are too many.

        Raises:
            TypeError: they are neither tensors nor arrays, or not of floating point numbers.
            ValueError: shapes do not fit, a number is not finite, or a target is constant.
        """
        x, y = _numbers(x, "x"), _numbers(y, "y", integers=True)
        if y.ndim not in (1, 2) or x.ndim < 2 or len(x) != len(y) or len(x) < 3:
            raise ValueError(
                f"expected x [n, ...] and y [n] or [n, k] of at least 3 inputs, got {tuple(x.shape)} and "
                f"{tuple(y.shape)}"
            )
        chosen = torch.randperm(len(x), generator=generator)[:points].sort().values.to(x.device)
        targets = y.detach().double().reshape(len(y), -1)[chosen.to(y.device)].T
        return cls(x.detach()[chosen], _centred(targets, "target"))

    def parts(self, network: Layer, prior: Prior | None, kind: str) -> Iterator[tuple[Tensor, Tensor]]:
        """All at once."""
        yield network.gram(self.inputs, kind=kind), self.targets


@dataclass(frozen=True, eq=False)
class Pixels(Data):
    """Observed pixels of an image, block by block.

    Attributes:
        size: of the image.
        stationary: whether one kernel serves all sizes.
        places: of each block's pixels, an integer tensor [n] an axis.
        targets: of each block, [channels, n], centred, in float64.
    """

    size: tuple[int, ...]
    stationary: bool
    places: tuple[list[Tensor], ...]
    targets: tuple[Tensor, ...]

    @classmethod
    def of(
        cls,
        network: Layer,
        prior: Prior,
        image: Any,
        observed: Any,
        points: int,
        generator: torch.Generator,
    ) -> Pixels:
        """Check an image and its mask, and choose blocks.

        Raises:
            TypeError: a type or dtype is wrong.
            ValueError: a shape is wrong, nothing is observed, or all that is observed is constant.
        """
        image, observed, _ = read(image, observed)
        given = Observed.of(image, observed, network.ndim)
        start = prior.extent(given.ndim)
        stationary = start is not None and network.propagate(start).shift_invariant
        mask, pixels = given.single_mask, given.pixels[0].double()
        places, targets = [], []
        for inside in _blocks(mask, points, generator):
            values = pixels.movedim(0, -1)[tuple(inside)].T
            varies = (values - values.mean(1, keepdim=True)).abs().amax(1) > 0
            if len(inside[0]) > 2 and bool(varies.any()):
                places.append(inside)
                targets.append(_centred(values[varies], "channel"))
        if not places:
            raise ValueError(
                "expected observed pixels that differ, got constants alone: nothing can be learned of them"
            )
        return cls(given.size, stationary, tuple(places), tuple(targets))

    def parts(self, network: Layer, prior: Prior | None, kind: str) -> Iterator[tuple[Tensor, Tensor]]:
        """One block after another, of one kernel."""
        assert prior is not None
        kernel = network.kernel(prior, None if self.stationary else self.size, kind=kind, dtype=torch.float64)
        canvas = canvas_for(self.size, kernel)
        served = kernel.on(canvas)
        for place, targets in zip(self.places, self.targets, strict=True):
            here = [axis.to(kernel.device) for axis in place]
            entries = served.storage.entries([axis[:, None] for axis in here], here, canvas)
            yield entries, targets.to(kernel.device)


def _numbers(given: object, name: str, *, integers: bool = False) -> Tensor:
    """A tensor or an array as a tensor of floating point numbers, all of them finite.

    Args:
        given: to read.
        name: of the argument.
        integers: whether integers are taken as numbers.

    Raises:
        TypeError: it is neither, or has another dtype.
        ValueError: a number is not finite.
    """
    if isinstance(given, np.ndarray) and given.dtype.kind in ("fiu" if integers else "f"):
        given = tensor_of(given, integers=integers)
    got = given.dtype if isinstance(given, Tensor | np.ndarray) else type(given).__name__
    if not isinstance(given, Tensor):
        raise TypeError(f"expected {name} as a tensor or an array of floating point numbers, got {got}")
    check_dense(given, name)
    whole = not given.is_floating_point() and not given.is_complex() and given.dtype != torch.bool
    if not given.is_floating_point() and not (integers and whole):
        raise TypeError(f"expected {name} as a tensor or an array of floating point numbers, got {got}")
    if not bool(torch.isfinite(given).all()):
        raise ValueError(f"expected finite {name}, got NaN or infinity in it")
    return given


def _centred(targets: Tensor, name: str) -> Tensor:
    """Less their means, [k, n].

    Raises:
        ValueError: one of them is constant.
    """
    centred = targets - targets.mean(1, keepdim=True)
    constant = ~(centred.abs().amax(1) > 0)
    if bool(constant.any()):
        raise ValueError(f"expected targets that vary, got {name} {int(constant.nonzero()[0])}, which is constant")
    return centred


def _blocks(mask: Tensor, points: int, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """Places of the observed pixels of some blocks, about as many in all as are wanted; of all if they are no more."""
    if int(mask.sum()) <= points:
        yield list(mask.nonzero().T)
        return
    each = points // _BLOCKS
    side = max(int((each / float(mask.double().mean())) ** (1 / mask.ndim)), 2)
    starts = list(product(*(range(0, max(n - side, 0) + 1, max(side // 2, 1)) for n in mask.shape)))
    chosen: list[tuple[int, ...]] = []
    for k in torch.randperm(len(starts), generator=generator).tolist():
        if len(chosen) == _BLOCKS:
            break
        apart = all(max(abs(a - b) for a, b in zip(starts[k], other, strict=True)) >= side for other in chosen)
        if apart or len(starts) - k <= _BLOCKS:
            chosen.append(starts[k])
    for corner in chosen:
        inside = mask[tuple(slice(c, c + side) for c in corner)].nonzero()
        if len(inside) > 2 * each:
            inside = inside[torch.randperm(len(inside), generator=generator)[: 2 * each].sort().values]
        yield [axis + c for axis, c in zip(inside.T, corner, strict=True)]
