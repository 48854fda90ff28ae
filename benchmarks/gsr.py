"""Group sparse representation, as others would fill an image: after Zhang, Zhao and Gao, Group-based sparse
representation for image restoration, IEEE Transactions on Image Processing 23, 2014.

Groups of 60 patches of 8 x 8 pixels, the nearest ones within 20 pixels of each reference patch (every fourth pixel);
the singular values of a group below sqrt(2 tau) vanish, tau = lambda K / (mu N), where the authors' program has
K / N = 240; around that a split Bregman iteration with mu = .0025 and lambda = .082, for values from 0 to 255. Written
from the paper; the search for groups is ours. It departs from the paper in two ways, for speed: groups are searched
again every tenth iteration instead of each one, and there are 60 iterations, after which images change little.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.interpolate import griddata
from torch import Tensor

from torch_cntk.images.groups import groups

_SIDE, _STEP, _REACH, _MEMBERS = 8, 4, 20, 60
_MU, _LAMBDA, _FACTOR = 0.0025, 0.082, 240
_ITERATIONS, _SEARCH = 60, 10
_AT_ONCE = 1024
"""Groups whose patches are held together."""


def gsr(image: Tensor, observed: Tensor, iterations: int = _ITERATIONS) -> Tensor:
    """Fill an image [channels, H, W] of values in [0, 1], each channel by itself.

    Args:
        image: what it holds at unobserved pixels does not matter.
        observed: boolean [H, W], True = known.
        iterations: of split Bregman.

    Returns:
        of the same shape; observed pixels are kept.

    Raises:
        ValueError: the image is smaller than a patch.
    """
    if min(image.shape[1:]) < _SIDE:
        raise ValueError(f"expected an image of at least {_SIDE} x {_SIDE} pixels, got {tuple(image.shape[1:])}")
    channels = [_channel(channel * 255, observed, iterations) / 255 for channel in image.float()]
    return torch.where(observed, image, torch.stack(channels).to(image.dtype))


def _channel(values: Tensor, observed: Tensor, iterations: int) -> Tensor:
    """Split Bregman for 1/2 |M u - y|^2 + mu / 2 |u - x - b|^2, x sparse in groups, M the mask."""
    threshold = (2 * _LAMBDA * _FACTOR / _MU) ** 0.5
    estimate, back = _interpolated(values, observed), torch.zeros_like(values)
    members = torch.empty(0)
    for iteration in range(iterations):
        if iteration % _SEARCH == 0:
            members = groups(estimate[None], (_SIDE, _SIDE), _STEP, _REACH, _MEMBERS)
        sparse = _sparse(estimate - back, members, threshold)
        both = sparse + back
        estimate = torch.where(observed, (values + _MU * both) / (1 + _MU), both)
        back = back - (estimate - sparse)
    return estimate


def _interpolated(values: Tensor, observed: Tensor) -> Tensor:
    """Linear between observed pixels, the nearest one beyond them."""
    places, wanted = observed.nonzero().numpy(), np.indices(tuple(observed.shape)).reshape(2, -1).T
    known = values[observed].numpy()
    found = griddata(places, known, wanted, "nearest")
    if len(np.unique(places, axis=0)) > 3 and (np.ptp(places, axis=0) > 0).all():
        linear = griddata(places, known, wanted, "linear")
        found = np.where(np.isnan(linear), found, linear)
    return torch.from_numpy(found).to(values).reshape(values.shape)


def _sparse(values: Tensor, members: Tensor, threshold: float) -> Tensor:
    """Groups without their small singular values, and the mean where patches overlap."""
    width = values.shape[1]
    cell = (torch.arange(_SIDE)[:, None] * width + torch.arange(_SIDE)).flatten()
    total, count = torch.zeros(values.numel()), torch.zeros(values.numel())
    for part in torch.split(members, _AT_ONCE):
        place = part[:, :, None] + cell
        patches = values.flatten()[place]
        squares, vectors = torch.linalg.eigh(patches @ patches.mT)
        kept = vectors * (squares > threshold**2)[:, None]
        thinned = kept @ vectors.mT @ patches
        total.index_add_(0, place.flatten(), thinned.flatten())
        count.index_add_(0, place.flatten(), torch.ones(place.numel()))
    return (total / count).reshape(values.shape)
