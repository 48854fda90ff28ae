"""Models of torch.nn, drawn as text of their layers: most convert, and what does not must be refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

__all__ = ["Model", "models"]

_ACTIVATIONS = [
    nn.ReLU,
    nn.LeakyReLU,
    nn.GELU,
    nn.Tanh,
    nn.SiLU,
    nn.Mish,
    nn.Softplus,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.Softsign,
    nn.Hardtanh,
    nn.ReLU6,
    nn.Sigmoid,
    nn.Hardswish,
    nn.PReLU,
]
_WIDTH = 3


class _Residual(nn.Module):
    """x + f(x), or a multiple of it, or both side by side."""

    def __init__(self, inner: nn.Module, how: str) -> None:
        super().__init__()
        self.inner, self.how = inner, how

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if self.how == "concat":
            return torch.cat([x, y], 1)[:, :_WIDTH]
        return {"add": x + y, "minus": x - y, "scaled": x + 0.1 * y, "times": x * y}[self.how]


@dataclass(frozen=True)
class Model:
    """A model as words, each of which makes a layer.

    Attributes:
        words: name and options of each layer.
        ndim: number of spatial dimensions; 0 for fully connected ones.
        size: of an input, in pixels along each axis.
        training: its mode.
        dtype: of its weights.
        seed: of its weights and inputs.
        plain: whether every layer has a rule.
    """

    words: tuple[tuple[Any, ...], ...]
    ndim: int
    size: tuple[int, ...]
    training: bool
    dtype: torch.dtype
    seed: int
    plain: bool

    def module(self) -> nn.Module:
        """The model; torch's generator is as before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = nn.Sequential(*(self._layer(word) for word in self.words))
            for buffer in model.buffers():  # running statistics that are not those of nothing
                if buffer.is_floating_point():
                    buffer.copy_(torch.rand_like(buffer) + 0.5)
        return model.to(self.dtype).train(self.training)

    def input(self) -> Tensor:
        """A batch of two."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(2, _WIDTH, *self.size, generator=generator, dtype=torch.float64).to(self.dtype)

    def _layer(self, word: tuple[Any, ...]) -> Any:
        name, *options = word
        conv: Any = {0: nn.Linear, 1: nn.Conv1d, 2: nn.Conv2d}[self.ndim]
        if name == "linear":
            return nn.Linear(_WIDTH, _WIDTH, bias=options[0])
        if name == "conv":
            width, mode, stride, bias, dilation, groups = options
            padding = dilation * (width - 1) // 2
            return conv(
                _WIDTH,
                _WIDTH,
                width,
                stride,
                padding,
                dilation,
                groups,
                bias,
                padding_mode=mode,
            )
        if name == "valid":
            return conv(_WIDTH, _WIDTH, 3)
        if name == "bend":
            return options[0]()
        if name == "residual":
            return _Residual(nn.Sequential(self._layer(options[0]), self._layer(options[1])), options[2])
        return self._other(name)

    def _other(self, name: str) -> nn.Module:
        two = self.ndim == 2
        made: dict[str, nn.Module] = {
            "identity": nn.Identity(),
            "dropout": nn.Dropout(0.3),
            "batch norm": nn.BatchNorm2d(_WIDTH) if two else nn.BatchNorm1d(_WIDTH),
            "group norm": nn.GroupNorm(1, _WIDTH),
            "pool": nn.AvgPool2d(2) if two else nn.AvgPool1d(2),
            "max pool": nn.MaxPool2d(2) if two else nn.MaxPool1d(2),
            "nearest": nn.Upsample(scale_factor=2),
            "bilinear": nn.Upsample(scale_factor=2, mode="bilinear" if two else "linear"),
            "corners": nn.Upsample(scale_factor=2, mode="bilinear" if two else "linear", align_corners=True),
            "transposed": nn.ConvTranspose2d(_WIDTH, _WIDTH, 2, 2) if two else nn.ConvTranspose1d(_WIDTH, _WIDTH, 2, 2),
            "flatten": nn.Flatten(),
            "softmax": nn.Softmax(1),
        }
        return made[name]


def _words(ndim: int, plain: bool) -> Any:
    bend = st.tuples(st.just("bend"), st.sampled_from(_ACTIVATIONS[:-2] if plain else _ACTIVATIONS))
    if ndim == 0:
        weight = st.tuples(st.just("linear"), st.booleans())
    else:
        weight = st.tuples(
            st.just("conv"),
            st.sampled_from([1, 3, 5] if plain else [1, 2, 3]),
            st.sampled_from(["zeros", "circular"] if plain else ["zeros", "circular", "reflect", "replicate"]),
            st.sampled_from([1, 1, 2]),
            st.booleans(),
            st.just(1) if plain else st.sampled_from([1, 2]),
            st.just(1) if plain else st.sampled_from([1, 3]),
        )
    other = st.tuples(st.sampled_from(["identity", "dropout"] if ndim == 0 else ["identity", "dropout", "nearest"]))
    if not plain:
        names = ["batch norm", "group norm", "softmax", "flatten"]
        names += ["pool", "max pool", "bilinear", "corners", "transposed", "valid"] if ndim else []
        other = st.tuples(st.sampled_from(names))
    residual = st.tuples(
        st.just("residual"), bend, weight, st.sampled_from(["add", "minus", "scaled", "times", "concat"])
    )
    return weight, bend, other, residual


@st.composite
def models(draw: Any) -> Model:
    """Chains and branches; fully connected ones, signals and images."""
    ndim, plain = draw(st.sampled_from([0, 1, 2, 2])), draw(st.booleans())
    weight, bend, other, residual = _words(ndim, plain)
    words = [draw(weight)]
    if plain:
        for _ in range(draw(st.integers(0, 2))):
            words += [draw(bend), draw(weight)]
            words += [draw(other)] if draw(st.booleans()) else []
    else:
        words += draw(st.lists(weight | bend | other | residual, max_size=4))
    sides = st.sampled_from([4, 8] if plain else [1, 3, 4, 5, 8])
    size = draw(st.tuples(*(sides for _ in range(ndim))))
    dtype = draw(st.sampled_from([torch.float64, torch.float64, torch.float32]))
    training = draw(st.booleans()) and not any(word[0] in ("dropout", "batch norm") for word in words)
    return Model(tuple(words), ndim, size, training, dtype, draw(st.integers(0, 2**31)), plain)
