"""Ways to fill an image, by name: the kernels, the same network of finite width, and what others use."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

import torch_cntk as tc
from torch_cntk.images.group_flow import before_flow
from torch_cntk.zoo.catalogue import recipe


@dataclass(frozen=True, kw_only=True)
class Options:
    """What methods take beside the image and its mask.

    Attributes:
        network: name in ``torch_cntk.zoo.catalogue`` of the network that is taken both infinitely wide and finite.
        ridge: of its kernel.
        filters: of the finite network.
        steps: of training, at most.
        minutes: of training, at most.
        lr: learning rate.
        iterate: what is taken of the training, as in ``tc.Training``; for the best one, observed pixels are held out.
        autocast: whether to train in bfloat16 where torch holds that safe.
        seed: of the initial weights and the input.
        checkpoint: file to train on from.
        progress: whether training shows a bar.
    """

    network: str
    ridge: float = 1e-3
    filters: int = 128
    steps: int = 3000
    minutes: float = 15.0
    lr: float = 0.01
    iterate: Literal["last", "best", "average"] = "average"
    autocast: bool = False
    seed: int = 0
    checkpoint: Path | None = None
    progress: bool = False

    @property
    def finite_network(self) -> str:
        """The name with the number of filters that is trained."""
        levels, _, filters = next(part for part in self.network.split("-") if "x" in part).partition("x")
        return self.network.replace(f"{levels}x{filters}", f"{levels}x{self.filters}", 1)


@dataclass(frozen=True)
class Filled:
    """A filled image, and what there is to be said about how: numbers and words by name."""

    image: Tensor
    told: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A way to fill an image: its title in tables, and what does it."""

    title: str
    fill: Callable[[Tensor, Tensor, Options], Filled]
    network: Callable[[Options], str] = lambda options: ""
    """The network that its rows are about; those of another one are other rows."""


def biharmonic(image: Tensor, observed: Tensor) -> Tensor:
    """Of scikit-image; [channels, H, W]."""
    known = torch.where(observed, image, 0).permute(1, 2, 0).numpy()
    values = torch.from_numpy(inpaint_biharmonic(known, (~observed).numpy(), channel_axis=-1)).permute(2, 0, 1)
    return torch.where(observed, image, values.to(image.dtype))


def opencv(method: str) -> Callable[[Tensor, Tensor], Tensor] | None:
    """``INPAINT_TELEA`` or ``INPAINT_NS`` of OpenCV, which work on 8 bits; None where it is not installed."""
    if importlib.util.find_spec("cv2") is None:
        return None
    import cv2

    def fill(image: Tensor, observed: Tensor) -> Tensor:
        known = torch.where(observed, image, 0)
        pixels = (known * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        filled = cv2.inpaint(pixels, (~observed).byte().numpy(), 3, getattr(cv2, method))
        values = torch.from_numpy(np.atleast_3d(filled)).permute(2, 0, 1) / 255
        return torch.where(observed, image, values.to(image.dtype))

    return fill


def _biharmonic(image: Tensor, observed: Tensor, options: Options) -> Filled:
    return Filled(biharmonic(image, observed))


def _opencv(image: Tensor, observed: Tensor, method: str) -> Filled:
    fill = opencv(method)
    assert fill is not None
    return Filled(fill(image, observed))


def _telea(image: Tensor, observed: Tensor, options: Options) -> Filled:
    return _opencv(image, observed, "INPAINT_TELEA")


def _navier_stokes(image: Tensor, observed: Tensor, options: Options) -> Filled:
    return _opencv(image, observed, "INPAINT_NS")


def _kernel(image: Tensor, observed: Tensor, options: Options) -> Filled:
    result = tc.inpaint(image, observed)
    period = tc.default_kernel(observed).period[0]
    return Filled(result.image, {"iterations": result.iterations, "period": period})


def radius_of(result: tc.InpaintingResult) -> int:
    """Radius of the guided passes of one image, a group flow behind them or not."""
    settings, _ = before_flow(result.guidance[0], result.passes)
    assert isinstance(settings, tc.Guidance)
    return settings.radius


def _guided(image: Tensor, observed: Tensor, options: Options) -> Filled:
    result = tc.inpaint(image, observed, passes="auto")
    radius = {"radius": radius_of(result)} if result.passes else {}
    return Filled(result.image, {"passes": result.passes, **radius})


def _wide(image: Tensor, observed: Tensor, options: Options) -> Filled:
    result = tc.inpaint(image, observed, tc.load_kernel(options.network), ridge=options.ridge)
    return Filled(result.image, {"iterations": result.iterations, "residual": result.residual})


def finite_network(name: str, channels: int) -> tc.Sequential:
    """The network behind a kernel's name, for an image of so many channels; weights are drawn.

    Raises:
        ValueError: there is no such name.
    """
    found = recipe(name)
    if found is None or not isinstance(found.network, tc.Sequential):
        raise ValueError(f"expected the name of a network such as uniform-6x128-leaky0.1, got {name!r}")
    *inner, last = found.network.layers
    if last.out_channels == channels:
        return found.network
    assert isinstance(last, tc.Conv2d)
    return tc.Sequential(*inner, tc.Conv2d(last.in_channels, channels, last.kernel_size))


def _finite(image: Tensor, observed: Tensor, options: Options) -> Filled:
    """As the deep image prior is trained: Adam, batch normalisation, sigmoid, jitter of the input, torch's weights."""
    torch.manual_seed(options.seed)
    net, found = finite_network(options.finite_network, len(image)), recipe(options.finite_network)
    assert found is not None
    result = tc.train(
        net,
        image,
        observed,
        prior=found.prior,
        steps=options.steps,
        lr=options.lr,
        batch_norm=True,
        jitter=0.03,
        parameterisation="standard",
        iterate=options.iterate,
        holdout=0.05 if options.iterate == "best" else 0,
        autocast=options.autocast,
        channels_last=options.autocast,
        seed=options.seed,
        checkpoint=options.checkpoint,
        callback=lambda step: step.seconds >= 60 * options.minutes,
        progress=options.progress,
    )
    precision = "bfloat16" if options.autocast else "float32"
    told = {"steps": len(result.losses), "training seconds": round(result.seconds, 1)}
    return Filled(result.image, {**told, "iterate": options.iterate, "precision": precision})


METHODS: dict[str, Method] = {
    "biharmonic": Method("biharmonic", _biharmonic),
    "telea": Method("Telea", _telea),
    "navier-stokes": Method("Navier-Stokes", _navier_stokes),
    "cntk": Method("CNTK (default)", _kernel),
    "wide": Method("CNTK (network)", _wide, lambda options: options.network),
    "guided": Method("guided passes", _guided),
    "finite": Method("finite network", _finite, lambda options: options.finite_network),
}
"""By name; ``wide`` is the kernel of the network that ``finite`` trains."""


def available() -> list[str]:
    """Names of the methods that are installed."""
    without = {"telea", "navier-stokes"} if importlib.util.find_spec("cv2") is None else set()
    return [name for name in METHODS if name not in without]
