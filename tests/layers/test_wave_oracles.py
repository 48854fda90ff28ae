"""Waves, bumps, the exponential and products of branches against neural-tangents' arrays."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc


def chain(layer: tc.Layer) -> tc.Sequential:
    return tc.Sequential(tc.Linear(3, 8), layer, tc.Linear(8, 8), layer, tc.Linear(8, 1))


def product() -> tc.Sequential:
    """Two ReLUs, each of which has the factor sqrt(2) that neural-tangents' has not: 4 times its kernel."""
    branches = tc.Sequential(tc.ReLU(), tc.Conv2d(8, 8, 3)), tc.Conv2d(8, 8, 1)
    return tc.Sequential(
        *(tc.Conv2d(2, 8, 3), tc.Product(*branches), tc.Conv2d(8, 8, 3), tc.ReLU()), tc.GlobalAvgPool(), tc.Linear(8, 1)
    )


NETWORKS: dict[str, tuple[tc.Layer, str, float]] = {
    "rbf": (chain(tc.RBF(0.6)), "rows", 1),
    "exp": (tc.Sequential(tc.Linear(3, 8, weight_std=0.5), tc.Exp(normalise=False), tc.Linear(8, 1)), "rows", 1),
    "gaussian": (chain(tc.Gaussian(normalise=False)), "rows", 1),
    "sin": (chain(tc.Sin(normalise=False, frequency=1.7, phase=0.4)), "rows", 1),
    "cos": (chain(tc.Sin(normalise=False, frequency=0.8, phase=math.pi / 2)), "rows", 1),
    "product": (product(), "images", 4),
}


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", NETWORKS)
def test_kernel_is_neural_tangents(name: str, kind: Any, oracles: Path) -> None:
    net, inputs, factor = NETWORKS[name]
    with np.load(oracles / "I_waves_and_products.npz") as arrays:
        x, expected = torch.from_numpy(arrays[inputs]), factor * arrays[f"{name}_{kind}"]
    # Rounding, and the 1e-12 that neural-tangents adds before some roots.
    np.testing.assert_allclose(net.gram(x, kind=kind).numpy(), expected, rtol=1e-10, atol=1e-10)
