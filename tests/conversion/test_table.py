"""The table of docs/conversion.md, which is what from_torch does with each of its rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torch_cntk as tc

DOCUMENT = Path(__file__).parents[2] / "docs" / "conversion.md"
# Each stands between two convolutions, the first of which gives it 8 channels; in eval mode if it says so.
MODULES = """
nn.Conv2d(8, 8, 3, padding=1)
nn.Conv2d(8, 8, 3, stride=2, padding=1)
nn.Conv2d(8, 8, 3, padding="same", padding_mode="circular")
nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
nn.Conv2d(8, 8, 3)
nn.Conv2d(8, 8, 4, stride=2, padding=1)
nn.Conv2d(8, 8, 3, padding=2, dilation=2)
nn.Conv2d(8, 8, 2, padding="same")
nn.Conv2d(8, 8, 3, padding=1, groups=2)
nn.Conv2d(8, 8, 3, padding=1, groups=8)
nn.Sequential(nn.Conv2d(8, 8, 1, groups=8), nn.ReLU())
nn.ConvTranspose2d(8, 8, 3, padding=1)
nn.ConvTranspose2d(8, 8, 2, stride=2)
nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1)
nn.Linear(8, 8)
nn.ReLU()
nn.ReLU(inplace=True)
nn.LeakyReLU(0.2)
nn.PReLU()
nn.RReLU().eval()
nn.ReLU6()
nn.Hardtanh()
nn.ELU()
nn.CELU(0.5)
nn.SELU()
nn.GELU()
nn.GELU(approximate="tanh")
nn.SiLU()
nn.Mish()
nn.Hardswish()
nn.Hardsigmoid()
nn.Sigmoid()
nn.LogSigmoid()
nn.Tanh()
nn.Tanhshrink()
nn.Softsign()
nn.Softplus()
nn.Softshrink(0.5)
nn.Threshold(0.0, 0.0)
nn.GLU(1)
nn.Softmax2d()
nn.Identity()
nn.Dropout(0.1)
nn.Dropout2d(0.1)
nn.Dropout(0.1, inplace=True)
nn.Dropout2d(0.1, inplace=True)
nn.AlphaDropout(0.1)
nn.AlphaDropout(0.1).eval()
nn.BatchNorm2d(8)
nn.BatchNorm2d(8).eval()
nn.BatchNorm2d(8, affine=False).eval()
nn.BatchNorm2d(8).eval().requires_grad_(False)
nn.InstanceNorm2d(8)
nn.GroupNorm(2, 8)
nn.LayerNorm(8)
nn.LocalResponseNorm(2)
nn.AvgPool2d(2)
nn.AvgPool2d(3, stride=1, padding=1)
nn.AvgPool2d(2, ceil_mode=True)
nn.AvgPool2d(2, divisor_override=1)
nn.AvgPool2d((2, 1))
nn.MaxPool2d(2)
nn.AdaptiveAvgPool2d(1)
nn.Upsample(scale_factor=2)
nn.Upsample(scale_factor=2, mode="bilinear")
nn.Upsample(scale_factor=2, mode="bicubic")
nn.Upsample(scale_factor=1.5)
nn.Upsample(size=(32, 32))
nn.PixelShuffle(2)
nn.Flatten()
nn.ZeroPad2d(1)
nn.CircularPad2d(1)
nn.ReflectionPad2d(1)
nn.MultiheadAttention(8, 2)
nn.LSTM(8, 8)
nn.Embedding(8, 8)
nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1)).eval()
nn.DataParallel(nn.Conv2d(8, 8, 1))
""".strip().splitlines()
FAMILIES = (
    *("alexnet", "vgg11", "resnet18", "squeezenet1_1", "densenet121", "mobilenet_v2", "efficientnet_b0"),
    *("googlenet", "shufflenet_v2_x1_0", "convnext_tiny", "vit_b_16", "segmentation.fcn_resnet50"),
)


def around(code: str) -> nn.Module:
    """The module between two convolutions; padding, which belongs to the one behind it, before a wider one."""
    module = eval(code, {"nn": nn})
    # Nothing but rows can follow a flattening, of images of 8 x 8 pixels here.
    last = nn.Linear(512, 1) if "Flatten" in code else nn.Conv2d(8, 1, 3 if "Pad2d" in code else 1)
    return nn.Sequential(nn.Conv2d(1, 8, 1), module, last)


def row(code: str, module: nn.Module) -> str:
    """The row of a module: what becomes of it, or why not and what to write instead."""
    try:
        net = tc.from_torch(module)
    except ValueError as error:
        reason = re.sub(r"^from_torch knows no (exact )?rule for ", "", str(error))
        return f"| `{code}` | no | {reason.replace('|', '/')} |"
    layers: Any = net.layers
    middle = layers[1:-1] or layers[-1:]
    text = " ".join(f"`{layer!r}`" for layer in middle) if len(layers) > 2 or "Pad2d" in code else "nothing"
    return f"| `{code}` | yes | {text} |"


def documented() -> dict[str, str]:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


def family_row(name: str) -> str:
    """The row of a model of torchvision's: the first thing that it stops at."""
    models = pytest.importorskip("torchvision").models
    where = models
    for part in name.split(".")[:-1]:
        where = getattr(where, part)
    with torch.device("meta"):
        options: dict[str, Any] = {"weights_backbone": None} if "." in name else {}
        options |= {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
        module = getattr(where, name.split(".")[-1])(weights=None, **options)
    return row(f"torchvision.models.{name}()", module.eval())


@pytest.mark.parametrize("code", MODULES)
def test_row_of_a_module_is_what_from_torch_says(code: Any) -> None:
    assert documented()[code] == row(code, around(code))


@pytest.mark.parametrize("code", [code for code in MODULES if "Shuffle" not in code])
def test_what_converts_computes_the_same(code: Any, generator: torch.Generator) -> None:
    module = around(code).double()
    if not code.endswith(".eval()"):
        module = module.eval() if "ropout" in code else module
    try:
        net = tc.from_torch(module)
    except ValueError:
        return
    x = torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(net(x), module(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_row_of_a_family_is_what_from_torch_says(name: Any) -> None:
    assert documented()[f"torchvision.models.{name}()"] == family_row(name)


def test_nothing_else_is_documented() -> None:
    families = {f"torchvision.models.{name}()" for name in FAMILIES}
    assert set(documented()) == {*MODULES, *families}
    assert len(MODULES) >= 60
