"""What ranks hand to a collective, in words that they compare, and the errors of what they should not."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.shared_errors import known_to_all

__all__ = ["kind_of_numbers", "kind_of_rows", "kind_of_vector", "pickled", "raise_any"]

Judged = tuple[str, Exception | None]
"""The kind, and why it is refused."""


def kind_of_numbers(tensor: Any) -> Judged:
    """Of what is to be summed."""
    fits = _is_tensor(tensor) and tensor.dtype != torch.bool
    return _kind(tensor), None if fits else _refusal(tensor, "numbers to sum")


def kind_of_rows(part: Any, n: int, count: int, rank: int) -> Judged:
    """Of some of n rows, of which this rank has ``count``."""
    if not _is_tensor(part) or part.ndim == 0:
        return f"of {n} rows: {_kind(part)}", _refusal(part, "rows to gather")
    if len(part) != count:
        refusal = ValueError(f"expected the {count} rows of rank {rank}, got {len(part)}")
        return f"of {n} rows: {len(part)} in place of {count}", refusal
    return f"of {n} rows: {_kind(part[:0])}", None


def kind_of_vector(own: Any, lengths: Sequence[int], rank: int, size: int) -> Judged:
    """Of a vector of this rank, one of some that have these lengths."""
    if not _is_tensor(own) or own.ndim != 1:
        return _kind(own), _refusal(own, "one axis to exchange")
    if len(lengths) != size or len(own) != lengths[rank]:
        given = f"{len(own)} and lengths {list(lengths)}"
        refusal = ValueError(f"expected a vector of the length of rank {rank} of {size}, got {given}")
        return f"{len(own)} numbers where {list(lengths)} are said", refusal
    return f"{_kind(own[:0])} of lengths {list(lengths)}", None


def _is_tensor(value: object) -> bool:
    """Whether it is one: annotations say so, users may not have read them."""
    return isinstance(value, Tensor)


def _kind(value: Any) -> str:
    """What ranks compare."""
    if not _is_tensor(value):
        return f"no tensor ({type(value).__name__})"
    return f"{value.dtype} {list(value.shape)} on {value.device.type}"


def _refusal(value: Any, wanted: str) -> Exception:
    """The error of what is none of what was wanted."""
    got = f"{value.dtype} {list(value.shape)}" if _is_tensor(value) else type(value).__name__
    return known_to_all(TypeError(f"expected a torch tensor of {wanted}, got {got}"))


def raise_any(refusal: Exception | None) -> None:
    """Raise it, if there is one.

    Raises:
        Exception: so it is.
    """
    if refusal is not None:
        raise refusal


def pickled(value: object) -> bytes | str:
    """Its pickle, or a sentence where there is none."""
    try:
        return pickle.dumps(value)
    except Exception as error:  # what cannot be pickled says so by errors of many kinds
        return f"expected what can be pickled to broadcast, got {type(value).__name__}: {error}"
