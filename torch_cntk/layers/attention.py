"""Self-attention over the pixels of an image, in the scaling that has a limit in closed form."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.options import Option
from torch_cntk._internal.tunable import Tunable, live
from torch_cntk.covariance import Attention, Mechanism, Patches
from torch_cntk.layers.base import C
from torch_cntk.layers.linear import Linear
from torch_cntk.layers.weights import Parameterisation, Weighted, biased, checked_parameterisation

__all__ = ["SelfAttention"]


class SelfAttention(Weighted):
    """Every pixel attends to all pixels of its image: out(concatenated heads of A values), A = softmax(c Q K^T / d).

    Queries are the keys (Q = K), and their products are divided by the keys' dimension d, not by its root. With that
    the weights converge to numbers as the width grows: A(a, c) = softmax over c of c0 Sigma(a, c), from the image's own
    covariance, where c0 is ``logit_scale``. With w = weight_std^2 and b = bias_std^2

        Sigma'(a, a') = w sum over c, c' of A(a, c) Sigma(c, c') A'(a', c') + b,
        Theta' = w A Theta A'^T + 2 w A Sigma A'^T + b,

    A' being the weights of the other image. Training the keys moves nothing in the limit. The number of heads makes no
    difference to it, as long as each head becomes wide. This is ``GlobalSelfAttention(linear_scaling=True)`` of
    neural-tangents (Hron, Bahri, Sohl-Dickstein, Novak, "Infinite attention", arXiv 2006.10540, section 3.2).

    ``torch.nn.MultiheadAttention`` divides by sqrt(d) and does not tie queries to keys. There the weights stay random
    in the limit, which is no Gaussian process unless the heads become infinitely many, and has no closed form then.

    Where a pixel is has no influence on the weights: give the input channels with coordinates, or put a convolution
    before that sees the border. All pixels are read: the kernel belongs to one image size, and its computation takes
    matrices of all pairs of pixels.

    Args:
        in_channels: channels of the input, [batch, in_channels, *size].
        out_channels: channels of the output; as many by default.
        num_heads: of the finite network.
        head_channels: d, of the keys and of the values of each head; in_channels / num_heads by default.
        mechanism: what makes weights of the logits: "softmax", or "identity", "relu", "abs" of each number by itself,
            with which a pixel gets a sum over all pixels rather than a mean.
        logit_scale: c, a factor of the logits; a tensor of one number passes gradients of the kernel on.
        bias: whether the output has one; by default where ``bias_std`` is given.
        bias_std: factor of the bias, 1 by default.
        weight_std: factor of the output's weights, above 0; those of keys and values are N(0, 1 / in_channels).
        parameterisation: of the parameters, "ntk" or "standard": see ``torch_cntk.layers.Weighted``.

    Raises:
        TypeError: a number of channels or heads is no integer, or another option no number.
        ValueError: one of them is below 1 or out of range, the heads do not divide the channels, or a word is unknown.
    """

    _unnamed = 3
    in_channels: int
    out_channels: int
    logit_scale = Tunable()

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        num_heads: int = 1,
        *,
        head_channels: int | None = None,
        mechanism: Mechanism = "softmax",
        logit_scale: float | Tensor = 1.0,
        bias: bool | None = None,
        bias_std: float | Tensor | None = None,
        weight_std: float | Tensor = 1.0,
        parameterisation: Parameterisation = "ntk",
    ) -> None:
        super().__init__()
        self.in_channels = positive_int(in_channels, "in_channels")
        self.out_channels = in_channels if out_channels is None else positive_int(out_channels, "out_channels")
        self.num_heads = positive_int(num_heads, "num_heads")
        if head_channels is None and in_channels % num_heads:
            raise ValueError(f"expected in_channels that {num_heads} heads divide, or head_channels, got {in_channels}")
        self.head_channels = positive_int(
            in_channels // num_heads if head_channels is None else head_channels, "head_channels"
        )
        if mechanism not in get_args(Mechanism):
            raise ValueError(f"expected a mechanism among {', '.join(get_args(Mechanism))}, got {mechanism!r}")
        self.mechanism: Mechanism = mechanism
        has_bias, self.bias_std = biased(bias, bias_std)
        self.logit_scale, self.weight_std = logit_scale, weight_std
        self.parameterisation = checked_parameterisation(parameterisation)
        self.key, self.value = (
            Linear(in_channels, self.fan_in, parameterisation=self.parameterisation) for _ in range(2)
        )
        self.weight = torch.nn.Parameter(torch.empty(self.out_channels, self.fan_in))
        self.bias = torch.nn.Parameter(torch.empty(self.out_channels)) if has_bias else None
        self.reset_parameters()

    def _shows(self, option: Option, value: Any) -> bool:
        if option.name == "head_channels":
            return self.fan_in != self.in_channels
        return super()._shows(option, value)

    def __repr__(self) -> str:
        """The options, as of a layer without parts."""
        return f"{type(self).__name__}({self.extra_repr()})"

    @property
    def fan_in(self) -> int:
        """Channels of all heads, of which the output is made."""
        return self.num_heads * self.head_channels

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch.nn's name
        """Map [batch, in_channels, *size] to [batch, out_channels, *size].

        Raises:
            ValueError: the input has other channels, or no pixels.
        """
        if input.ndim < 3 or input.shape[1] != self.in_channels:
            raise ValueError(f"expected input of shape [batch, {self.in_channels}, *size], got {tuple(input.shape)}")
        pixels = input.flatten(2).mT
        keys, values = (
            part(pixels).reshape(*pixels.shape[:2], self.num_heads, self.head_channels).transpose(1, 2)
            for part in (self.key, self.value)
        )
        attention = Attention(self.mechanism, live(self, "logit_scale") / self.head_channels)
        heads = (attention.weights(keys @ keys.mT) @ values).transpose(1, 2).flatten(2)
        output = torch.nn.functional.linear(heads, *self.effective())
        return output.mT.reshape(len(input), self.out_channels, *input.shape[2:])

    def propagate(self, covariance: C) -> C:
        """The attention, and the two layers of weights that are trained: the values' and the output's."""
        here = Patches.centred((1,) * covariance.ndim)
        attended = covariance.attend(Attention(self.mechanism, live(self, "logit_scale")))
        return attended.average_patches(here, self.value.gains).average_patches(here, self.gains)
