"""Passes that are chosen for the user, hole by hole: thin holes by guided passes, thick ones from patches.

Patches continue a thick hole where a kernel blurs it; thin holes, text and dust they do not fill as well as guided
passes do. Leaving out copies of thick holes does not predict which is better there, their thickness does; it does tell
how much of the patches to take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk.images.blending import choose_blend
from torch_cntk.images.chosen import Chosen
from torch_cntk.images.coarse import Coarse
from torch_cntk.images.fill import fill, fill_by, passes_by
from torch_cntk.images.filler import Pass, Refiner, Series, of_pass
from torch_cntk.images.group_flow import Followed, GroupFlow, before_flow, flows_for
from torch_cntk.images.guided import Guidance, guided_series
from torch_cntk.images.how import How
from torch_cntk.images.leaving_out import parts_left_out
from torch_cntk.images.masks import THIN, has_holes, thick
from torch_cntk.images.observed import Observed
from torch_cntk.images.patch_fill import PatchFill
from torch_cntk.images.periodic import Periodic
from torch_cntk.images.regression import Filled
from torch_cntk.images.trials import choose_passes

__all__ = ["WORDS", "Run", "by_holes", "crowded", "passes_in_words", "run"]

WORDS = ("auto", "quick", "sharp")
"""Of passes that are chosen: by leaving out observed pixels, without that, and as the first but with sharp patches."""
_QUICK = 4
"""Guided passes without trials, where no flow follows: among scattered pixels two more gain .1 dB on photographs."""
_QUICK_BEFORE_FLOW, _QUICK_ITERATIONS = 3, 9
"""Among scattered pixels of images: a flow gains another .4 to .6 dB, for about as long as the passes take."""
_SCATTERED = 0.1
"""Share of pixels that are missing then, at least: a flow's time is that of a part of the image, not of its holes."""
_QUICK_IN_HOLES = 6
"""In holes they gain .15 dB on the mean of eight photographs with strokes, .3 in large lettering, and cost little, as
holes are filled in windows of their own."""
_FEW = {1: 100, 2: 1000, 3: 300}
"""Missing pixels below which no settings are tried, by dimensions: that would take longer than the passes."""


@dataclass(frozen=True)
class Run:
    """The passes on one image.

    Attributes:
        image: the last estimate, [channels, *size].
        last: the last pass that solved equations; None if there was none.
        passes: their number.
        guidance: what they were made with; None where the user said each pass.
        choice: what was chosen for the user and why, in words; empty where nothing was.
        chosen: the same to be made again.
    """

    image: Tensor
    last: Filled | None
    passes: int
    guidance: Pass | Series | None
    choice: str = ""
    chosen: Chosen | None = None


def run(
    given: Observed, estimate: Tensor, fillers: Sequence[Pass], how: How, guidance: Pass | Series | None = None
) -> Run:
    """Make passes, one after the other."""
    last: Filled | None = None
    results = passes_by(how, given, fillers, estimate)
    bar = tqdm(results, total=len(fillers), disable=not how.progress, desc="passes", unit="pass")
    for filler, filled in zip(fillers, bar, strict=True):
        estimate = filled.image
        # The others solve nothing whose quality could be told.
        last = last if isinstance(filler, Refiner) else filled
    return Run(estimate, last, len(fillers), guidance)


def by_holes(
    given: Observed,
    estimate: Tensor,
    periodic: Periodic,
    word: str | Chosen,
    candidates: Sequence[Pass | Series],
    how: How,
) -> Run:
    """Fill thin holes by passes, then thick ones from patches.

    Args:
        given: one image.
        estimate: the first one, [channels, *size].
        periodic: gives the first estimate of a part of the image; its ridge tells of noise.
        word: one of ``WORDS``, or what was chosen before.
        candidates: what the user gives to choose from, for all holes; empty for the usual choice.
        how: of the passes.
    """
    observed = given.single_mask
    # What samples are drawn of is a regression.
    by_thickness = given.ndim == 2 and not candidates and how.draws is None
    if isinstance(word, Chosen):
        by_thickness = word.thick
    holes = thick(observed) if by_thickness else torch.zeros_like(observed)
    chosen = Chosen(0, None, bool(holes.any()))
    thin_only = _knowing(given, estimate, holes)
    if thin_only.complete:
        thin = Run(estimate, None, 0, None)
    else:
        passes, guidance, why = _choose(thin_only, periodic, word, candidates, how)
        thin = run(thin_only, estimate, [of_pass(guidance, k) for k in range(passes)], how, guidance)
        thin = replace(thin, choice=f"{passes_in_words(guidance, passes)}, {why}")
        chosen = replace(chosen, passes=passes, guidance=guidance)
    thin = replace(thin, chosen=chosen)
    if not bool(holes.any()):
        return replace(thin, image=given.restore(thin.image)[0])
    if crowded(observed, holes) or (isinstance(word, Chosen) and word.patches is None):
        # Patches would be copies of copies, and take minutes.
        left = "the first fill alone in thick holes, as there are more pixels in them than known ones"
        choice = f"{thin.choice}, in thin holes; by {left}" if thin.choice else left
        return replace(thin, image=given.restore(thin.image)[0], choice=choice)
    thick_only = _knowing(given, thin.image, ~observed & ~holes)
    patches, look = _patches(thick_only, observed, periodic, word, how)
    filled = fill_by(how, thick_only, patches, thin.image).image
    count = int(holes.sum())
    by = f"patches from elsewhere, {look}"
    if thin.choice:
        choice = f"{thin.choice}, in thin holes; by {by}, in {count:,} pixels of holes more than {THIN} pixels across"
    else:
        choice = f"{by}, as holes are more than {THIN} pixels across"
    image = given.restore(filled)[0]
    guidance = patches if thin.guidance is None else thin.guidance
    return Run(image, thin.last, thin.passes + 1, guidance, choice, replace(chosen, patches=patches))


def crowded(observed: Tensor, holes: Tensor) -> bool:
    """Whether there are too few known pixels to fill thick holes from patches of them: fewer than in the holes."""
    return int(holes.sum()) > int(observed.sum())


def _patches(
    given: Observed, observed: Tensor, periodic: Periodic, word: str | Chosen, how: How
) -> tuple[PatchFill, str]:
    """What fills thick holes, and how that looks, in words.

    Args:
        given: one image, of which nothing else is missing.
        observed: which of its pixels are not only taken as known.
        periodic: see ``by_holes``.
        word: likewise.
        how: likewise.
    """
    if isinstance(word, Chosen):
        assert word.patches is not None
        return word.patches, "as before"
    if word == "sharp":
        return PatchFill(blend=1.0), "to look sharp"
    if word == "quick":
        return PatchFill(), "blended with the first fill for the least error"
    share, why = choose_blend(given, observed, _first(periodic), progress=how.progress, mesh=how.mesh)
    look = "unblended" if share == 1 else f"blended with the first fill at {share:g}"
    return PatchFill(blend=share), f"{look} ({why})"


def _first(periodic: Periodic) -> Callable[[Observed], Tensor]:
    """The first estimate of a part of the image."""
    return lambda part: fill(part, periodic.serving(part)).image


def _knowing(given: Observed, estimate: Tensor, more: Tensor) -> Observed:
    """The same with more pixels taken as known, from an estimate."""
    if not bool(more.any()):
        return given
    pixels = torch.where(more, estimate.reshape(given.pixels.shape).to(given.pixels.dtype), given.pixels)
    return replace(given, pixels=pixels, mask=given.mask | more)


def _choose(
    given: Observed, periodic: Periodic, word: str | Chosen, candidates: Sequence[Pass | Series], how: How
) -> tuple[int, Pass | Series, str]:
    """Number of passes, what they are made with, and why."""
    if isinstance(word, Chosen):
        return word.passes, word.guidance or guided_series(given.single_mask)[0], "as before"
    series = tuple(candidates or guided_series(given.single_mask))
    if how.draws is not None:
        # Samples are of a regression of the whole image.
        series = tuple(one for one in series if not isinstance(of_pass(one, 0), Coarse | Refiner))
    ridge = periodic.ridge if isinstance(periodic.ridge, float) else 0.0
    share = float(given.single_mask.double().mean())
    flows = () if candidates or how.draws is not None else flows_for(share, ridge, given.ndim)
    usual, guidance = _usual(given, series[0], flows)
    if word == "quick":
        return usual, guidance, "as is usual without trials"
    missing = int((~given.single_mask).sum())
    if missing < _FEW[given.ndim] and not candidates:
        return usual, guidance, f"as there are too few missing pixels ({missing:,}) to try others out"
    if not parts_left_out(given.single_mask, has_holes(given.single_mask)):
        return 0, series[0], "as too few pixels are known to leave some out and try passes on them"
    passes, guidance = choose_passes(given, _first(periodic), series, flows, progress=how.progress, mesh=how.mesh)
    why = "as they predicted left-out pixels best" if passes else "as no passes predicted left-out pixels better"
    return passes, guidance, why


def _usual(given: Observed, series: Pass | Series, flows: Sequence[GroupFlow]) -> tuple[int, Pass | Series]:
    """Number of passes without trials, and what they are made with.

    Args:
        given: one image.
        series: of guided passes.
        flows: of ``flows_for``; empty where none may follow.
    """
    if has_holes(given.single_mask):
        return _QUICK_IN_HOLES, series
    missing = float((~given.single_mask).double().mean())
    if given.ndim != 2 or missing < _SCATTERED or not flows or any(flow.noise for flow in flows):
        return _QUICK, series
    flow = replace(flows[0], iterations=_QUICK_ITERATIONS)
    return _QUICK_BEFORE_FLOW + 1, Followed(series, _QUICK_BEFORE_FLOW, flow)


def passes_in_words(guidance: Pass | Series | None, passes: int) -> str:
    """Passes in words, such as "3 guided passes of radius 10 and a group flow"."""
    if passes == 0:
        return "the first fill alone"
    if isinstance(guidance, PatchFill):
        return f"patches from elsewhere in holes of more than {THIN} pixels across, and the first fill in thinner ones"
    settings, count = (guidance, passes) if guidance is None else before_flow(guidance, passes)
    kind = "guided " if isinstance(settings, Guidance) else ""
    radius = f" of radius {settings.radius}" if isinstance(settings, Guidance) else ""
    before = [f"{count} {kind}pass{'es' if count > 1 else ''}{radius}"] if count else []
    if not isinstance(guidance, Followed):
        return " and ".join(before)
    mean = "" if guidance.last is None else ", averaged with one more pass"
    return " and ".join([*before, "a group flow"]) + mean
