"""Lengths of axes against a loop over all of them, and channels of signals that are no draws of one process."""

from __future__ import annotations

import random

import pytest
import torch

from torch_cntk.covariance.lengths import Change, Length


def changes(chance: random.Random) -> Change:
    """One of those that layers make."""
    down = chance.choice((1, 1, 2, 3))
    if chance.random() < 0.2:
        return Change(chance.choice((1, down)), 0, down, whole=True)
    return Change(chance.choice((1, 1, 2, 3)), chance.randint(-4, 4), down)


def through(chain: list[Change], length: int) -> int | None:
    """One change after the other; None if one cannot be made."""
    for change in chain:
        if change.whole and length % change.down:
            return None
        length = (length * change.up + change.add) // change.down
        if length < 1:
            return None
    return length


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_lengths_and_their_inverse(depth: int, generator: torch.Generator) -> None:
    chance = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
    for _ in range(200):
        chain = [changes(chance) for _ in range(depth)]
        length = Length()
        for change in chain:
            length = length.then(change)
        known = {n: through(chain, n) for n in range(1, 120)}
        for n, expected in known.items():
            if expected is not None:
                assert length.of(n) == expected
                continue
            with pytest.raises(ValueError, match="expected"):
                length.of(n)
        reached = [value for value in known.values() if value is not None]
        for value in set(reached):
            most = length.most(value)
            if most < 100:
                # The largest that gives at most this; what gives exactly this is not beyond.
                assert max(n for n, found in known.items() if found == value) <= most
        granule = length.granule
        if granule is not None:
            for n in range(granule, 120, granule):
                assert known[n] is None or known[n] == n * length.scale


def test_a_length_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a multiple of 3 pixels, got 4"):
        Length().then(Change(1, 0, 3, whole=True)).of(4)
    with pytest.raises(ValueError, match="expected at least 3 pixels, got 2"):
        Length().then(Change(1, -2)).of(2)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_lengths_side_by_side(count: int, generator: torch.Generator) -> None:
    """Sums of lengths, and chains behind them."""
    chance = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
    for _ in range(50):
        chains = [[changes(chance) for _ in range(chance.randint(0, 2))] for _ in range(count)]
        behind = changes(chance)
        parts = []
        for chain in chains:
            part = Length()
            for change in chain:
                part = part.then(change)
            parts.append(part)
        length = Length(parts=tuple(parts)).then(behind)
        known: dict[int, int | None] = {}
        for n in range(1, 80):
            pieces = [through(chain, n) for chain in chains]
            total = None if None in pieces else sum(piece or 0 for piece in pieces)
            known[n] = None if total is None else through([behind], total)
            if known[n] is None:
                with pytest.raises(ValueError, match="expected"):
                    length.of(n)
            else:
                assert length.of(n) == known[n]
        for value in {value for value in known.values() if value is not None}:
            most = length.most(value)
            if most < 70:
                assert max(n for n, found in known.items() if found == value) <= most
        assert length.granule is None
