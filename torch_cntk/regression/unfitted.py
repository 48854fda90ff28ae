"""What is raised before a fit."""

from __future__ import annotations

__all__ = ["not_fitted"]


def not_fitted(name: str) -> Exception:
    """scikit-learn's ``NotFittedError`` where it is installed, which is a ValueError; else that."""
    text = f"expected {name} to be fitted; call fit first"
    try:
        from sklearn.exceptions import NotFittedError
    except ImportError:
        return ValueError(text)
    error: Exception = NotFittedError(text)
    return error
