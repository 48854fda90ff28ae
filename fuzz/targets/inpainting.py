"""``inpaint``: what is observed stays, and what is filled solves the equations, within the residual that is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

import torch_cntk as tc
from fuzz.oracle import require
from tests.helpers.strategies.images import Picture, pictures, silly_pictures
from torch_cntk.images.periodic import canvas_for

__all__ = ["Case", "Silly", "cases", "check"]

_FAR = 1e3
"""Ranges of the observed pixels beyond which nothing may be filled that has converged."""
_ROUNDINGS = 300
"""Steps of rounding that the way from the weights to the image may add up, with Fourier transforms on it."""


def _net(*layers: tc.Layer) -> tc.Sequential:
    return tc.Sequential(*layers)


_uniform = tc.priors.Uniform(0, 0.1)
_KERNELS: dict[int, dict[str, Callable[[tuple[int, ...]], tc.Kernel]]] = {
    1: {
        "plain": lambda size: _net(tc.Conv1d(1, 1, 3), tc.ReLU(), tc.Conv1d(1, 1, 3)).kernel(_uniform),
        "level": lambda size: _net(
            tc.StridedConv1d(1, 1, 3), tc.LeakyReLU(0.1), tc.NearestUp(2), tc.Conv1d(1, 1, 3), tc.ReLU()
        ).kernel(_uniform, dtype=torch.float32),
        "coordinates": lambda size: _net(tc.Conv1d(1, 1, 3), tc.ReLU()).kernel(tc.priors.Coordinates(2.0), size),
    },
    2: {
        "plain": lambda size: _net(tc.Conv2d(1, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 3)).kernel(_uniform),
        "level": lambda size: _net(
            tc.StridedConv2d(1, 1, 3), tc.LeakyReLU(0.1), tc.NearestUp(2), tc.Conv2d(1, 1, 3), tc.ReLU()
        ).kernel(_uniform),
        "single": lambda size: tc.load_kernel("uniform-plain-1x128-relu"),
        "singular": lambda size: _net(tc.Conv2d(1, 1, 3), tc.ReLU(), tc.NearestUp(2)).kernel(_uniform),
        "coordinates": lambda size: _net(tc.Conv2d(1, 1, 3), tc.ReLU()).kernel(tc.priors.Meshgrid(), size),
        "window": lambda size: _net(tc.Conv2d(1, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 1)).kernel(
            tc.priors.Coordinates(2.0) + tc.priors.White(0.1), size, radius=3
        ),
    },
    3: {"plain": lambda size: _net(tc.Conv3d(1, 1, 3), tc.ReLU(), tc.Conv3d(1, 1, 1)).kernel(_uniform)},
}


@lru_cache(maxsize=256)
def _kernel(ndim: int, name: str, size: tuple[int, ...]) -> tc.Kernel:
    with torch.random.fork_rng(devices=[]):  # weights are drawn, of which a kernel needs none
        return _KERNELS[ndim][name](size)


@dataclass(frozen=True)
class Case:
    """A fill that must succeed.

    Attributes:
        picture: what is filled.
        kernel: name of one of ours, or None for the default one.
        options: arguments of ``inpaint``.
    """

    picture: Picture
    kernel: str | None
    options: dict[str, Any]

    @property
    def ordinary(self) -> bool:
        """Whether it must not be refused: for a choice of the ridge one pixel is not enough; passes pass no
        gradients on.
        """
        without_gradients = self.picture.form == "gradient" and bool(self.options.get("passes"))
        return bool(self.options["ridge"] != "cv") and not without_gradients


@dataclass(frozen=True)
class Silly:
    """Arguments of ``inpaint`` of which one at least is none."""

    image: Any
    observed: Any
    options: dict[str, Any]


_solvers = st.sampled_from(
    [
        "auto",
        "auto",
        tc.Direct(),
        tc.ConjugateGradient(),
        tc.ConjugateGradient(1e-8, 1000),
        tc.ConjugateGradient(max_iterations=2),
        tc.ConjugateGradient(preconditioner="jacobi"),
        tc.ConjugateGradient(preconditioner="none"),
        tc.EigenPro(epochs=20),
        tc.EigenPro(epochs=5, validation=0.3, subsample=5, eigenvectors=2),
    ]
)
_ridges = st.sampled_from([1e-4, 1e-4, 0.0, 1e-12, 0.1, 1e6, "cv"])


def _tells_dimensions(picture: Picture) -> bool:
    """Whether the mask's shape says how many spatial dimensions there are, as it must without a kernel."""
    return picture.ndim == 2 or (picture.ndim == 1 and picture.mask == "one" and picture.form != "masked")


@st.composite
def _fills(draw: Any) -> Case:
    picture = draw(pictures())
    kernel = draw(st.sampled_from([None] * _tells_dimensions(picture) + sorted(_KERNELS[picture.ndim])))
    options: dict[str, Any] = {"solver": draw(_solvers), "ridge": draw(_ridges)}
    if draw(st.integers(0, 19)) == 0 and picture.ndim == 2:
        options["passes"] = draw(st.sampled_from([1, 2, "auto"]))
    return Case(picture, kernel, options)


class _Rude:
    """A filler that writes into what it is given."""

    def equations(self, given: tc.images.Observed, estimate: Tensor | None) -> tc.images.Equations:
        given.pixels.fill_(7)
        given.mask.fill_(True)
        if estimate is not None:
            estimate.fill_(7)
        return tc.images.Periodic().equations(given)


class _Lost:
    """A filler that gives nothing."""

    def equations(self, given: tc.images.Observed, estimate: Tensor | None) -> Any:
        return None


_silly_options = st.sampled_from(
    [
        {"solver": "fast"},
        {"solver": tc.Direct},
        {"solver": None},
        {"ridge": -1.0},
        {"ridge": float("nan")},
        {"ridge": float("inf")},
        {"ridge": "auto"},
        {"ridge": None},
        {"ridge": 1e308},
        {"ridge": 5e-324},
        {"ridge": True},
        {"passes": -1},
        {"passes": 1.5},
        {"passes": "many"},
        {"passes": None},
        {"passes": []},
        {"passes": [tc.images.Guided]},
        {"passes": tc.images.Guided},
        {"passes": [None]},
        {"passes": [_Lost()]},
        {"passes": [_Rude()]},
        {"passes": _Rude},
        {"passes": [tc.images.Guided(radius=1)], "guidance": tc.Guidance()},
        {"passes": 1, "guidance": tc.Guidance},
        {"passes": 1, "guidance": "strong"},
        {"passes": 1, "guidance": [tc.Guidance(), tc.Guidance()]},
        {"passes": "auto", "guidance": []},
        {"kernel": "uniform"},
        {"kernel": ""},
        {"kernel": "uniform-2x4-rulu"},
        {"kernel": "no.safetensors"},
        {"kernel": 3},
        {"kernel": tc.Conv2d(1, 1, 3)},
        {"kernel": tc.Kernel},
        {"wrap": True},
    ]
)


@st.composite
def _silly(draw: Any) -> Silly:
    if draw(st.booleans()):
        image, observed = draw(silly_pictures())
        return Silly(image, observed, {})
    image, observed = draw(pictures()).held()
    return Silly(image, observed, draw(_silly_options))


cases = _fills() | _fills() | _silly()


def check(case: Case | Silly) -> None:
    """Fill, and look at the result."""
    if isinstance(case, Silly):
        result = tc.inpaint(case.image, case.observed, **case.options)
        require(torch.isfinite(_tensor(result.image)).all(), "a pixel is not finite")
        return
    picture = case.picture
    image, observed = picture.held()
    before = _copy(image), _copy(observed)
    kernel = None if case.kernel is None else _kernel(picture.ndim, case.kernel, picture.size)
    result = tc.inpaint(image, observed, kernel, **case.options)
    require(_same(image, before[0]) and _same(observed, before[1]), "the arguments were changed")
    _check_form(result, image, picture)
    given, known = picture.numbers()
    filled = _tensor(result.image).reshape(given.shape)
    require(torch.equal(filled[known], given[known]), "an observed pixel was changed")
    require(torch.isfinite(filled).all(), "a filled pixel is not finite")
    _check_numbers(result, case, filled.double(), given.double(), known)


def _tensor(image: Any) -> Tensor:
    return image.detach() if isinstance(image, Tensor) else torch.from_numpy(np.array(image))


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return None if value is None else value.copy()


def _same(value: Any, before: Any) -> bool:
    if value is None or before is None:
        return value is before
    if isinstance(value, Tensor):
        return torch.equal(torch.nan_to_num(value.detach(), 3e3), torch.nan_to_num(before, 3e3))
    return bool(np.array_equal(np.asarray(value), np.asarray(before), equal_nan=value.dtype.kind == "f"))


def _check_form(result: tc.InpaintingResult, image: Any, picture: Picture) -> None:
    require(isinstance(result.image, np.ndarray) == isinstance(image, np.ndarray), "the image's type was changed")
    require(tuple(result.image.shape) == tuple(image.shape), f"the shape became {tuple(result.image.shape)}")
    require(result.image.dtype == image.dtype, f"the dtype became {result.image.dtype}")
    require(math.isfinite(result.residual) and result.residual >= 0, f"the residual is {result.residual}")
    require(math.isfinite(result.ridge) and result.ridge >= 0, f"the ridge is {result.ridge}")
    require(result.seconds >= 0 and result.iterations >= 0, "a count is negative")
    done = (tc.Status.CONVERGED, tc.Status.EARLY, tc.Status.SETTLED)
    require(result.converged == (result.status in done), "the status contradicts")


def _check_numbers(result: tc.InpaintingResult, case: Case, filled: Tensor, given: Tensor, known: Tensor) -> None:
    """Each channel of each image against the solution of its equations."""
    exact = result.passes == 0 and result.status is tc.Status.CONVERGED
    # Its residual is that of the pixels that it does not leave out.
    exact = exact and not getattr(case.options["solver"], "validation", 0)
    # Parts that have masks of their own choose ridges of their own, of which the largest is told.
    exact = exact and not (case.options["ridge"] == "cv" and case.picture.mask in ("channel", "both", "nan"))
    for channel in range(given.shape[1]):
        kernel = _kernel_of(case, known[:, channel])
        for k in range(len(given)):
            y, mask, got = given[k, channel], known[k, channel], filled[k, channel]
            if bool(mask.all()):
                continue
            mean = y[mask].mean()
            spread = float((y[mask] - mean).abs().max())
            single = case.picture.dtype != "float64" or kernel.dtype == torch.float32
            rounding = torch.finfo(torch.float32 if single else torch.float64).eps
            half = {"float16": 2e-3, "bfloat16": 2e-2}.get(case.picture.dtype, 0.0)
            slack = max(4 * rounding, half) * float(got.abs().max() + mean.abs())
            off = float((got - mean).abs().max())
            if result.converged:
                require(off <= _FAR * spread + slack, f"filled {off} off a mean of {float(mean)}, spread {spread}")
            if exact:
                error, bound = _error(kernel, y, mask, got, mean, result, rounding)
                message = f"{error} off the solution, allowed are {bound + slack} ({result.solver}, {result.residual})"
                require(not error > bound + slack, message)


def _kernel_of(case: Case, masks: Tensor) -> tc.Kernel:
    if case.kernel is None:
        return tc.default_kernel(masks, case.picture.ndim)
    return _kernel(case.picture.ndim, case.kernel, case.picture.size)


def _error(
    kernel: tc.Kernel, y: Tensor, mask: Tensor, got: Tensor, mean: Tensor, result: tc.InpaintingResult, rounding: float
) -> tuple[float, float]:
    """How far a channel is off the solution of its equations in float64, and how far the residual allows it to be.

    With A = K_UO (K_OO + ridge)^-1, weights that leave the residual r of y give a fill that is A r off.
    """
    size = tuple(y.shape)
    canvas = canvas_for(size, kernel)
    operator = kernel.operator(canvas, dtype=torch.float64)
    grid = torch.arange(math.prod(canvas)).reshape(canvas)[tuple(slice(n) for n in size)]
    seen, missing = grid[mask], grid[~mask]
    matrix = operator.entries(seen, seen)
    matrix.diagonal().add_(result.ridge * operator.mean_diagonal)
    values, vectors = torch.linalg.eigh(matrix)
    if values[0] <= 1e-9 * values[-1]:
        return 0.0, 0.0
    inverse = vectors / values @ vectors.T
    across = operator.entries(missing, seen)
    lift = across @ inverse
    target = y[mask] - mean
    weights = inverse @ target
    expected = lift @ target + mean
    norm = float(torch.linalg.matrix_norm(lift, 2))
    allowed = 1.01 * norm * result.residual * float(target.norm())
    # Weights that grow are rounded as they are; so is the residual that is told.
    rounded = _ROUNDINGS * rounding * (float(matrix.abs().max()) * float(weights.abs().sum()) + float(target.norm()))
    return float((got[~mask] - expected).abs().max()), allowed + rounded * max(1.0, norm)
