"""Side information of any kind as features: encoded when a matrix is fitted, and alike when it is asked for more.

Frames with categories go through a ``TableEncoder``; what is missing becomes the mean of what is known; and features of
which dividing by the norm would leave nothing but a sign are standardised, with a constant beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from torch_cntk.matrices.encoder import TableEncoder
from torch_cntk.matrices.forms import TensorForm, is_frame, is_polars, is_series
from torch_cntk.matrices.numbers import Numbers
from torch_cntk.matrices.tables import Features, different, name_of, read_features

__all__ = ["Encoding", "encoded"]

What = Literal["column", "row"]

_PARALLEL = 1e-12
"""Directions that differ by less are the same but for rounding, of which a cosine has some 1e-16 a feature."""

_SIGNS = (
    "the features of all {what}s are multiples of one line: divided by their norms, nothing but their signs is left; "
    "so they were standardised, and a constant feature of 1 was added (normalize=False takes them as they are)"
)
_ZEROS = (
    "{count} of {all} {what}s (the first is {what} {first}) have features that say nothing, as all is missing or "
    "average; a constant feature of 1 was added to all {what}s"
)
_GAPS = (
    "{count} of {all} {what}s have no features, or not all (the first is {what} {first}); what is missing is the mean "
    "of the others"
)


@dataclass(frozen=True)
class Encoding:
    """How side information became numbers.

    Attributes:
        encoder: of a frame with something else than numbers, else None.
        mean: taken off each feature, [p], or None.
        scale: each feature is then divided by, [p], or None.
        constant: whether a feature of 1 follows.
        width: number of features.
        names: of the features, of a frame, else None.
    """

    encoder: TableEncoder | None = None
    mean: Tensor | None = None
    scale: Tensor | None = None
    constant: bool = False
    width: int = 0
    names: Sequence[Any] | None = None

    def read(self, features: Any, what: What) -> Features:
        """Read features of further columns or rows.

        Raises:
            TypeError: they are not what they were in ``fit``.
            ValueError: they are not those of ``fit``, or missing.
        """
        read = read_features(features if self.encoder is None else _of_frame(features, self.encoder), what)
        if read.values.shape[1] != self.width:
            raise ValueError(f"expected {self.width} features of each {what}, as in fit(), got {read.values.shape[1]}")
        if different(read.names, self.names):
            raise ValueError(
                f"expected features named {_listed(self.names)} in this order, as in fit(), got {_listed(read.names)}"
            )
        return self.apply(read)

    def apply(self, read: Features) -> Features:
        """Standardise, and add the constant."""
        values = read.values
        if self.mean is not None and self.scale is not None:
            values = (values - self.mean.to(values.device)) / self.scale.to(values.device)
        if self.constant:
            values = torch.cat([values, torch.ones_like(values[:, :1])], 1)
        return replace(read, values=values)


def encoded(
    features: Any, what: What, labels: Sequence[Any] | None, count: int, *, normalize: bool
) -> tuple[Features, Encoding, list[str]]:
    """Read the features of one side of a matrix.

    Args:
        features: [n, p], see ``read_features``; or a frame that holds categories or words as well.
        what: which side.
        labels: of the matrix, if it is a frame.
        count: n.
        normalize: whether each line will be divided by its norm.

    Returns:
        the features without gaps, how to read more of them, and what to tell the user.

    Raises:
        TypeError: they hold something that cannot be encoded.
        ValueError: they do not fit the matrix, or are not finite.
    """
    encoder, notes = _encoder(features), []
    given = features if encoder is None else _of_frame(features, encoder)
    read = read_features(given, what, labels, count, gaps=True)
    gaps = torch.isnan(read.values).any(1)
    if bool(gaps.any()):
        read = replace(read, values=_filled(read.values))
        notes.append(_told(_GAPS, gaps, what, read))
    encoding = Encoding(encoder, width=read.values.shape[1], names=read.names)
    if normalize and _only_signs(read.values):
        spread, mean = torch.std_mean(read.values, 0, correction=0)
        encoding = replace(encoding, mean=mean, scale=torch.where(spread > 0, spread, 1), constant=True)
        notes.append(_SIGNS.format(what=what))
    elif normalize and encoder is not None:
        zeros = ~read.values.any(1)
        if bool(zeros.any()):
            encoding = replace(encoding, constant=True)
            notes.append(_told(_ZEROS, zeros, what, read))
    return encoding.apply(read), encoding, notes


def _listed(names: Sequence[Any] | None) -> list[Any]:
    return [] if names is None else list(names)


def _told(message: str, lines: Tensor, what: What, read: Features) -> str:
    first = name_of(read.labels, int(lines.nonzero()[0]))
    return message.format(count=int(lines.sum()), all=len(lines), what=what, first=first)


def _filled(values: Tensor) -> Tensor:
    """Each NaN replaced by the mean of its feature."""
    known = ~torch.isnan(values)
    means = torch.where(known, values, 0).sum(0) / known.sum(0)
    return torch.where(known, values, means)


def _encoder(features: Any) -> TableEncoder | None:
    """A fitted encoder of a frame that holds something else than numbers, else None."""
    if is_series(features):
        features = features.to_frame()
    if is_frame(features):
        words = any(dtype.kind not in "biuf" for dtype in features.dtypes)
        return TableEncoder().fit(features) if words else None
    if is_polars(features):
        columns = _split(features)[1]
        words = any(not (dtype.is_numeric() or str(dtype) in ("Boolean", "Null")) for dtype in columns.dtypes)
        return TableEncoder().fit(columns) if words else None
    return None


def _split(frame: Any) -> tuple[list[Any] | None, Any]:
    """Labels of a polars frame, which its first column holds if that is text, and the other columns."""
    if frame.width and str(frame.dtypes[0]) in ("String", "Categorical", "Enum"):
        return frame[frame.columns[0]].to_list(), frame.select(frame.columns[1:])
    return None, frame


def _of_frame(features: Any, encoder: TableEncoder) -> Numbers:
    """Features of a frame by an encoder that was fitted.

    Raises:
        TypeError: they are no frame.
    """
    if is_series(features):
        features = features.to_frame()
    if is_polars(features):
        labels, columns = _split(features)
    elif is_frame(features):
        labels, columns = features.index, features
    else:
        raise TypeError(f"expected a frame of features, as in fit(), got {type(features).__name__}")
    values = encoder.encode(columns)
    return Numbers(values, TensorForm(values.dtype, values.device), labels, encoder.get_feature_names_out().tolist())


def _only_signs(features: Tensor) -> bool:
    """Whether dividing each line of [n, p] by its norm leaves nothing but a sign: all are multiples of one line.

    So it is with a single number for each line, a dose or an age, and with several that are proportional to it. Lines
    that are all the same but for their sign have nothing to lose.
    """
    norm = torch.linalg.vector_norm(features, dim=1)
    told = norm > 0
    first = norm.argmax()
    if not bool(told.any()) or bool(((norm - norm[first]).abs() <= _PARALLEL * norm[first]).all()):
        return False
    cosine = (features[told] @ features[first]).abs() / (norm[told] * norm[first])
    return bool((cosine >= 1 - _PARALLEL).all())
