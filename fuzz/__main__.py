"""``python -m fuzz``: random calls until the time is over; exit status 1 if there was a finding."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections import Counter
from collections.abc import Sequence

# One thread: the inputs are small, and the machine may have other work. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fuzz import work
from fuzz.targets import TARGETS

_SHOWN = 20
"""Findings that are shown; more of them are counted."""
_LETTERS = 2000
"""Of a finding's input and detail that are shown."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the programme.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        0, or 1 if there was a finding.
    """
    arguments = _parser().parse_args(argv)
    seed = secrets.randbelow(2**31) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    names = list(TARGETS) if arguments.target is None else [arguments.target]
    if arguments.only is not None:
        return _report({names[0]: work.once(names[0], seed, arguments.only)}, seed)
    tallies = {}
    for name in names:
        share = 60 * arguments.minutes / len(names) if arguments.calls is None else 1e9
        tallies[name] = work.watched(name, seed, seconds=share, calls=arguments.calls)
        print(f"{name}: {_line(tallies[name])}", flush=True)
    return _report(tallies, seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Random calls of everything that users call.")
    parser.add_argument("--minutes", type=float, default=5.0, help="in all, of all targets (default: %(default)g)")
    parser.add_argument("--calls", type=int, help="of each target, instead of a time")
    parser.add_argument("--target", choices=tuple(TARGETS), help="this one alone")
    parser.add_argument("--seed", type=int, help="of all calls (default: a new one, which is told)")
    parser.add_argument("--only", type=int, metavar="K", help="make the call of this number again; give --target, too")
    return parser


def _line(tally: work.Tally) -> str:
    counts = ", ".join(f"{count} {kind}" for kind, count in tally.counts.most_common())
    return f"{tally.calls} calls in {tally.seconds:.0f} s: {counts or 'none'}"


def _report(tallies: dict[str, work.Tally], seed: int) -> int:
    """Show the findings, and how to have each of them again."""
    findings = [(name, finding) for name, tally in tallies.items() for finding in tally.findings]
    for name, finding in findings[:_SHOWN]:
        print(f"\n{finding.outcome.kind}: {finding.outcome.detail[:_LETTERS]}\n{finding.case[:_LETTERS]}")
        print(f"again: python -m fuzz --target {name} --seed {seed} --only {finding.number}")
    total: Counter[str] = sum((tally.counts for tally in tallies.values()), Counter())
    counts = ", ".join(f"{count} {kind}" for kind, count in total.most_common())
    print(f"\n{total.total()} calls: {counts}; {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
