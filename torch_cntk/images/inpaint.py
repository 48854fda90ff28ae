"""Fill the missing pixels of images by kernel regression on the observed ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.agreed_memory import agreed_memory, ranks_of
from torch_cntk._internal.dealing import by_rank
from torch_cntk._internal.guesses import MASK, understands
from torch_cntk._internal.memory import allocating
from torch_cntk._internal.ranks import Mesh
from torch_cntk.images.arrays import read
from torch_cntk.images.chosen import Chosen
from torch_cntk.images.default import default_kernel, kernel_of
from torch_cntk.images.exclusions import check_together
from torch_cntk.images.fill import Filled, fill_by
from torch_cntk.images.filler import Pass, Series, check_ridge, check_solver
from torch_cntk.images.gradients import Inputs, with_gradients
from torch_cntk.images.how import How
from torch_cntk.images.observed import Observed
from torch_cntk.images.periodic import Periodic
from torch_cntk.images.plan import Plan
from torch_cntk.images.posterior import Draws
from torch_cntk.images.result import InpaintingResult
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.solvers import Solver, named_solver
from torch_cntk.solvers.checkpoint import without_checkpoint

if TYPE_CHECKING:
    from torch_cntk.images.photographs import Task

__all__ = ["InpaintingResult", "inpaint"]


_GUESSES = {
    "mask": MASK,
    "epochs": "nothing is trained; solver=EigenPro(epochs=...) iterates over the pixels",
    "steps": "nothing is trained; train(net, image, observed, steps=...) fits a finite network",
    "levels": 'pass kernel=default_network(levels).kernel(prior), or a name such as "uniform-5x128-leaky0.1"',
}
"""Arguments that people try, and what to write instead."""


@understands(answers=_GUESSES)
@allocating("filling the image")
def inpaint(
    image: Tensor | np.ndarray | str | Path,
    observed: Tensor | np.ndarray | str | Path | None = None,
    kernel: Kernel | str | Path | None = None,
    *,
    solver: Solver | Literal["auto", "direct", "cg", "eigenpro"] = "auto",
    ridge: float | Tensor | Literal["cv"] = 1e-4,
    wrap: bool = False,
    passes: int | Literal["auto", "quick", "sharp"] | Pass | Chosen | Sequence[Pass | Series | Chosen] = 0,
    guidance: Pass | Series | Sequence[Pass | Series] | None = None,
    windows: bool = True,
    samples: int = 0,
    seed: int | torch.Generator = 0,
    progress: bool = False,
    mesh: Mesh | None = None,
) -> InpaintingResult:
    """Fill the unobserved pixels of one image or several; of signals [channels, T] and videos [channels, T, H, W] too.

    Solves (K_OO + ridge * mean(diag K) I) w = y_O - m on the observed pixels O for every channel, m the mean of its
    observed pixels, and sets the others to K_UO w + m. All channels and images are right-hand sides of one solve.

    Where the image requires gradients the result has them, at the price of one more solve; so do a ridge that is a
    tensor and a kernel with gradients. Holes are not filled in windows of their own then.

    Args:
        image: [channels, *size] or [batch, channels, *size], or [*size] for one channel; floating point, of any
            scale and offset (filled values are not clipped, but by group flows). What it holds at unobserved pixels
            does not matter. A tensor or a NumPy array (what is masked in a masked array is missing); half precision is
            filled in single.
            Or the path of an image file: what was erased in it is missing then, unless there is a mask, and
            ``result.save`` writes the filled file with all that it says beside the pixels.
        observed: boolean, **True = known**, or 8 bits that are 0 where missing and 1 or 255 where known: [*size], or
            [batch, *size] for one mask an image. Channels may have masks of their own: [channels, *size], or
            [batch, channels, *size], in which a dimension of 1 holds for all. Those with the same mask are filled
            together, others as images of their own. By default the pixels that are not NaN, in each channel. Or the
            path of a picture of the image's size, white where known (see ``tc.images.read_mask``); what is missing by
            it grows by three pixels in a file that was compressed with loss and by one if its edges are soft.
        kernel: of ``net.kernel(prior)``, or its name or file (see ``load_kernel``); by default one that suits the
            mask's holes (see ``default_kernel``). Without a kernel, the mask's shape says whether this is a signal, an
            image or a video: an image where it could be more than one of them, so that [T, H, W] with a mask of that
            shape has T channels; a video of one channel is [1, T, H, W].
        solver: ``ConjugateGradient(...)``, ``Direct()``, ``EigenPro(...)``, their names "cg", "direct" and "eigenpro",
            or "auto", which chooses by the number of observed pixels and the kernel (see
            ``torch_cntk.solvers.automatic``). A checkpoint of the solver is one of the first regression, of the whole
            image.
        ridge: relative to the mean of K's diagonal. Larger values forgive noise; 0 interpolates exactly, which is
            not possible with singular kernels. "cv" takes the one that predicts some of the observed pixels best if
            they are left out: for noisy images. A tensor of one number passes gradients on.
        wrap: whether the image's opposite edges are neighbours. By default it is set into a larger canvas of
            unobserved pixels, which keeps them apart and allows any size. A kernel of one size always wraps.
        passes: of content-aware kernels that follow: each takes the last estimate as a feature prior (see
            ``torch_cntk.images.guided``). "auto" treats each hole by itself: those of more than eight pixels across are
            filled from patches elsewhere (see ``PatchFill``), and for the others it chooses number and settings by
            leaving out observed pixels; there are none where they do not help. How much of the patches is taken it
            tries on copies of the holes. "quick" does the same without trying settings out, "sharp" as "auto" but so
            that thick holes look sharp rather than have the least error; ``result.choice`` says what was chosen. A
            ``Filler``, or a list of them, is one pass of each; one of ``result.chosen`` makes the same passes again
            (``passes=result.chosen[0]``).
        guidance: settings of the passes, or another ``Filler`` or ``Series``; by default they suit the share of
            observed pixels. With "auto" it may be a list of them to choose from.
        windows: whether holes may be filled in windows of their own where that is cheaper than the whole image, as it
            is for a few holes in a large one. The result is the same to half a grey level of 8 bits.
        samples: images to draw from what the observed pixels leave possible, ``result.samples``; with at least one
            there is ``result.std`` as well, the standard deviation of each filled pixel. After passes they are those
            of the last one, given the estimate that it took; passes that are chosen are regressions of the whole image
            then, without patches. The whole image is filled at once.
        seed: of the samples; an integer, or a generator on the CPU.
        progress: whether to show a bar.
        mesh: of ``torch_cntk.distributed.mesh()``: processes that call this with the same arguments and divide the
            work. The images of a batch are filled one by one then, each by one rank. Of a single image, windows are
            divided, and the trials of ``passes="auto"``; an image that is filled as a whole is divided into channels or
            bands, and the kernels of guided passes into displacements. Images of a batch and windows have the same bits
            for any number of ranks; the rest is the same to the tolerance of the solver,
            which is loose in guided passes of a whole image: they may differ by some 1e-3 of the image's range.

    Returns:
        the filled image, of the input's shape, dtype and device, with the quality of the solution; on every rank.

    Raises:
        TypeError: the image is not floating point, the mask not boolean, or the kernel or the mesh none.
        ValueError: ranks of the mesh have different images or options, shapes do not fit, an observed pixel is NaN or
            infinite, nothing is observed (of a channel), there is no kernel of that name, the kernel does not serve
            the image's size, or samples are asked for of a last pass that is no regression of the whole image.
        FileNotFoundError: there is no such file of a kernel.
        OutOfMemoryError: the kernel as an operator would not fit.

    Example:
        >>> import torch
        >>> import torch_cntk as tc
        >>> image = torch.linspace(0, 1, 32).expand(1, 32, 32)
        >>> observed = tc.images.random_mask((32, 32), missing=0.5)
        >>> result = tc.inpaint(image, observed)
        >>> bool((result.image - image).abs().max() < 0.1)
        True
    """
    ranks = ranks_of(mesh)
    draws = Draws.of(samples, seed)
    plan = Plan.of(passes, guidance, sampled=draws is not None)
    chosen = _checked_solver(solver)
    number = _number(ridge)
    kernel = kernel_of(kernel)
    inputs = Inputs.of(image, ridge, kernel)
    passing = None if plan.none else plan.passes
    check_together({"gradients": inputs, "passes": passing, "samples": samples or None, "mesh": mesh})
    start = time.perf_counter()
    if isinstance(image, str | Path) or isinstance(observed, str | Path):
        task, image, observed = _from_files(image, observed)
        kernel = task.kernel() if kernel is None and task is not None else kernel
    else:
        task = None
    pixels, mask, form = read(image, observed)
    parts = Observed.of_channels(pixels, mask, None if kernel is None else kernel.ndim, wrap=wrap)
    if getattr(chosen, "checkpoint", None) is not None:
        _check_one_solve(parts, mesh)
    periodic = Periodic(None if kernel is None else kernel.detach(), number, chosen)
    ranks.agree(image=pixels, observed=parts[0][1].mask, ridge=ridge, wrap=wrap, passes=str(passes), windows=windows)
    checked = time.perf_counter() - start
    how = How(windows, progress, mesh, keep=inputs is not None, draws=draws)
    with agreed_memory(ranks):
        filled = [_filled(part, periodic, plan, how) for _, part in parts]
    results = [one for one, _ in filled]
    result = results[0] if len(parts) == 1 else _joined(pixels, parts, results)
    if inputs is not None:
        fills = [first for _, first in filled if first is not None]
        result = replace(result, image=with_gradients(inputs, result.image, parts, fills))
    assert form is not None
    std, drawn = (None if one is None else form.give(one) for one in (result.std, result.samples))
    result = replace(result, image=form.give(result.image), std=std, samples=drawn, seconds=result.seconds + checked)
    if task is None:
        return result
    photograph = task.filled(result.image)
    return replace(result, image=photograph.pixels, photograph=photograph)


def _check_one_solve(parts: list[tuple[list[int], Observed]], mesh: Mesh | None) -> None:
    """Refuse several solves beside one checkpoint.

    Raises:
        ValueError: so it is.
    """
    if len(parts) > 1:
        raise ValueError(f"expected one mask for all channels beside a checkpoint, got {len(parts)} masks")
    images = len(parts[0][1].pixels)
    if mesh is not None and mesh.size > 1 and images > 1:
        raise ValueError(f"expected one image beside a checkpoint and a mesh, which divides images, got {images}")


def _from_files(image: Any, observed: Any) -> tuple[Task | None, Any, Any]:
    """What paths stand for: a file to be filled, an image and a mask.

    Raises:
        TypeError: an image that is no file has no size that a mask's file could have.
    """
    # They fill opacity, by way of this module.
    from torch_cntk.images.photographs import Task, read_observed

    if isinstance(image, str | Path):
        task = Task.read(image, observed)
        return task, task.photograph.pixels, task.known
    if not isinstance(image, torch.Tensor | np.ndarray) or image.ndim < 2:
        raise TypeError(f"expected an image of two dimensions for a mask in a file, got {type(image).__name__}")
    return None, image, read_observed(observed, (image.shape[-2], image.shape[-1]))


def _joined(
    image: Tensor, parts: list[tuple[list[int], Observed]], results: list[InpaintingResult]
) -> InpaintingResult:
    """One result of those of the channels that have the same masks: the worst numbers, and the time of all."""
    filled = _of_channels(image, parts, [result.image for result in results])
    open_ones = [(one.std, one.samples) for one in results if one.std is not None and one.samples is not None]
    return replace(
        _worst(results),
        image=filled,
        choice=_choices("channel", [group for group, _ in parts], [one.choice for one in results]),
        std=_of_channels(image, parts, [std for std, _ in open_ones]) if open_ones else None,
        samples=_of_channels(image, parts, [samples for _, samples in open_ones]) if open_ones else None,
    )


def _of_channels(image: Tensor, parts: list[tuple[list[int], Observed]], of_parts: list[Tensor]) -> Tensor:
    """What has been computed of groups of channels, in one tensor."""
    ndim = parts[0][1].ndim
    lead = of_parts[0].shape[: -ndim - 2]
    together = image.new_empty((*lead, *image.shape))
    channels = together.movedim(-ndim - 1, 0)
    for (group, _), part in zip(parts, of_parts, strict=True):
        channels[group] = part.movedim(-ndim - 1, 0).reshape(len(group), *channels.shape[1:])
    return together


def _worst(results: list[InpaintingResult]) -> InpaintingResult:
    """The worst numbers of several images, with the time and the guidance of all."""
    return replace(
        max(results, key=lambda result: (not result.converged, result.residual)),
        std_error=max(result.std_error for result in results),
        residual=max(result.residual for result in results),
        iterations=max(result.iterations for result in results),
        converged=all(result.converged for result in results),
        ridge=max(result.ridge for result in results),
        first_ridge=max(result.first_ridge for result in results),
        seconds=sum(result.seconds for result in results),
        passes=max(result.passes for result in results),
        guidance=tuple(guidance for result in results for guidance in result.guidance),
        chosen=tuple(chosen for result in results for chosen in result.chosen),
    )


def _by_rank(given: Observed, periodic: Periodic, plan: Plan, how: How) -> InpaintingResult:
    """As ``_filled``, each image by one rank."""
    assert how.mesh is not None
    start = time.perf_counter()
    alone = replace(how, mesh=None, progress=how.progress and how.mesh.size == 1)
    results = by_rank(how.mesh, lambda one: _filled(one, periodic, plan, alone)[0], given.images(), given.pixels.device)
    filled = given.shaped(torch.stack([result.image for result in results]))
    choice = _choices("image", [[k] for k in range(len(results))], [one.choice for one in results])
    return replace(_worst(results), image=filled, seconds=time.perf_counter() - start, choice=choice)


def _choices(what: str, numbers: Sequence[Sequence[int]], choices: Sequence[str]) -> str:
    """What was chosen for each of several images or groups of channels; once where it is the same for all.

    Args:
        what: they are.
        numbers: of each, from 0.
        choices: in words; empty where nothing was chosen.
    """
    those: dict[str, list[int]] = {}
    for some, choice in zip(numbers, choices, strict=True):
        if choice:
            those.setdefault(choice, []).extend(k + 1 for k in some)
    if len(those) < 2:
        return "".join(those)
    return "; ".join(
        f"{what}{'' if len(some) == 1 else 's'} {', '.join(map(str, some))}: {choice}" for choice, some in those.items()
    )


def _number(ridge: float | Tensor | Literal["cv"]) -> float | Literal["cv"]:
    """The ridge without its gradient.

    Raises:
        TypeError: it is no number.
        ValueError: it is another word than "cv", negative or not finite.
    """
    if isinstance(ridge, Tensor) and ridge.numel() == 1 and ridge.is_floating_point():
        ridge = ridge.item()
    check_ridge(ridge)
    return cast("float | Literal['cv']", ridge)


def _filled(given: Observed, periodic: Periodic, plan: Plan, how: How) -> tuple[InpaintingResult, Filled | None]:
    """Fill what has one mask for all channels. Gives the first regression as well, unless ranks did it."""
    start = time.perf_counter()
    if periodic.kernel is None and not given.complete:
        building = time.perf_counter()
        periodic = replace(periodic, kernel=default_kernel(given.mask, given.ndim))
        start += time.perf_counter() - building
    if how.mesh is not None and len(given.pixels) > 1:
        return _by_rank(given, periodic, plan, how), None
    only = plan.none or given.complete
    first = fill_by(how if only else replace(how, draws=None), given, periodic)
    if only:
        return _result(first.image, [first], time.perf_counter() - start, given), first
    periodic = replace(periodic, ridge=first.ridge, solver=without_checkpoint(periodic.solver))
    estimates = first.image.reshape(given.pixels.shape)
    runs = [plan.run(one, estimate, periodic, how) for one, estimate in zip(given.images(), estimates, strict=True)]
    filled = given.shaped(torch.stack([run.image for run in runs]))
    last = [run.last or first for run in runs]
    result = replace(
        _result(filled, last, time.perf_counter() - start, given),
        passes=max(run.passes for run in runs),
        guidance=tuple(run.guidance for run in runs if run.guidance is not None),
        choice=_choices("image", [[k] for k in range(len(runs))], [run.choice for run in runs]),
        first_ridge=first.ridge,
        chosen=tuple(run.chosen for run in runs if run.chosen is not None),
    )
    return result, first


def _result(image: Tensor, fills: list[Filled], seconds: float, given: Observed) -> InpaintingResult:
    """The quality of all fills: of the numbers the largest, of the solvers the one that ended worst."""
    worst = max(fills, key=lambda filled: (not filled.converged, filled.residual))
    result = InpaintingResult(
        image,
        max(filled.residual for filled in fills),
        max(filled.solution.iterations for filled in fills),
        all(filled.converged for filled in fills),
        worst.solution.status,
        worst.solution.solver,
        max(filled.ridge for filled in fills),
        seconds,
        first_ridge=max(filled.ridge for filled in fills),
    )
    left_open = [filled.posterior for filled in fills if filled.posterior is not None]
    if not left_open:
        return result
    rough = max(left_open, key=lambda posterior: posterior.error)
    samples = torch.cat([posterior.samples for posterior in left_open], 1)
    return replace(
        result,
        std=given.shaped(torch.cat([posterior.std for posterior in left_open])),
        samples=samples.reshape(len(samples), *given.shape),
        std_error=rough.error,
        std_how=rough.how,
    )


def _checked_solver(solver: object) -> Solver | None:
    """The solver; None for "auto".

    Raises:
        TypeError: it is none.
        ValueError: there is none of that name.
    """
    if isinstance(solver, str):
        return named_solver(solver)
    check_solver(solver)
    return cast("Solver", solver)
