"""Self-attention whose weights settle: what it makes of a covariance once all of one image's own pixels are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from torch_cntk.covariance.patches import Number

__all__ = ["Attention", "Mechanism", "attended", "places"]

Mechanism: TypeAlias = Literal["softmax", "identity", "relu", "abs"]
"""What is made of the logits: their softmax over the pixels that are attended to, or each number by itself."""


@dataclass(frozen=True)
class Attention:
    """Weights of pixels for pixels of the same image: A(a, c) = mechanism(scale Sigma(a, c)).

    With keys that are the queries as well, k = W f / sqrt(channels), logits <k(a), k(c)> / d converge to Sigma(a, c) as
    the keys' dimension d grows (Hron, Bahri, Sohl-Dickstein, Novak, arXiv 2006.10540, section 3.2).

    Attributes:
        mechanism: of the logits.
        scale: of the logits.
    """

    mechanism: Mechanism = "softmax"
    scale: Number = 1.0

    def weights(self, logits: Tensor) -> Tensor:
        """A, [..., pixels, pixels], of an image's Sigma, or of the logits of a finite network."""
        logits = self.scale * logits
        if self.mechanism == "softmax":
            return logits.softmax(-1)
        if self.mechanism == "relu":
            return logits.relu()
        return logits.abs() if self.mechanism == "abs" else logits


def attended(matrices: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Sigma' = A Sigma B^T and Theta' = A Theta B^T, for the pixels of an image A and those of an image B.

    Args:
        matrices: Sigma, Theta or both, [..., pixels, pixels].
        first: A's weights, [..., pixels, pixels], or some rows of them.
        second: B's.
    """
    return first @ matrices @ second.mT


def places(size: Sequence[int], first: Sequence[Tensor], second: Sequence[Tensor], sign: int = 1) -> Tensor:
    """Where pixels are in a flattened image: ``second + sign * first`` around the edge, of every pair of the two.

    Args:
        size: of the image.
        first: positions or displacements, [k] an axis.
        second: likewise, [m] an axis.
        sign: 1 or -1.

    Returns:
        [product of all k, product of all m].
    """
    total = first[0].new_zeros(1, 1)
    for n, x, y in zip(size, first, second, strict=True):
        own = (y + sign * x[:, None]) % n
        total = (total[:, None, :, None] * n + own[:, None]).reshape(len(total) * len(x), -1)
    return total
