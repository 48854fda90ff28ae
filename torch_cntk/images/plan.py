"""Which passes follow the first regression: what the user says, and what ``passes="auto"`` makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk.images.automatic import WORDS, Run, by_holes, run
from torch_cntk.images.chosen import Chosen
from torch_cntk.images.fill import check_regression, fill_by
from torch_cntk.images.filler import Filler, Pass, Refiner, Series, check_filler, of_pass
from torch_cntk.images.guided import Guidance
from torch_cntk.images.how import How
from torch_cntk.images.observed import Observed
from torch_cntk.images.periodic import Periodic

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """Which passes follow the first regression.

    Attributes:
        fillers: one a pass; None where ``passes`` and ``guidance`` say them.
        passes: their number, one of ``WORDS``, or what was chosen before.
        guidance: what to choose from; empty for the usual settings.
    """

    fillers: tuple[Pass, ...] | None
    passes: int | str | Chosen
    guidance: tuple[Pass | Series, ...]

    @classmethod
    def of(cls, passes: object, guidance: object, *, sampled: bool = False) -> Plan:
        """Check what the user gave.

        Args:
            passes: of ``inpaint``.
            guidance: likewise.
            sampled: whether images are to be drawn of what the last pass leaves open.

        Raises:
            TypeError: the passes are no number, word or fillers, or the guidance is none.
            ValueError: there is no such word, the number is negative, a list is empty, or guidance comes with fillers
                or with a word that has no choice.
        """
        if isinstance(passes, str) and passes not in WORDS:
            words = ", ".join(f'"{word}"' for word in WORDS)
            raise ValueError(
                f"expected passes to be a number, a filler such as tc.images.PatchFill(), or one of {words}, "
                f"got {passes!r}"
            )
        if isinstance(passes, list | tuple) and any(isinstance(one, Chosen) for one in passes):
            if len(passes) > 1:
                raise ValueError(
                    f"expected one of result.chosen, such as passes=result.chosen[0], got {len(passes)} of them: "
                    "images whose passes were chosen one by one are filled again one by one"
                )
            (passes,) = passes
        if isinstance(passes, Chosen):
            if guidance is not None or sampled:
                raise ValueError(
                    "expected neither guidance nor samples beside passes that were chosen before, got some"
                )
            return cls(None, passes, ())
        if isinstance(passes, Filler | Refiner | Series | Sequence) and not isinstance(passes, str):
            if guidance is not None:
                raise ValueError("expected no guidance beside passes that are fillers themselves, got both")
            fillers = _fillers(passes, "passes")
            made = tuple(of_pass(filler, k) for k, filler in enumerate(fillers))
            if sampled:
                check_regression(made[-1])
            return cls(made, len(fillers), ())
        choice = () if guidance is None else _fillers(guidance, "guidance")
        for one in choice if sampled and passes != 0 else ():
            check_regression(of_pass(one, 0))
        if isinstance(passes, str):
            if choice and passes != "auto":
                raise ValueError(f'expected passes="auto" or a number beside guidance, got passes={passes!r}')
            return cls(None, passes, choice)
        if len(choice) > 1:
            raise ValueError(f'expected passes="auto" to choose from {len(choice)} kinds of guidance, got {passes}')
        return cls(None, 0 if passes == 0 else positive_int(passes, "passes"), choice)

    @property
    def none(self) -> bool:
        """Whether there are no passes."""
        return self.passes == 0

    def run(self, given: Observed, estimate: Tensor, periodic: Periodic, how: How) -> Run:
        """Make the passes on one image, from the first estimate [channels, *size]."""
        made = self._run(given, estimate, periodic, how)
        if how.draws is None or made.passes:
            return made
        return replace(made, last=fill_by(how, given, periodic))

    def _run(self, given: Observed, estimate: Tensor, periodic: Periodic, how: How) -> Run:
        if self.fillers is not None:
            return run(given, estimate, self.fillers, how)
        if isinstance(self.passes, str | Chosen):
            return by_holes(given, estimate, periodic, self.passes, self.guidance, how)
        usual = Guidance.for_share(float(given.single_mask.double().mean()), given.ndim)
        guidance = self.guidance[0] if self.guidance else usual
        return run(given, estimate, [of_pass(guidance, k) for k in range(self.passes)], how, guidance)


def _fillers(value: object, name: str) -> tuple[Pass | Series, ...]:
    """One filler or several, as a tuple.

    Raises:
        TypeError: one of them is none.
        ValueError: there are none.
    """
    fillers = tuple(value) if isinstance(value, Sequence) else (value,)
    for filler in fillers:
        check_filler(filler, f"{name} as a Guidance or another filler")
    if not fillers:
        raise ValueError(f"expected at least one filler in {name}, got none")
    return fillers
