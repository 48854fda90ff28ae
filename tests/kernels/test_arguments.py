"""Devices and dtypes that are none are refused in words, wherever they can be given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import torch_cntk as tc

NET = tc.Sequential(tc.Conv2d(1, 1, 3), tc.ReLU(), tc.Conv2d(1, 1, 3))
DENSE = tc.Sequential(tc.Linear(2, 3), tc.ReLU(), tc.Linear(3, 1))
INPUTS = torch.eye(3, 2)
CALLS: dict[str, Any] = {
    "kernel": lambda **options: NET.kernel(tc.priors.Uniform(), **options),
    "to": lambda **options: NET.kernel(tc.priors.Uniform()).to(**options),
    "operator": lambda **options: NET.kernel(tc.priors.Uniform()).operator((8, 8), **options),
    "load": lambda **options: tc.load_kernel("uniform-plain-1x128-relu", **options),
}
NO_DTYPES = [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, "float32", 32]
NO_DEVICES = [("tpu", ValueError), ("cuda:99", ValueError), (3.5, TypeError), (["cpu"], TypeError)]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", NO_DTYPES, ids=str)
def test_dtypes_that_are_none_are_refused(name: str, dtype: Any) -> None:
    with pytest.raises(TypeError, match="expected dtype to be a"):
        CALLS[name](dtype=dtype)


@pytest.mark.parametrize("dtype", NO_DTYPES[:3], ids=str)
def test_dtypes_of_gram_operators_likewise(dtype: Any) -> None:
    with pytest.raises(TypeError, match="expected dtype to be a"):
        DENSE.gram_operator(INPUTS, dtype=dtype)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("device", "error"), NO_DEVICES, ids=str)
def test_devices_that_are_none_are_refused(name: str, device: Any, error: Any) -> None:
    with pytest.raises(error, match="expected device"):
        CALLS[name](device=device)


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_devices_of_matrices_likewise(device: str) -> None:
    with pytest.raises(ValueError, match="expected device"):
        tc.MatrixCompletion(device=device).fit(torch.eye(3), None, torch.eye(3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_point_dtypes_are_served(dtype: Any) -> None:
    kernel = NET.kernel(tc.priors.Uniform(), dtype=dtype, device="cpu")
    assert kernel.dtype == dtype
    exact = NET.kernel(tc.priors.Uniform()).dense((8, 8))
    error = (kernel.dense((8, 8)).double() - exact).abs().max()
    # Rounded once when it is stored, and once where two tables are added.
    assert error <= 4 * torch.finfo(dtype).eps * exact.abs().max()


@pytest.mark.parametrize(
    ("dtype", "std"),
    [
        (torch.float16, 1e-9),
        (torch.float16, 1e-3),
        (torch.bfloat16, 1e-20),
        (torch.float32, 1e-19),
        (torch.float32, 1e-60),
    ],
)
@pytest.mark.parametrize("options", [{}, {"size": (4, 4)}, {"size": (4, 4), "radius": 2}], ids=str)
def test_entries_that_the_type_does_not_hold_are_refused(dtype: Any, std: Any, options: Any) -> None:
    """They would be 0, or have lost most of their digits: too small is as bad as too large."""
    net = tc.Sequential(tc.Conv2d(1, 1, 3), tc.ReLU(), tc.BilinearUp(2), tc.Conv2d(1, 1, 1))
    prior = tc.priors.Normal(0, std)
    with pytest.raises(
        ValueError, match=r"expected a kernel of entries above .*, the smallest that b?float(16|32) holds"
    ):
        net.kernel(prior, dtype=dtype, **options)
    exact = net.kernel(prior, **options).dense((4, 4))
    assert float(exact.amax()) > 0
    scaled = tc.Sequential(*net.layers, tc.Scale(1 / std)).kernel(prior, dtype=dtype, size=(4, 4)).dense()
    torch.testing.assert_close(
        scaled.double() * std**2, net.kernel(prior, (4, 4)).dense(), rtol=2e-2, atol=2e-2 * std**2
    )


def test_a_kernel_of_zeros_is_one() -> None:
    prior = tc.priors.Tensor(torch.zeros(1, 4, 4))
    net = tc.Sequential(tc.Conv2d(1, 1, 3), tc.ReLU())
    for options in ({}, {"radius": 2}):
        assert not bool(net.kernel(prior, dtype=torch.float16, **options).dense((4, 4)).any())  # type: ignore[arg-type]
