"""Errors that all ranks raise together."""

from __future__ import annotations

__all__ = ["as_told", "is_known_to_all", "known_to_all"]

_KNOWN = "torch_cntk_known_to_all_ranks"
"""Attribute of an error that all ranks raise: one of them is enough to tell the user."""


def known_to_all(error: Exception) -> Exception:
    """The error, with a note that all ranks raise it."""
    error.__dict__[_KNOWN] = True
    return error


def is_known_to_all(error: Exception) -> bool:
    """Whether all ranks raise this error, in the same words or with the number of the rank that it comes from."""
    return _KNOWN in error.__dict__


def as_told(kind: type[Exception], text: str, rank: int) -> Exception:
    """The error of another rank, with its number; one that wants other arguments becomes a RuntimeError."""
    try:
        return kind(f"on rank {rank}: {text}")
    except TypeError:
        return RuntimeError(f"on rank {rank}: {kind.__name__}: {text}")
