"""Kernels between NumPy arrays: those between tensors, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import torch_cntk as tc

IMAGES = tc.Sequential(tc.Conv2d(2, 4, 3), tc.ReLU(), tc.Flatten())
ROWS = tc.Sequential(tc.Linear(3, 4), tc.ReLU())


@pytest.mark.parametrize(("net", "shape"), [(IMAGES, (4, 2, 3, 5)), (ROWS, (4, 3))])
def test_arrays_give_arrays(net: tc.Layer, shape: tuple[int, ...], generator: torch.Generator) -> None:
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    y = x[::2] + 1
    for kind in ("ntk", "nngp"):
        found = net.gram(x.numpy(), y.numpy(), kind=kind)
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, net.gram(x, y, kind=kind).numpy())
        np.testing.assert_array_equal(net.gram(x.numpy(), kind=kind), net.gram(x, kind=kind).numpy())


def test_arrays_of_any_memory(generator: torch.Generator) -> None:
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64).numpy()
    expected = ROWS.gram(x)
    turned = np.asfortranarray(x)
    turned.setflags(write=False)
    for same in (turned, x.astype(">f8"), np.ma.MaskedArray(x), x[::-1][::-1]):
        np.testing.assert_array_equal(ROWS.gram(same), expected)
    np.testing.assert_allclose(ROWS.gram(x.astype(np.float32)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "others", "error", "message"),
    [
        (np.ones((2, 3)), torch.ones(2, 3), TypeError, "an array and Tensor"),
        (torch.ones(2, 3), np.ones((2, 3)), TypeError, "an array and Tensor"),
        (np.ones((2, 3), dtype=int), None, TypeError, "float64 or float32, got int64"),
        (np.ones((2, 3), dtype=np.longdouble), None, TypeError, "float64 or float32"),
        (np.ma.MaskedArray(np.ones((2, 3)), np.eye(2, 3, dtype=bool)), None, ValueError, "a masked array"),
        (np.full((2, 3), np.nan), None, ValueError, "finite"),
        (np.ones((2, 4)), None, ValueError, "3 features, got 4"),
    ],
)
def test_refused(inputs: Any, others: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ROWS.gram(inputs, others)
