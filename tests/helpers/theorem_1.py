"""The kernel of fully connected ReLU networks, as the paper writes it."""

from __future__ import annotations

from typing import Any

import numpy as np


def theorem_1(xi: np.ndarray, depth: int) -> np.ndarray:
    """kappa_d = phi^(d) + kappa_(d-1) phi'(phi^(d-1)), with the dual of the normalised ReLU."""

    def dual(x: Any) -> Any:
        x = np.clip(x, -1, 1)
        return (x * (np.pi - np.arccos(x)) + np.sqrt(1 - x**2)) / np.pi

    def slope(x: Any) -> Any:
        return (np.pi - np.arccos(np.clip(x, -1, 1))) / np.pi

    phi, kappa = xi, xi
    for _ in range(depth):
        phi, kappa = dual(phi), dual(phi) + kappa * slope(phi)
    return kappa
