"""Patches of one picture: those that are known, those that are not, and how these are predicted from those."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

__all__ = ["Level"]

_DOUBTFUL = (0.6, 0.8)
"""Certainty of a pixel that lies one pixel deeper in the hole, in the first half of the rounds and afterwards."""
_VOTE = 0.8
"""The same, when patches are averaged."""
_DRAWN = 0.1
"""Ridge that draws fitted shares to those of the kernel, relative to the matches' mean squared distance."""
_ALL_PAIRS = 3e9
"""Multiplications up to which each patch is compared with all that are known: about a second."""
_NUMBERS_AT_ONCE = 2**20
"""Of patches that are compared with some others, or averaged: they stay in the processor's cache."""
_AT_ONCE = 2**24
"""Numbers that are held at once."""
_NEAR = 8
"""Pixels around the best match that are tried at random."""


class Level:
    """A picture at one scale.

    Args:
        features: [channels, H, W]: values and textures, an estimate of them where not known.
        known: boolean [H, W].
        side: of a patch.
        neighbours: that each patch is predicted from.
        factor: by which the picture is smaller than the whole one.

    Attributes:
        filled: the features, filled.
        targets: numbers of the patches' corners that are not wholly known.
        sources: of those that are.
        matches: [targets, neighbours], the sources that are most like each target; empty before ``match``.
    """

    def __init__(self, features: Tensor, known: Tensor, side: int, neighbours: int, factor: int) -> None:
        self.factor = factor
        self._side, self._neighbours = side, neighbours
        self._features, self._known = features, known
        self._feature_rows = self._rows(features)
        self.filled = features
        height, width = known.shape
        self.rows, self.columns = height - side + 1, width - side + 1
        whole = torch.nn.functional.max_pool2d((~known)[None].float(), side, 1)[0] == 0
        self._is_source = whole.flatten()
        self.sources = self._is_source.nonzero()[:, 0]
        self.targets = (~self._is_source).nonzero()[:, 0]
        self._number = torch.full((self.rows * self.columns,), -1, device=known.device)
        self._number[self.targets] = torch.arange(len(self.targets), device=known.device)
        offsets = torch.arange(side, device=known.device)
        self._cell = (offsets[:, None] * width + offsets).flatten()
        depth = scipy.ndimage.distance_transform_edt(~known.cpu().numpy())
        self._depth = torch.from_numpy(depth).float().to(known.device)
        self.matches = torch.zeros(len(self.targets), 0, dtype=torch.int64, device=known.device)

    def _place(self, corners: Tensor) -> Tensor:
        """Numbers of the pixels of patches, [..., side^2]."""
        width = self._known.shape[1]
        return (corners // self.columns * width + corners % self.columns)[..., None] + self._cell

    def _rows(self, images: Tensor) -> Tensor:
        """The row of a patch that begins at each pixel, together in the memory, [pixels, side * channels]."""
        channels = len(images)
        pixels = images.flatten(1).mT.contiguous().flatten()
        return pixels.as_strided((len(pixels) // channels - self._side + 1, self._side * channels), (channels, 1))

    def _patches(self, rows: Tensor, corners: Tensor) -> Tensor:
        """[*corners, side^2 * channels], of what ``_rows`` gives."""
        width = self._known.shape[1]
        first = (corners // self.columns * width + corners % self.columns)[..., None] + self._cell[:: self._side]
        return rows.index_select(0, first.flatten()).view(*corners.shape, -1)

    def _certainty(self, base: float) -> Tensor:
        """Of each pixel, [H, W]: 1 where it is known."""
        return torch.where(self._known, 1.0, base**self._depth)

    def match(
        self,
        coarser: Level | None,
        rounds: int,
        sharpness: float,
        generator: torch.Generator,
        done: Callable[[], object] = lambda: None,
    ) -> None:
        """Fill the targets, in rounds of looking for what is like them and averaging it.

        Args:
            coarser: the next smaller picture, done; None if this is the smallest.
            rounds: how many.
            sharpness: power s of the kernel D^-s.
            generator: of random places.
            done: is called after each round.
        """
        if coarser is not None:
            self.matches = self._from(coarser, generator)
            self._average(torch.ones(len(self.targets), 1), self.matches[:, :1], 1.0)
        numbers = self._cell.numel() * len(self._features)
        exhaustive = len(self.targets) * len(self.sources) * numbers < _ALL_PAIRS
        thorough = max(rounds // 2, 1) if coarser is None else 1
        for number in range(rounds):
            certainty = self._certainty(_DOUBTFUL[0 if coarser is None and number < rounds // 2 else 1])
            weights = self._patches(self._rows(certainty.expand(len(self._features), -1, -1)), self.targets)
            weights = weights / weights.sum(1, keepdim=True)
            if self.matches.shape[1] == 0 or (exhaustive and number < thorough):
                distances = self._compare_all(weights)
            else:
                distances = self._compare_some(weights, generator)
            self._average(distances, self.matches, sharpness, weights)
            done()

    def _compare_all(self, weights: Tensor) -> Tensor:
        """Distances of the sources that are most like each target, which become ``matches``."""
        known, filled = self._patches(self._feature_rows, self.sources), self._rows(self.filled)
        squares = known.square()
        distances, matches = [], []
        many = max(_AT_ONCE // len(self.sources), 1)
        for part, weight in zip(torch.split(self.targets, many), torch.split(weights, many), strict=True):
            here = self._patches(filled, part)
            weighted = weight * here
            distance = (weighted * here).sum(1, keepdim=True) - 2 * weighted @ known.T + weight @ squares.T
            found = distance.topk(min(self._neighbours, len(self.sources)), 1, largest=False)
            distances.append(found.values.clamp_min(0))
            matches.append(self.sources[found.indices])
        self.matches = torch.cat(matches)
        return torch.cat(distances)

    def _compare_some(self, weights: Tensor, generator: torch.Generator) -> Tensor:
        """As ``_compare_all``, among the matches, those of patches beside, moved, and some random places."""
        candidates = self._candidates(generator)
        many = max(_NUMBERS_AT_ONCE // (candidates.shape[1] * weights.shape[1]), 1)
        parts = zip(
            torch.split(self.targets, many), torch.split(weights, many), torch.split(candidates, many), strict=True
        )
        found_distances, filled = [], self._rows(self.filled)
        for part, weight, some in parts:
            squares = (self._patches(self._feature_rows, some) - self._patches(filled, part)[:, None]).square_()
            found_distances.append(torch.einsum("nq,nkq->nk", weight, squares))
        distances = torch.cat(found_distances)
        # The same place counts once.
        distances[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = torch.inf
        found = distances.topk(min(self._neighbours, self.matches.shape[1]), 1, largest=False)
        self.matches = candidates.gather(1, found.indices)
        return torch.where(found.values.isfinite(), found.values, found.values[:, :1])

    def _candidates(self, generator: torch.Generator) -> Tensor:
        """Corners of sources to compare each target with, in ascending order."""
        row, column = self.targets // self.columns, self.targets % self.columns
        best = self.matches[:, :1]
        candidates = [self.matches]
        for step in (1, 4):
            for down, right in ((0, step), (step, 0), (0, -step), (-step, 0)):
                inside = self._inside(row + down, column + right)
                number = self._number[self._corner(row + down, column + right)]
                matches = self.matches[number.clamp_min(0), :2]
                at, across = matches // self.columns - down, matches % self.columns - right
                usable = (inside & (number >= 0))[:, None] & self._inside(at, across)
                candidates.append(torch.where(usable, at * self.columns + across, best))
        for reach in (1, 1, _NEAR, max(self.rows, self.columns)):
            at, across = (
                start + torch.randint(-reach, reach + 1, start.shape, generator=generator).to(start.device)
                for start in (best // self.columns, best % self.columns)
            )
            candidates.append(self._corner(at, across))
        together = torch.cat(candidates, 1)
        return torch.where(self._is_source[together], together, best).sort(1).values

    def _corner(self, row: Tensor, column: Tensor) -> Tensor:
        """The number of a corner, or of the nearest one in the picture."""
        return row.clamp(0, self.rows - 1) * self.columns + column.clamp(0, self.columns - 1)

    def _inside(self, row: Tensor, column: Tensor) -> Tensor:
        return (row >= 0) & (row < self.rows) & (column >= 0) & (column < self.columns)

    def _average(self, distances: Tensor, matches: Tensor, sharpness: float, weights: Tensor | None = None) -> None:
        """Predict each target from its matches, and average where they overlap.

        Args:
            distances: of the matches, [targets, matches].
            matches: corners of sources, likewise.
            sharpness: power s of the kernel D^-s.
            weights: of the numbers of each target, by which shares of matches are fitted; None leaves the kernel's.
        """
        distances = distances.to(self._features)
        own = (distances + 1e-6) ** -sharpness
        own = own / own.sum(1, keepdim=True)
        distance = (own * distances).sum(1)
        usual = distance.quantile(0.75) if len(distance) < 2**24 else distance.median()
        trust = self._patches(self._rows(self._certainty(_VOTE)[None]), self.targets).mean(1)
        # Never nothing: a pixel that no patch is trusted for would be black.
        trust = trust * torch.exp(-distance / (2 * usual + 1e-8)).clamp_min(1e-6)
        channels, pixels = len(self._features), self._known.numel()
        total = torch.zeros(pixels, channels, device=own.device)
        weight = torch.zeros(pixels, device=own.device)
        many = max(_NUMBERS_AT_ONCE // (matches.shape[1] * channels * self._cell.numel()), 1)
        parts = (torch.split(tensor, many) for tensor in (self.targets, matches, own, trust))
        filled = self._rows(self.filled)
        fitted_by = [None] * -(-len(own) // many) if weights is None else torch.split(weights, many)
        for targets, match, share, counts, fitted in zip(*parts, fitted_by, strict=True):
            found = self._patches(self._feature_rows, match)
            if fitted is not None:
                share = _fitted_shares(found, self._patches(filled, targets), fitted, share)
            predicted = torch.einsum("nk,nkq->nq", share, found) * counts[:, None]
            place = self._place(targets)
            total.index_add_(0, place.flatten(), predicted.reshape(-1, channels))
            weight.index_add_(0, place.flatten(), counts[:, None].expand(place.shape).flatten())
        averaged = (total / weight.clamp_min(1e-12)[:, None]).mT.reshape(self._features.shape)
        self.filled = torch.where(self._known, self._features, averaged)

    def _from(self, coarser: Level, generator: torch.Generator) -> Tensor:
        """The matches of the next smaller picture, moved to this one."""
        ratio = coarser.factor // self.factor
        row, column = self.targets // self.columns, self.targets % self.columns
        above = (row // ratio).clamp_max(coarser.rows - 1) * coarser.columns
        above = above + (column // ratio).clamp_max(coarser.columns - 1)
        nearest = coarser._nearest_target()[above]
        source = coarser.matches[coarser._number[nearest]]
        at = row[:, None] + ratio * (source // coarser.columns - (nearest // coarser.columns)[:, None])
        across = column[:, None] + ratio * (source % coarser.columns - (nearest % coarser.columns)[:, None])
        moved = self._corner(at, across)
        known = self._is_source[moved]
        drawn = torch.randint(len(self.sources), (len(row),), generator=generator).to(row.device)
        usable = moved.gather(1, known.float().argmax(1, keepdim=True))[:, 0]
        first = torch.where(known.any(1), usable, self.sources[drawn])
        return torch.where(known, moved, first[:, None])

    def _nearest_target(self) -> Tensor:
        """Of each corner, the corner of the nearest target."""
        is_source = self._is_source.reshape(self.rows, self.columns).cpu().numpy()
        _, nearest = scipy.ndimage.distance_transform_edt(is_source, return_indices=True)
        return torch.from_numpy(np.asarray(nearest[0] * self.columns + nearest[1])).flatten().to(self.targets)


def _fitted_shares(found: Tensor, wanted: Tensor, weights: Tensor, usual: Tensor) -> Tensor:
    """Shares of which each patch is best made up: weighted least squares with a sum of 1, drawn to the usual ones.

    Args:
        found: the matches of each patch, [n, matches, numbers].
        wanted: the patches, [n, numbers].
        weights: of these numbers, likewise.
        usual: shares without a fit, [n, matches].
    """
    differences = (found - wanted[:, None]) * weights.sqrt()[:, None]
    products = differences @ differences.mT
    # Never nothing: matches may all be equal to the patch.
    drawn = _DRAWN * products.diagonal(dim1=1, dim2=2).mean(1)[:, None] + 1e-9
    equations = products + torch.diag_embed(drawn.expand_as(usual))
    solved = torch.linalg.solve(equations, torch.stack([drawn * usual, torch.ones_like(usual)], 2))
    shares, direction = solved.unbind(2)
    missing = 1 - shares.sum(1, keepdim=True)
    return torch.addcdiv(shares, direction * missing, direction.sum(1, keepdim=True))
