"""What one call of ``inpaint`` cannot be asked for at once: one table, looked through before anything is read."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["check_together"]

_APART = {
    ("passes", "gradients"): "passes=0 where gradients are asked for, as passes are no linear function of the pixels "
    "(image.detach() is filled without gradients)",
    ("mesh", "gradients"): "mesh=None where gradients are asked for, as ranks do not divide them",
    ("samples", "gradients"): "samples=0 where gradients are asked for, as samples have none",
    ("samples", "mesh"): "samples=0 beside a mesh, as ranks do not divide them",
}
"""What is not done together, and what the first of the two would have to be."""


def check_together(asked: Mapping[str, object]) -> None:
    """Refuse what is not done together.

    Args:
        asked: by the names in the table, what the user asked for; None where that is nothing.

    Raises:
        ValueError: two of them exclude each other.
    """
    for (one, other), wanted in _APART.items():
        if asked[one] is not None and asked[other] is not None:
            raise ValueError(f"expected {wanted}, got {one}={asked[one]}")
