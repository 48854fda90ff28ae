"""Kernels of independent programs: neural-tangents, and the published code of the paper."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import torch_cntk as tc

IMAGE_NETS = [
    "B_conv3_lrelu0.1_d2",
    "B_conv3_relu_d1",
    "B_conv3_relu_d2_6x8",
    "B_conv5_relu_d2",
    "C_stride2_torchalign_d1",
    "D_avgpool2_d1",
    "E_corners_x2_randn",
    "E_down_half_pixel_x2_randn",
    "E_down_nearest_x2",
    "E_half_pixel_x2_randn",
    "E_nearest_x2_randn",
    "F_concat_1to3",
    "F_layernorm",
    "F_residual",
    "G_conv1d_k3_relu_d3",
    "G_conv3d_k3_relu_d3",
]
PUBLISHED = ["ref_X_s2", *(f"ref_s{levels}_{slope}" for levels in (1, 2, 3) for slope in ("lrelu", "relu"))]
ROWS_AS_PIXELS = [
    "A_fc_erf_d2_unit",
    "A_fc_gelu_d2_raw",
    "A_fc_lrelu0.2_d3_raw",
    "A_fc_relu_d2_unit",
    "A_fc_relu_d3_raw",
    "A_fc_relu_d5_unit",
    "A_fc_sin_d2_raw",
]
SMOOTH: dict[str, Callable[..., tc.Layer]] = {"erf": tc.Erf, "gelu": tc.GELU, "sin": tc.Sin}
CONV = {1: tc.Conv1d, 2: tc.Conv2d, 3: tc.Conv3d}
RESIZE: dict[str, Callable[[int], tc.Layer]] = {
    "nearest": tc.NearestUp,
    "half_pixel": lambda factor: tc.BilinearUp(factor, padding_mode="border"),
    "corners": lambda factor: tc.BilinearUp(factor, align_corners=True),
}


def rectifier(a: float, b: float) -> tc.Layer:
    slope = a / b
    assert b == pytest.approx(math.sqrt(2 / (1 + slope**2)), rel=1e-14)
    return tc.LeakyReLU(slope) if slope else tc.ReLU()


def network(specs: list[dict], channels: int, size: tuple[int, ...]) -> tc.Sequential:
    layers: list[tc.Layer] = []
    pending: dict | None = None
    for spec in specs:
        match spec["op"]:
            case "conv" | "dense":
                pending = {"place": len(layers), "width": spec.get("k", [1]), "stride": [1] * len(size)}
                assert spec.keys() <= {"op", "k", "width_mult"}
                multiple = spec.get("width_mult", 1)
                layers.append(CONV[len(size)](channels, multiple, pending["width"]))
                channels = multiple
            case "subsample":
                # Activations are pointwise, so the stride may be taken before them: in the convolution.
                assert pending is not None
                pending["stride"] = [r * s for r, s in zip(pending["stride"], spec["stride"], strict=True)]
                conv = layers[pending["place"]]
                layers[pending["place"]] = CONV[len(size)](conv.in_channels, 1, pending["width"], pending["stride"])
                size = tuple(n // r for n, r in zip(size, spec["stride"], strict=True))
            case "avgpool":
                (width,) = set(spec["k"])
                assert spec["k"] == spec["stride"]
                layers.append(tc.AvgPool2d(width))
                size, pending = tuple(n // width for n in size), None
            case "erf" | "gelu" | "sin" as op:
                layers.append(SMOOTH[op](normalise=False))
            case "layernorm":
                layers.append(tc.ChannelNorm(eps=spec["eps"]))
            case "sum" | "concat" as op:
                branches = [network(branch, channels, size) if branch else tc.Identity() for branch in spec["branches"]]
                layers.append({"sum": tc.Sum, "concat": tc.Concat}[op](*branches))
                channels, pending = cast(int, layers[-1].out_channels), None
            case "abrelu":
                layers.append(rectifier(spec["a"], spec["b"]))
            case "resize":
                (factor,) = {m // n for n, m in zip(size, spec["size"], strict=True)}
                layers.append(RESIZE[spec["align"]](factor))
                size, pending = tuple(spec["size"]), None
            case op:
                raise NotImplementedError(op)
    return tc.Sequential(*layers)


def load(folder: Path, name: str) -> tuple[dict, dict[str, np.ndarray]]:
    with np.load(folder / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(str(arrays.pop("spec"))), arrays


def assert_close(kernel: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    other = torch.from_numpy(expected).to(kernel.dtype)
    assert kernel.shape == other.shape
    assert (kernel - other).abs().max() <= tolerance * other.abs().max()


def test_no_oracle_is_left_out(oracles: Path) -> None:
    found = {path.stem for pattern in ("[BCDEFG]_*.npz", "ref_*.npz") for path in oracles.glob(pattern)}
    assert found == {*IMAGE_NETS, *PUBLISHED}


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", IMAGE_NETS)
def test_image_kernel_equals_neural_tangents(oracles: Path, name: Any, kind: Any) -> None:
    spec, arrays = load(oracles, name)
    z = torch.from_numpy(arrays["z"])
    net = network(spec["layers"], z.shape[0], tuple(z.shape[1:]))
    # Both are float64; theirs takes the angle from a clamped arccos, good to about 1e-11 of the largest entry.
    assert_close(net.kernel(tc.priors.Tensor(z), kind=kind).dense(), arrays[kind], 1e-10)


@pytest.mark.parametrize("kind", ["ntk", "nngp"])
@pytest.mark.parametrize("name", ROWS_AS_PIXELS)
def test_pixels_of_a_1x1_net_are_the_samples_of_a_fully_connected_one(oracles: Path, name: Any, kind: Any) -> None:
    spec, arrays = load(oracles, name)
    z = torch.from_numpy(arrays["z"]).T
    net = network(spec["layers"], z.shape[0], tuple(z.shape[1:]))
    assert_close(net.kernel(tc.priors.Tensor(z), kind=kind).dense(), arrays[kind], 1e-10)


@pytest.mark.parametrize("name", PUBLISHED)
def test_kernel_equals_the_published_one_but_for_its_scale(oracles: Path, name: Any) -> None:
    spec, arrays = load(oracles, name)
    ntk = arrays["ntk"]
    size = ntk.shape[:2]
    prior: tc.priors.Prior
    if "z" in arrays:
        z = torch.from_numpy(arrays["z"])
        prior, channels = tc.priors.Tensor(z), z.shape[0]
    else:
        prior, channels = tc.priors.Uniform(0, 0.1), 1
        assert arrays["sigma0_diag"] == pytest.approx(1 / 300, rel=1e-12)
        assert arrays["sigma0_off"] == pytest.approx(1 / 400, rel=1e-12)
    net = network(spec["layers"], channels, size)
    dense = net.kernel(prior).dense(size)
    assert_close(dense, ntk, 1e-12)
    # Theirs is float32.
    assert_close(9 * channels * dense, arrays["ntk_ref"].astype(np.float64), 1e-6)
