"""Images in half precision are trained on in single, and given back as they came."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc
from tests.helpers.training import PRIOR, mask, network, photograph

HALF = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_equals_single_but_for_the_last_rounding(dtype: Any) -> None:
    image, net, observed = photograph().to(dtype), network(), mask()
    result = tc.train(net, image, observed, prior=PRIOR, steps=5, truth=image)
    single = tc.train(net, image.float(), observed, prior=PRIOR, steps=5, truth=image.float())
    assert result.image.dtype == result.output.dtype == dtype
    assert torch.equal(result.image, single.image.to(dtype))
    assert torch.equal(result.image[:, observed], image[:, observed])
    assert torch.equal(result.losses, single.losses)


def test_an_array_comes_back_as_an_array() -> None:
    image, net, observed = photograph(), network(), mask()
    result = tc.train(net, image.numpy(), observed.numpy(), prior=PRIOR, steps=3)
    assert isinstance(result.image, np.ndarray)
    assert isinstance(result.output, np.ndarray)
    assert np.array_equal(result.image, tc.train(net, image, observed, prior=PRIOR, steps=3).image.numpy())


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match=r"expected an? .*floating point"):
        tc.train(network(), torch.zeros(2, 8, 12, dtype=torch.int64), mask(), prior=PRIOR)
