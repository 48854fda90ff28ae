"""Ways to fill an image, by name: the kernels, the same network of finite width, and what others use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

import torch_cntk as tc
from benchmarks.gsr import gsr
from benchmarks.others import Fill, biharmonic, has, idbp, opencv, patch_match, xphoto
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
    needs: str = ""
    """Module that must be installed."""
    slow: bool = False
    """Whether it runs only where it is asked for: minutes an image, or more."""


def _by(make: Callable[[], Fill | None]) -> Callable[[Tensor, Tensor, Options], Filled]:
    """A method of what is installed."""

    def fill(image: Tensor, observed: Tensor, options: Options) -> Filled:
        found = make()
        assert found is not None
        return Filled(found(image, observed))

    return fill


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


def _patches(blend: float) -> Callable[[Tensor, Tensor, Options], Filled]:
    """Thick holes from patches, behind the deep kernel; thin ones are left to that."""

    def fill(image: Tensor, observed: Tensor, options: Options) -> Filled:
        return Filled(tc.inpaint(image, observed, passes=[tc.images.PatchFill(blend=blend)]).image)

    return fill


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
    "biharmonic": Method("biharmonic", _by(lambda: biharmonic)),
    "telea": Method("Telea", _by(partial(opencv, "INPAINT_TELEA")), needs="cv2"),
    "navier-stokes": Method("Navier-Stokes", _by(partial(opencv, "INPAINT_NS")), needs="cv2"),
    "fsr": Method("FSR", _by(partial(xphoto, "INPAINT_FSR_FAST")), needs="cv2.xphoto"),
    "shift-map": Method("shift map", _by(partial(xphoto, "INPAINT_SHIFTMAP")), needs="cv2.xphoto"),
    "patch-match": Method("PatchMatch", _by(patch_match), needs="patchmatch"),
    "idbp": Method("IDBP, BM3D", _by(idbp), needs="bm3d", slow=True),
    "gsr": Method("GSR", _by(lambda: gsr), slow=True),
    "cntk": Method("CNTK (default)", _kernel),
    "wide": Method("CNTK (network)", _wide, lambda options: options.network),
    "guided": Method("guided passes", _guided),
    "patch-fill": Method("patch fill", _patches(1)),
    "blend": Method("blend", _patches(0.6)),
    "finite": Method("finite network", _finite, lambda options: options.finite_network, slow=True),
}
"""By name; ``wide`` is the kernel of the network that ``finite`` trains."""


def available() -> list[str]:
    """Names of the methods that are installed."""
    return [name for name, method in METHODS.items() if not method.needs or has(method.needs)]


def left_out() -> str:
    """A sentence about the methods that are not installed; empty if all are."""
    missing = {method.title: method.needs for method in METHODS.values() if method.needs and not has(method.needs)}
    if not missing:
        return ""
    names = ", ".join(f"{title} (module {module})" for title, module in missing.items())
    return f"Left out, as it is not installed: {names}; pip install 'torch-cntk[benchmarks]' brings all."
