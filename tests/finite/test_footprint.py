"""Memory is counted before it is allocated, and what torch cannot allocate is an OutOfMemoryError."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc
from tests.helpers.training import PRIOR, mask, network, photograph, run
from torch_cntk.finite.footprint import _without_numbers, saved_bytes
from torch_cntk.finite.model import Model
from torch_cntk.finite.options import Training


def test_failures_during_training_are_turned() -> None:
    def fail(step: object) -> None:
        torch.empty(1 << 50, dtype=torch.uint8)

    with pytest.raises(tc.OutOfMemoryError, match=r"the training of [\d,]+ weights on 96 pixels could not .* narrower"):
        run(callback=fail)


NETS = {
    "hourglass": lambda: tc.hourglass(2, 8, 2, channels=2, in_channels=3),
    "bilinear, bias": lambda: tc.hourglass(1, 8, 2, "bilinear", channels=2, in_channels=3, bias=True),
    "norm": lambda: tc.Sequential(tc.Conv2d(3, 8, 3), tc.ChannelNorm(8, affine=True), tc.Conv2d(8, 2, 3)),
    "dropout": lambda: network(dropout=0.2),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("options", [{}, {"batch_norm": True, "parameterisation": "standard"}], ids=["plain", "normed"])
def test_feature_maps_are_counted_without_being_computed(name: Any, options: Any) -> None:
    net, training = NETS[name](), Training(**options)
    counted = saved_bytes(_without_numbers(net, training), torch.empty(1, 3, 16, 24, device="meta"))
    # The independent way: what a real pass saves.
    found = saved_bytes(Model(net, training), torch.rand(1, 3, 16, 24))
    assert counted == found > 0
    assert not any(parameter.is_meta for parameter in net.parameters())


def limit(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("torch_cntk._internal.memory.available_bytes", lambda device="cpu": free)
    monkeypatch.setattr("torch_cntk._internal.memory._SMALL", 1)
    monkeypatch.setattr("torch_cntk.finite.footprint._WORTH_TRACING", 1)


def test_weights_that_would_not_fit_are_refused_before_they_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    weights = 4 * sum(parameter.numel() for parameter in net.parameters())
    monkeypatch.setattr("copy.deepcopy", lambda *arguments: pytest.fail("copied before it was counted"))
    # Adam holds the weights, two moments and, at its step, the gradients.
    limit(monkeypatch, 4 * weights - 1)
    with pytest.raises(tc.OutOfMemoryError, match=r"weights on 96 pixels needs .* are free; take a narrower network"):
        run(net)
    limit(monkeypatch, 2 * weights - 1)
    with pytest.raises(tc.OutOfMemoryError):
        run(net, optimiser=torch.optim.SGD)


OPTIMISERS = [(torch.optim.SGD, 1), (torch.optim.RMSprop, 2), (torch.optim.Adam, 3)]


@pytest.mark.parametrize(("optimiser", "copies"), OPTIMISERS)
def test_feature_maps_that_would_not_fit_are_refused(
    optimiser: Any, copies: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, image, observed = network(), photograph(2, (64, 96)), mask((64, 96))
    weights = 4 * sum(parameter.numel() for parameter in net.parameters())
    maps = saved_bytes(Model(net, Training()), torch.rand(1, 3, 64, 96))
    assert maps > weights
    options = {"prior": PRIOR, "steps": 1, "optimiser": optimiser, "lr": 1e-4}
    limit(monkeypatch, copies * weights + maps - 1)
    with pytest.raises(tc.OutOfMemoryError, match="weights on 6,144 pixels needs"):
        tc.train(net, image, observed, **options)
    limit(monkeypatch, copies * weights + maps)
    tc.train(net, image, observed, **options)


def test_a_layer_that_looks_at_its_numbers_is_not_counted_and_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looking(tc.Layer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if bool((x > 0).any()) else -x

        def propagate(self, covariance: Any) -> Any:
            return covariance

    limit(monkeypatch, 1 << 40)
    net = tc.Sequential(tc.Conv2d(3, 4, 3), Looking(), tc.Conv2d(4, 2, 1))
    assert len(run(net, steps=2).losses) == 2


def test_empirical_kernels_that_would_not_fit_are_refused() -> None:
    net = tc.Sequential(tc.Linear(2, 3), tc.ReLU(), tc.Linear(3, 1))
    with pytest.raises(tc.OutOfMemoryError, match=r"the empirical kernel of 3,000,000 inputs .* take fewer inputs"):
        tc.empirical_ntk(net, torch.zeros(1, 2).expand(3_000_000, 2))
    with pytest.raises(tc.OutOfMemoryError, match="with its standard error"):
        tc.finite.expected_kernel(net, torch.zeros(1, 2).expand(3_000_000, 2))
