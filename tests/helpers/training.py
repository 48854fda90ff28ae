"""A small photograph, its mask, a network for it, and short trainings."""

from __future__ import annotations

from typing import Any

import torch

import torch_cntk as tc

PRIOR = tc.priors.Uniform(0, 1)


def photograph(channels: int = 2, size: tuple[int, int] = (8, 12)) -> torch.Tensor:
    rows, columns = torch.meshgrid(*(torch.linspace(0, 3, n) for n in size), indexing="ij")
    return torch.stack([0.5 + 0.3 * torch.sin(rows + k) * torch.cos(columns - k) for k in range(channels)])


def mask(size: tuple[int, int] = (8, 12)) -> torch.Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(7)) < 0.7


def network(channels: int = 2, dropout: float = 0.0) -> tc.Sequential:
    torch.manual_seed(3)
    net = tc.hourglass(1, 8, 2, channels=channels, in_channels=3)
    return tc.Sequential(*net.layers[:-1], tc.Dropout(dropout), net.layers[-1]) if dropout else net


def run(net: tc.Layer | None = None, **options: Any) -> tc.TrainingResult:
    return tc.train(net or network(), photograph(), mask(), prior=PRIOR, **{"steps": 12, **options})


def same(first: tc.TrainingResult, second: tc.TrainingResult) -> bool:
    states = [result.model.state_dict() for result in (first, second)]
    return (
        torch.equal(first.output, second.output)
        and torch.equal(first.losses, second.losses)
        and all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    )
