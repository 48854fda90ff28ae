"""What a fill leaves open: standard deviations of filled pixels, and images that the observed ones leave possible.

A kernel regression is the mean of a Gaussian process (Rasmussen & Williams 2006, section 2.2), whose variance at a
pixel x is a (k(x, x) - k_xO G^-1 k_Ox) with G = K_OO + ridge. The amplitude a of each channel is the one that makes its
observed pixels most likely, y^T G^-1 y / n for n of them. Channels vary together by A = Y^T G^-1 Y / n: the covariance
of channels c and d is A_cd times that of the process (Bonilla et al. 2008, section 2). Images are drawn by Matheron's
rule (Journel & Huijbregts 1978): f of the prior is corrected by what the regression makes of its own observed pixels,
f - K_xO G^-1 (f_O + noise), and added to the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import positive_int
from torch_cntk.images.canvas import crop
from torch_cntk.images.observed import Observed
from torch_cntk.operators.draws import drawing
from torch_cntk.solvers import Direct, Factorisation, Regression, Solution, Solver

__all__ = ["Draws", "Posterior", "Solved", "nothing_open", "posterior_of"]

_FACTORISED = 2_500
"""Observed pixels of which the matrix is factorised for the exact variances, if the solver has not done so."""
_OPERATIONS = 2e10
"""Most multiplications for exact variances by a factor, missing x observed^2: some seconds."""
_FEW = 64
"""Missing pixels for which as many equations are solved whatever the solver; more if the draws take more anyhow."""
_LEAST = 32
"""Draws that a standard deviation takes at least: it is off by an eighth then."""
_NUMBERS = 1 << 24
"""Of right-hand sides at once."""


@dataclass(frozen=True)
class Draws:
    """What is asked for.

    Attributes:
        count: images to draw.
        generator: of the draws, on the CPU.
    """

    count: int
    generator: torch.Generator

    @classmethod
    def of(cls, count: object, seed: object) -> Draws | None:
        """Check what the user asked for; None for no samples.

        Raises:
            TypeError: the number is no integer, or the seed neither an integer nor a generator.
            ValueError: the number is negative, or the generator is not on the CPU.
        """
        if not isinstance(seed, torch.Generator) and (isinstance(seed, bool) or not isinstance(seed, Integral)):
            raise TypeError(f"expected seed to be an integer or a torch.Generator, got {seed!r}")
        if isinstance(seed, torch.Generator) and seed.device.type != "cpu":
            raise ValueError(f"expected a generator on the CPU, so that all devices draw the same, got {seed.device}")
        number = positive_int(count, "samples", least=0)
        if number == 0:
            return None
        return cls(number, seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(int(seed)))

    def noise(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Standard normal numbers in float64."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(device)


@dataclass(frozen=True, eq=False)
class Posterior:
    """Standard deviations and draws.

    Attributes:
        std: [batch, channels, *size], 0 at observed pixels.
        samples: [n, batch, channels, *size].
        error: of the standard deviations: that of the draws they were found from, relative; 0 if they are exact.
        how: they were found, in words.
    """

    std: Tensor
    samples: Tensor
    error: float
    how: str

    def denormalised(self, given: Observed) -> Posterior:
        """From the units of ``given.normalised`` to those of ``given``, and in its dtype; observed pixels put back."""
        return replace(
            self,
            std=(self.std * given.scale).to(given.pixels.dtype),
            samples=given.restore(given.denormalise(self.samples)),
        )


def nothing_open(given: Observed, draws: Draws) -> Posterior:
    """Of an image whose pixels are all observed."""
    samples = given.pixels.expand(draws.count, *given.pixels.shape).clone()
    return Posterior(torch.zeros_like(given.pixels), samples, 0.0, "exact: nothing is missing")


@dataclass(frozen=True, eq=False)
class Solved:
    """A regression that has been solved.

    Attributes:
        regression: the equations, on a canvas.
        solver: that solved them.
        factorisation: of them.
        solution: of ``targets``.
        targets: [batch, channels, *canvas].
        filled: the mean, [batch, channels, *size].
        progress: whether to show a bar of the draws.
    """

    regression: Regression
    solver: Solver
    factorisation: Factorisation
    solution: Solution
    targets: Tensor
    filled: Tensor
    progress: bool = False


def posterior_of(given: Observed, solved: Solved, draws: Draws) -> Posterior:
    """What a regression leaves open.

    Args:
        given: the images, ``Observed.normalised``.
        solved: their regression.
        draws: that are asked for.

    Returns:
        in the units of ``given``.
    """
    together = _amplitudes(solved)
    how, variance = _exact(given, solved, draws)
    sampled = _Sampled.of(given, solved, draws, exact=variance is not None)
    error = 0.0
    if variance is None:
        variance, error, how = sampled.variance, sampled.error, sampled.how
    amplitude = together.diagonal(dim1=1, dim2=2).clamp_min(0).reshape(*together.shape[:2], *(1,) * given.ndim)
    std = torch.where(given.mask[:, None], 0, (amplitude * variance.clamp_min(0)).sqrt())
    values, vectors = torch.linalg.eigh(together)
    root = vectors * values.clamp_min(0).sqrt()[:, None]
    deviations = torch.einsum("bij,nbj...->nbi...", root, sampled.images)
    return Posterior(std, solved.filled + deviations, error, how)


def _amplitudes(solved: Solved) -> Tensor:
    """How the channels of each image vary together, [batch, channels, channels] in float64: Y^T G^-1 Y / n."""
    targets = solved.targets.double().flatten(2)
    count = solved.regression.observed.expand(solved.targets.shape)[:, :1].flatten(1).double().sum(1)
    likely = targets @ solved.solution.weights.double().flatten(2).mT / count[:, None, None]
    return (likely + likely.mT) / 2


def _exact(given: Observed, solved: Solved, draws: Draws) -> tuple[str, Tensor | None]:
    """How, and the variances [1 or batch, 1, *size] before the amplitude; None where they would take too long."""
    parts, index = solved.regression.distinct_masks()
    masks = [crop(part.observed, given.size) for part in parts]
    missing, known = max(int((~mask).sum()) for mask in masks), max(int(mask.sum()) for mask in masks)
    by_factor = known <= _FACTORISED and missing * known**2 * len(masks) <= _OPERATIONS
    if by_factor:
        how = f"exact, by a factorisation of {known:,} equations"
        at_hand = isinstance(solved.solver, Direct) and len(parts) == 1
        ways: Iterator[Factorisation] = (
            solved.factorisation if at_hand else Direct().factorise(part, progress=solved.progress) for part in parts
        )
    elif len(parts) == 1 and missing <= max(_FEW, draws.count * math.prod(solved.targets.shape[:2])):
        how, ways = f"exact, by {missing:,} equations, one for each missing pixel", iter([solved.factorisation])
    else:
        return "", None
    found = [
        _variances(part, way, mask, exact=by_factor, progress=solved.progress)
        for part, way, mask in zip(parts, ways, masks, strict=True)
    ]
    return how, torch.stack(found)[index.reshape(-1)][:, None]


def _variances(
    regression: Regression, factorisation: Factorisation, mask: Tensor, *, exact: bool, progress: bool
) -> Tensor:
    """k(x, x) - k_xO G^-1 k_Ox at missing pixels of an image in the corner of the canvas, else 0; [*size]."""
    operator = regression.operator
    canvas, pixels = operator.size, math.prod(operator.size)
    numbers = torch.arange(pixels, device=mask.device).reshape(canvas)
    places, known = crop(numbers, tuple(mask.shape))[~mask], numbers[regression.observed]
    found = torch.zeros(mask.shape, dtype=torch.float64, device=mask.device)
    parts = []
    some_at_once = torch.split(places, max(_NUMBERS // pixels, 1))
    for some in tqdm(some_at_once, disable=not progress, desc="deviations", unit="part", leave=False):
        sides = torch.zeros(len(some), pixels, dtype=torch.float64, device=mask.device)
        sides[:, known] = operator.entries(some, known)
        sides = sides.reshape(-1, *canvas)
        weights = factorisation.solve(sides, progress=progress).weights.double()
        left = 0 if exact else sides - regression.multiply(weights)
        # 2 k w - w G w: what an iteration has left of the equations enters by its square.
        explained = ((sides + left) * weights).flatten(1).sum(1)
        parts.append(operator.diagonal.flatten()[some] - explained)
    found[~mask] = torch.cat(parts) if parts else found[~mask]
    return found


@dataclass(frozen=True, eq=False)
class _Sampled:
    """Draws before the amplitude, and the variances that they tell.

    Attributes:
        images: [n, batch, channels, *size].
        variance: [1 or batch, 1, *size].
        error: of its root, relative.
        how: in words.
    """

    images: Tensor
    variance: Tensor
    error: float
    how: str

    @classmethod
    def of(cls, given: Observed, solved: Solved, draws: Draws, *, exact: bool) -> _Sampled:
        """Draw as many images as are asked for, and more if a variance needs them."""
        operator, shape = solved.regression.operator, tuple(solved.targets.shape[:2])
        canvas = operator.size
        shared = solved.regression.observed.ndim == len(canvas)
        alike = math.prod(shape) if shared else shape[1]
        count = draws.count if exact else max(draws.count, math.ceil(_LEAST / alike))
        at_once = max(_NUMBERS // (math.prod(canvas) * math.prod(shape)), 1)
        kept: list[Tensor] = []
        squares = torch.zeros(*shape, *given.size, dtype=torch.float64, device=given.pixels.device)
        parts = range(0, count, at_once)
        with (
            tqdm(total=count, disable=not solved.progress, desc="draws", unit="draw", leave=False) as bar,
            tqdm(disable=not solved.progress, desc="draws of the prior", unit="it", leave=False) as steps,
        ):
            # How many steps it takes, nobody knows before.
            way = drawing(operator, steps.update)
            for start in parts:
                noise = draws.noise((min(at_once, count - start), *shape, *canvas), squares.device)
                drawn = way.root(noise.flatten(0, 2))[0].reshape(noise.shape)
                images = crop(_corrected(drawn, solved, draws), given.size)
                squares += images.square().sum(0)
                kept.append(images[: max(draws.count - start, 0)])
                bar.update(len(noise))
        variance = squares.mean((0, 1) if shared else (1,), keepdim=True) / count
        error = 1 / math.sqrt(2 * count * alike)
        how = f"by {count * alike:,} draws, whose prior was drawn {way.text}: off by {100 * error:.2g} %"
        return cls(torch.cat(kept), variance, error, how)


def _corrected(drawn: Tensor, solved: Solved, draws: Draws) -> Tensor:
    """Images of the prior less what the regression makes of their observed pixels, [n, batch, channels, *canvas]."""
    regression = solved.regression
    noise = draws.noise(tuple(drawn.shape), drawn.device) * math.sqrt(regression.ridge)
    targets = torch.where(regression.observed, drawn + noise, 0)
    weights = solved.factorisation.solve(targets, progress=solved.progress).weights.double()
    return drawn - regression.operator.multiply(weights)
