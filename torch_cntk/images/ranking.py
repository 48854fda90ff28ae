"""Compare networks, or kernels, on one's own image by leaving observed pixels out, with a spread."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.agreed_memory import ranks_of
from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.dealing import by_rank
from torch_cntk._internal.ranks import Mesh
from torch_cntk.images.default import kernel_of
from torch_cntk.images.inpaint import inpaint
from torch_cntk.images.leaving_out import UNUSUAL_SEED, checked_mask, moved_holes
from torch_cntk.images.masks import has_holes
from torch_cntk.images.observed import as_mask
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.layers import Layer
from torch_cntk.priors import Prior, Uniform

__all__ = ["Sweep", "SweepRow", "psnr", "random_mask", "sweep"]

_LEFT_OUT = 0.1
"""Share of the observed pixels that a trial leaves out, where they are scattered."""


def psnr(image: Tensor, truth: Tensor, where: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB: -10 log10 of the mean squared error, for values in [0, 1]. Higher is better.

    Args:
        image: [..., *size].
        truth: of the same shape.
        where: boolean, [*size]: the pixels that count; all by default. ``where=~observed`` looks at filled ones alone.

    Returns:
        the ratio; infinity where nothing differs.

    Raises:
        ValueError: shapes do not fit, or no pixel counts.

    Example:
        >>> import torch
        >>> import torch_cntk as tc
        >>> image = torch.zeros(1, 4, 4)
        >>> round(tc.images.psnr(image + 0.1, image), 3)
        20.0
    """
    if image.shape != truth.shape:
        raise ValueError(f"expected two images of one shape, got {tuple(image.shape)} and {tuple(truth.shape)}")
    error = (image.double() - truth.double()).square()
    if where is not None:
        if error.shape[error.ndim - where.ndim :] != where.shape:
            raise ValueError(f"expected where of the image's size, got {tuple(where.shape)} for {tuple(image.shape)}")
        error = error[..., as_mask(where)]
    if not error.numel():
        raise ValueError("expected pixels to compare, got none")
    mean = float(error.mean())
    return -10 * math.log10(mean) if mean else math.inf


def random_mask(size: tuple[int, ...], missing: float, seed: int = 0) -> Tensor:
    """A mask ``observed`` of which each pixel is missing with a given probability: for examples and tests.

    Args:
        size: of the image, such as (256, 256).
        missing: probability, from 0 to 1.
        seed: of the draw; torch's global generator is neither read nor moved.

    Returns:
        boolean, True = known, [*size].

    Raises:
        ValueError: the probability is none.

    Example:
        >>> import torch_cntk as tc
        >>> int(tc.images.random_mask((10, 10), missing=0.3).sum())  # known pixels
        65
    """
    if not 0 <= missing <= 1:
        raise ValueError(f"expected missing to be a share from 0 to 1, got {missing!r}")
    return torch.rand(size, generator=torch.Generator().manual_seed(seed)) >= missing


@dataclass(frozen=True)
class SweepRow:
    """How well one network predicts pixels that were left out.

    Attributes:
        name: as given.
        error: root mean square error of the pixels left out, over all trials, in the image's units.
        behind: mean over trials of its mean squared error less that of the best one; 0 for the best one.
        spread: standard error of ``behind``. Less than twice the spread behind is a tie.
        seconds: of all fills, without computing the kernel.
        truth: root mean square error of the missing pixels, where the truth was given.
    """

    name: str
    error: float
    behind: float
    spread: float
    seconds: float
    truth: float | None = None

    @property
    def tied(self) -> bool:
        """Whether it cannot be told from the best one."""
        return self.behind <= 2 * self.spread


@dataclass(frozen=True)
class Sweep:
    """What ``sweep`` gives: rows, the best first. ``print(result)`` shows a table.

    Attributes:
        rows: one a network.
        trials: how many times pixels were left out.
    """

    rows: tuple[SweepRow, ...]
    trials: int

    def __str__(self) -> str:
        width = max(len("network"), *(len(row.name) for row in self.rows))
        with_truth = self.rows[0].truth is not None
        lines = [f"{'network':{width}}  left-out error  behind the best  seconds{'  true error' if with_truth else ''}"]
        for row in self.rows:
            behind = "tied" if row.tied else f"{row.behind / row.spread:.1f} spreads" if row.spread else "behind"
            truth = f"  {row.truth:10.4g}" if row.truth is not None else ""
            lines.append(f"{row.name:{width}}  {row.error:14.4g}  {behind:>15}  {row.seconds:7.2f}{truth}")
        return "\n".join(lines)


def sweep(
    networks: Mapping[str, Layer | Kernel | str],
    image: Tensor,
    observed: Tensor | None = None,
    *,
    prior: Prior | None = None,
    trials: int = 5,
    truth: Tensor | None = None,
    seed: int = 0,
    progress: bool = False,
    mesh: Mesh | None = None,
) -> Sweep:
    """Rank networks by how well they predict pixels of this image that are left out, and say what is a tie.

    A trial leaves out a tenth of the observed pixels; where the mask has holes, it leaves out what is observed in
    copies of them at another place. All networks get the same trials, and differences are taken within trials: one
    image has hard and easy places, which do not count then.

    Args:
        networks: by name: networks, kernels, or names of kernels such as "uniform-3x128-leaky0.1".
        image: [channels, *size].
        observed: boolean, True = known, [*size]; by default the pixels that are not NaN in any channel.
        prior: the input of networks; ``priors.Uniform(0, 0.1)`` by default.
        trials: how many; at least 2.
        truth: the whole image, for a column with the error of the missing pixels.
        seed: of what is left out.
        progress: whether to show a bar.
        mesh: of ``torch_cntk.distributed.mesh()``: processes that call this with the same arguments and divide the
            networks. All errors are those of one process, to the bit.

    Returns:
        the table, on every rank.

    Raises:
        TypeError: networks are something else.
        ValueError: there is none, shapes do not fit, or too few pixels are observed.
    """
    if not isinstance(networks, Mapping) or not networks:
        raise TypeError(f"expected networks by name, in a dict with one or more, got {networks!r}")
    if positive_int(trials, "trials") < 2:
        raise ValueError(f"expected at least 2 trials, without which there is no spread, got {trials}")
    if observed is None and isinstance(image, Tensor):
        observed = ~image.isnan().any(0)
    observed = checked_mask(image, observed)
    if truth is not None and truth.shape != image.shape:
        raise ValueError(f"expected the truth of the image's shape {tuple(image.shape)}, got {tuple(truth.shape)}")
    source, ranks = prior or Uniform(0, 0.1), ranks_of(mesh)
    for net in networks.values():
        _check_network(net, source)
    left_out = _left_out(observed, trials, seed)
    with tqdm(total=len(networks) * trials, disable=not progress, desc="leaving out", unit="fill") as bar:

        def tried(net: Layer | Kernel | str) -> _Tried:
            return _tried(_kernel(net, source, observed), image, observed, left_out, truth, bar)

        found = by_rank(ranks, tried, list(networks.values()))
    errors = torch.tensor([one.errors for one in found], dtype=torch.float64)
    seconds, true = [one.seconds for one in found], [one.truth for one in found]
    return Sweep(_ranked(list(networks), errors, seconds, true), trials)


@dataclass(frozen=True)
class _Tried:
    """Of a network: the mean squared error in each trial, the seconds of all, and the error of the missing pixels."""

    errors: list[float]
    seconds: float
    truth: float | None


def _tried(
    kernel: Kernel, image: Tensor, observed: Tensor, left_out: list[Tensor], truth: Tensor | None, bar: tqdm
) -> _Tried:
    """Fill without what each trial leaves out."""
    errors, seconds = [], 0.0
    for hidden in left_out:
        seen = observed & ~hidden
        start = time.perf_counter()
        filled = inpaint(torch.where(seen, image, 0), seen, kernel).image
        seconds += time.perf_counter() - start
        errors.append(float((filled - image)[:, hidden].double().square().mean()))
        bar.update()
    return _Tried(errors, seconds, None if truth is None else _true_error(image, observed, kernel, truth))


def _check_network(net: object, prior: Prior) -> None:
    """Refuse what has no kernel, before long work.

    Raises:
        TypeError: it is no network, kernel or name.
        ValueError: a layer's rule would not be exact at its place, or there is no kernel of that name.
    """
    if isinstance(net, Layer):
        net.require_exact(gaussian=prior.gaussian)
    elif kernel_of(net) is None:
        raise TypeError("expected a network or a kernel, got None")


def _kernel(net: Layer | Kernel | str, prior: Prior, observed: Tensor) -> Kernel:
    """The kernel of a network, or itself, or by name."""
    if isinstance(net, Layer):
        size = None if prior.extent(observed.ndim) is not None else tuple(observed.shape)
        return net.kernel(prior, size=size)
    kernel = kernel_of(net)
    assert kernel is not None  # see ``_check_network``
    return kernel


def _left_out(observed: Tensor, trials: int, seed: int) -> list[Tensor]:
    """Which observed pixels each trial leaves out, boolean [*size].

    Raises:
        ValueError: nothing, or nothing else, is observed.
    """
    # Not the seed itself: a mask that was drawn with it would hide just the pixels that are to be left out.
    generator = torch.Generator().manual_seed(seed ^ UNUSUAL_SEED)
    holes = has_holes(observed)
    chosen = []
    for _ in range(trials):
        if holes:
            shift = [int(torch.randint(n // 8, n - n // 8 + 1, (), generator=generator)) for n in observed.shape]
            hidden = moved_holes(observed, ~observed, shift)
        else:
            draw = torch.rand(observed.shape, generator=generator).to(observed.device)
            hidden = observed & (draw < _LEFT_OUT)
        if not bool(hidden.any()) or not bool((observed & ~hidden).any()):
            raise ValueError(f"expected observed pixels enough to leave out some, got {int(observed.sum())}")
        chosen.append(hidden)
    return chosen


def _true_error(image: Tensor, observed: Tensor, kernel: Kernel, truth: Tensor) -> float:
    filled = inpaint(torch.where(observed, image, 0), observed, kernel).image
    return float((filled - truth)[:, ~observed].double().square().mean().sqrt())


def _ranked(names: list[str], errors: Tensor, seconds: list[float], true: list[float | None]) -> tuple[SweepRow, ...]:
    """Rows from mean squared errors [networks, trials]."""
    order = errors.mean(1).argsort().tolist()
    behind = errors - errors[order[0]]
    spread = behind.std(1) / math.sqrt(errors.shape[1])
    return tuple(
        SweepRow(
            names[k], float(errors[k].mean().sqrt()), float(behind[k].mean()), float(spread[k]), seconds[k], true[k]
        )
        for k in order
    )
