"""Estimators in the manner of scikit-learn, which is not needed for them."""

from __future__ import annotations

import inspect
from typing import Any, Self

__all__ = ["Estimator", "Parameters"]


class Parameters:
    """The constructor's arguments, kept under their own names: enough for ``sklearn.base.clone``."""

    @classmethod
    def _names(cls) -> list[str]:
        return [name for name in inspect.signature(cls).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; ``deep`` changes nothing."""
        return {name: getattr(self, name) for name in self._names()}


class Estimator(Parameters):
    """Parameters that can be changed, and a representation that lists those that are not the defaults."""

    def set_params(self, **params: Any) -> Self:
        """Change some of the constructor's arguments.

        Raises:
            ValueError: there is no such argument.
        """
        for name, value in params.items():
            if name not in self._names():
                raise ValueError(f"expected a parameter among {', '.join(self._names())}, got {name!r}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            input_tags=InputTags(allow_nan=True),
        )

    def __repr__(self) -> str:
        defaults = {name: parameter.default for name, parameter in inspect.signature(type(self)).parameters.items()}
        changed = {name: value for name, value in self.get_params().items() if value is not defaults[name]}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"
