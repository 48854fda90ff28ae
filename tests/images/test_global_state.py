"""Filling images, and what else needs networks only for their kernels, leaves torch's global generator alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import torch_cntk as tc
from torch_cntk.images.autocorrelation import Autocorrelated, autocorrelation_network
from torch_cntk.images.default import default_kernel
from torch_cntk.images.guided import Guided, guided_network

DRAW = torch.Generator().manual_seed(0)
IMAGE, MASK = torch.rand(2, 12, 12, generator=DRAW), torch.rand(12, 12, generator=DRAW) < 0.6
VIDEO, FRAMES = torch.rand(1, 4, 8, 8, generator=DRAW), torch.rand(4, 8, 8, generator=DRAW) < 0.6
TABLE, FEATURES = torch.rand(4, 6, generator=DRAW).double(), torch.rand(6, 3, generator=DRAW).double()
TORCHS = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), torch.nn.ReLU())
CALLS: dict[str, Callable[[], object]] = {
    "image": lambda: tc.inpaint(IMAGE, MASK),
    "signal": lambda: tc.inpaint(IMAGE[:, 0], MASK[0]),
    "video": lambda: tc.inpaint(VIDEO, FRAMES),
    "guided": lambda: tc.inpaint(IMAGE, MASK, passes=2),
    "guided, chosen": lambda: tc.inpaint(IMAGE, MASK, passes="auto"),
    "autocorrelated": lambda: tc.inpaint(IMAGE, MASK, passes=[Autocorrelated()]),
    "default kernel": lambda: default_kernel(MASK[0], 1),
    "matrix": lambda: tc.MatrixCompletion().fit(TABLE, features=FEATURES).predict(FEATURES),
    "matrix with rows": lambda: tc.MatrixCompletion(2, "gelu").fit(TABLE, features=FEATURES, row_features=TABLE),
    "matrix, left out": lambda: tc.MatrixCompletion(ridge="cv").fit(TABLE, features=FEATURES).left_out(),
    "from torch": lambda: tc.from_torch(TORCHS),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_global_generator_is_not_moved(name: Any) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    CALLS[name]()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("blank", "drawn"),
    [(Guided(), Guided(network=guided_network())), (Autocorrelated(), Autocorrelated(autocorrelation_network()))],
    ids=["guided", "autocorrelated"],
)
def test_a_network_without_weights_fills_as_one_with_them(blank: Any, drawn: Any) -> None:
    assert torch.equal(tc.inpaint(IMAGE, MASK, passes=[blank]).image, tc.inpaint(IMAGE, MASK, passes=[drawn]).image)
