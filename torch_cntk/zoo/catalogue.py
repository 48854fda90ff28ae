"""Kernels that have a name: the networks behind them, and the index of those that ship with the package.

A name says prior, network and, for dense kernels, size: ``uniform-6x128-leaky0.1`` is the prior U[0, 0.1] through 6
levels of 128 channels with LeakyReLU(0.1); ``meshgrid-plain-3x128-relu-64x64`` the coordinates of 64 x 64 pixels
through the paper's plain network; ``uniform-skip-5x128-leaky0.2`` the deep image prior's hourglass with skip
connections of 4 channels. Without them the kernel does not depend on the number of channels; a trained network does.
``fine`` and ``wide`` are the networks that ``inpaint`` takes by default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from torch_cntk import priors
from torch_cntk.layers import (
    ACTIVATIONS,
    Conv2d,
    Layer,
    LeakyReLU,
    NearestUp,
    Sequential,
    StridedConv2d,
    activation_of,
)
from torch_cntk.zoo.hourglass import hourglass

__all__ = ["EXAMPLE", "SHAPES", "Recipe", "Shipped", "index", "recipe", "what_is_wrong"]

EXAMPLE = "uniform-5x128-leaky0.1"
"""A kernel's name."""
_SIDES = r"[1-9]\d*x[1-9]\d*"
_ACTIVATION = rf"leaky(?P<slope>\d+(\.\d+)?)|{'|'.join(ACTIVATIONS)}"
_NAME = re.compile(
    r"(?P<prior>uniform|identity|meshgrid)-((?P<shape>plain|skip|fine|wide)-)?(?P<levels>[1-9]\d*)x(?P<channels>[1-9]\d*)-"
    rf"(?P<activation>{_ACTIVATION})(-(?P<height>[1-9]\d*)x(?P<width>[1-9]\d*))?"
)
_UNNAMED = "deep"
"""The network of names that have no word for it."""
_MOST_LEVELS = 16
"""At which one pixel of the lowest resolution covers 65,536 by 65,536."""
_PRIORS: Mapping[str, priors.Prior] = {
    "uniform": priors.Uniform(0, 0.1),
    "identity": priors.Identity(),
    "meshgrid": priors.Meshgrid(),
}


_MOST = {"levels": 10, "channels": 1 << 14, "height": 1 << 14, "width": 1 << 14}
"""The largest numbers in a name. A kernel of 6 levels takes some 10 MB and 1 GB on the way, one more level 16 times as
much; a kernel of one size takes the square of its pixels."""


@dataclass(frozen=True)
class Recipe:
    """What a name stands for.

    Attributes:
        name: of the kernel.
        build: makes the network, with freshly drawn weights.
        prior: of its input.
        size: of the image, or None for a kernel that serves every multiple of its period.
        summary: the network in words.
    """

    name: str
    build: Callable[[], Layer]
    prior: priors.Prior
    size: tuple[int, int] | None
    summary: str

    @cached_property
    def network(self) -> Layer:
        """Drawing the weights takes longer than reading a kernel that ships: built when it is asked for."""
        return self.build()

    @cached_property
    def blank(self) -> Layer:
        """The network without weights, of which a kernel needs none; no random number is drawn."""
        with torch.device("meta"):
            return self.build()

    @property
    def origin(self) -> dict[str, Any]:
        """As ``Kernel.origin``, in the types that JSON has."""
        origin = {"network": self.blank.description(), "prior": self.prior.description(), "kind": "ntk"}
        return dict(json.loads(json.dumps(origin)))


@dataclass(frozen=True)
class Shipped:
    """A kernel that comes with the package.

    Attributes:
        name: see ``recipe``.
        network: in words.
        prior: in words.
        size: of the image, or None for every multiple of the period.
        period: of the kernel.
        dtype: of its numbers.
        bytes: of its file.
        sha256: of its file.
    """

    name: str
    network: str
    prior: str
    size: Sequence[int] | None
    period: Sequence[int]
    dtype: str
    bytes: int
    sha256: str

    @property
    def path(self) -> Path:
        """Of the file."""
        return folder() / f"{self.name}.safetensors"


def plain_network(levels: int, activation: Layer, channels: int = 128, out_channels: int = 3) -> Layer:
    """The paper's network: a strided convolution a level on the way down, upsampling and a convolution on the way up.

    There is one more convolution at the lowest resolution, and an activation after each convolution but the last.
    """
    layers: list[Layer] = []
    for level in range(levels):
        layers += [StridedConv2d(channels if level else 32, channels, 3), activation]
    layers += [Conv2d(channels, channels, 3), activation]
    for level in range(levels):
        layers += [NearestUp(2), Conv2d(channels, out_channels if level == levels - 1 else channels, 3), activation]
    return Sequential(*layers[:-1])


def deep_network(levels: int, activation: Layer, channels: int = 128, out_channels: int = 3) -> Layer:
    """A network as the deep image prior's, without skip connections.

    Down: a strided 3x3 convolution and another; up: nearest upsampling, a 3x3 and a 1x1 convolution; an activation
    after each of them; a 1x1 convolution at the end.
    """
    return hourglass(levels, channels, 0, channels=out_channels, activation=activation)


def skip_network(levels: int, activation: Layer, channels: int = 128, out_channels: int = 3) -> Layer:
    """The deep image prior's hourglass with skip connections of 4 channels; see ``hourglass``."""
    return hourglass(levels, channels, 4, channels=out_channels, activation=activation)


def fine_network(levels: int, activation: Layer, channels: int = 128, out_channels: int = 3) -> Layer:
    """An hourglass whose last upsampling is bilinear, with two 3x3 convolutions on each level, down and up.

    The one at full resolution keeps the kernel smooth between neighbours; the others are nearest, which keeps it short.
    """
    ups = ("bilinear",) + ("nearest",) * (levels - 1)
    return hourglass(
        levels, channels, 0, ups, channels=out_channels, up_filter=(3, 3), **_default(activation, channels)
    )


def wide_network(levels: int, activation: Layer, channels: int = 128, out_channels: int = 3) -> Layer:
    """An hourglass with nearest upsampling, two 3x3 convolutions on each level down and three on each level up."""
    return hourglass(levels, channels, 0, channels=out_channels, up_filter=(3, 3, 3), **_default(activation, channels))


def _default(activation: Layer, channels: int) -> dict[str, Any]:
    return {"in_channels": max(channels // 4, 1), "activation": activation, "one_by_one": False}


SHAPES: Mapping[str, Callable[[int, Layer, int, int], Layer]] = {
    "deep": deep_network,
    "plain": plain_network,
    "skip": skip_network,
    "fine": fine_network,
    "wide": wide_network,
}
"""Networks by the word in a kernel's name, "deep" where there is none."""


def recipe(name: str) -> Recipe | None:
    """The kernel that a name stands for, or None if it is no such name.

    Raises:
        ValueError: the name lacks a size that its prior needs, or has one that it does not; or its numbers are beyond
            what any machine could compute.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    for group, most in _MOST.items():
        if match[group] is not None and (len(match[group]) > len(str(most)) or int(match[group]) > most):
            raise ValueError(f"expected at most {most:,} {group} in a kernel's name, got {name[:80]}")
    size = None if match["height"] is None else (int(match["height"]), int(match["width"]))
    stationary = match["prior"] == "uniform"
    if stationary and size is not None:
        raise ValueError(f"the kernel of independent pixels serves every size: expected a name without one, got {name}")
    if not stationary and size is None:
        raise ValueError(f"the kernel of the prior {match['prior']!r} has one size: expected {name}-64x64, got {name}")
    if len(match["levels"]) > 2 or int(match["levels"]) > _MOST_LEVELS:
        raise ValueError(f"expected at most {_MOST_LEVELS} levels, got {match['levels']} in {name}")
    activation = activation_of(match["activation"]) if match["slope"] is None else LeakyReLU(float(match["slope"]))
    shape, levels, channels = match["shape"] or _UNNAMED, match["levels"], match["channels"]
    return Recipe(
        name,
        partial(SHAPES[shape], int(levels), activation, int(channels), 3),
        _PRIORS[match["prior"]],
        size,
        f"{shape}, {levels} x {channels}, {activation}",
    )


def what_is_wrong(name: str) -> str:
    """Which part of a text keeps it from being a kernel's name, and what that part can be."""
    prior, *rest = name.split("-")
    if prior not in _PRIORS or not rest:
        return f"a prior among {', '.join(_PRIORS)} comes first, as in {EXAMPLE}"
    if rest[0].isalpha():
        shape = rest.pop(0)
        if shape not in SHAPES or shape == _UNNAMED:
            named = ", ".join(shape for shape in SHAPES if shape != _UNNAMED)
            return f"behind the prior, a network among {named} or none of them, got {shape}"
    if not rest or not re.fullmatch(_SIDES, rest[0]):
        return f"LEVELSxCHANNELS, as in {EXAMPLE}, got {rest[0] if rest else 'nothing'}"
    activation = rest[1] if len(rest) > 1 else "nothing"
    if not re.fullmatch(_ACTIVATION, activation):
        usual = ", ".join(ACTIVATIONS)
        return f"behind LEVELSxCHANNELS an activation among {usual}, or leaky0.1 with any slope, got {activation}"
    return f"HEIGHTxWIDTH behind the activation, or nothing, got {'-'.join(rest[2:])}"


def folder() -> Path:
    """Where the shipped kernels are: inside the installed package, or beside it in a source tree."""
    package = Path(__file__).parents[1]
    inside = package / "precomputed"
    return inside if inside.is_dir() else package.parent / "precomputed"


@lru_cache(maxsize=1)
def index() -> Mapping[str, Shipped]:
    """The shipped kernels by name; empty where the package came without them.

    Raises:
        ValueError: the index is damaged.
    """
    path = folder() / "index.json"
    if not path.is_file():
        return {}
    try:
        entries = [Shipped(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"the index of precomputed kernels is damaged: {path}: {error}") from error
    return {entry.name: entry for entry in entries}
