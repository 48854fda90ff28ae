"""The kernel between images against neural-tangents' arrays: batches, paddings, pools and heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc


def conv(channels: int, padding: str = "circular", **options: Any) -> tc.Conv2d:
    """What neural-tangents calls "SAME" is "zeros" here. After ReLU its W_std of sqrt(2) is the gain of ours."""
    if padding == "valid":
        return tc.Conv2d(channels, 4, 3, padding=0, **options)
    return tc.Conv2d(channels, 4, 3, padding_mode=padding, **options)  # type: ignore[arg-type]


def bias(std: float) -> dict[str, Any]:
    return {"bias": True, "bias_std": std}


NETWORKS: dict[str, list[tc.Layer]] = {
    "H_circular_pool": [
        *(conv(3), tc.ReLU(), conv(4, **bias(0.3)), tc.ReLU()),
        *(tc.GlobalAvgPool(), tc.Linear(4, 1)),
    ],
    "H_same_flatten": [
        *(conv(3, "zeros"), tc.ReLU(), conv(4, "zeros"), tc.ReLU(), tc.Flatten()),
        *(tc.Linear(4 * 48, 4), tc.ReLU(), tc.Linear(4, 1, **bias(0.2))),
    ],
    "H_valid_avgpool": [
        *(conv(3, "valid", **bias(0.5)), tc.ReLU(), tc.AvgPool2d(2), conv(4, "zeros"), tc.ReLU()),
        *(tc.GlobalAvgPool(), tc.Linear(4, 1)),
    ],
    "H_strided_residual": [
        tc.StridedConv2d(3, 4, 3),
        tc.Sum(tc.Identity(), tc.Sequential(tc.ReLU(), conv(4))),
        *(tc.ReLU(), tc.GlobalAvgPool(), tc.Linear(4, 1)),
    ],
    "H_sumpool_flatten": [
        *(conv(3), tc.Erf(normalise=False), tc.SumPool2d(2), conv(4), tc.Erf(normalise=False)),
        *(tc.Flatten(), tc.Linear(4 * 12, 1)),
    ],
    "H_pool_dense": [
        *(conv(3, "zeros"), tc.ReLU(), tc.GlobalAvgPool()),
        *(tc.Linear(4, 4, **bias(0.1)), tc.ReLU(), tc.Linear(4, 1)),
    ],
}


def test_no_oracle_is_left_out(oracles: Path) -> None:
    assert {path.stem for path in oracles.glob("H_*.npz")} == set(NETWORKS)


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", NETWORKS)
def test_gram_equals_neural_tangents(name: str, kind: Any, oracles: Path) -> None:
    with np.load(oracles / f"{name}.npz") as file:
        x1, x2, expected = (torch.from_numpy(file[key]) for key in ("x1", "x2", kind))
    if "strided" in name:
        # Its circular padding centres output o on input 2o + 1.
        x1, x2 = (x.roll((-1, -1), (2, 3)) for x in (x1, x2))
    found = tc.Sequential(*NETWORKS[name]).gram(x1, x2, kind=kind)
    assert found.shape == expected.shape == (3, 2)
    # float64 on both sides, and its arccos.
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
