"""``to_torch`` takes the network's weights: none are drawn, and torch's generator stays."""

from __future__ import annotations

import pytest
import torch

import torch_cntk as tc

NETS = {
    "linear": lambda: tc.Sequential(tc.Linear(3, 4, bias=True), tc.ReLU(), tc.Linear(4, 2)),
    "convolution": lambda: tc.Sequential(tc.Conv2d(2, 3, 3, bias=True), tc.ReLU(), tc.StridedConv2d(3, 1, 3)),
    "norm": lambda: tc.Sequential(tc.Conv1d(2, 3, 3), tc.ChannelNorm(3, affine=True), tc.Conv1d(3, 1, 1)),
}


@pytest.mark.parametrize("name", NETS)
def test_no_random_number_is_drawn(name: str) -> None:
    net = NETS[name]()
    before = torch.get_rng_state()
    module = tc.to_torch(net)
    assert torch.equal(torch.get_rng_state(), before)
    given = torch.randn(2, net.in_channels or 1, *(8,) * (net.ndim or 0))
    assert torch.allclose(module(given), net(given), rtol=1e-5, atol=1e-6)
    assert all(parameter.requires_grad for parameter in module.parameters())
