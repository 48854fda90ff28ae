"""Complete images and matrices with infinitely wide neural networks.

A network is defined once from layers that mirror ``torch.nn`` and read two ways: ``forward`` is the finite network,
``kernel`` gives the exact convolutional neural tangent kernel of the infinitely wide one (Radhakrishnan, Stefanakis,
Belkin, Uhler, PNAS 2022). Masks are called ``observed`` everywhere: boolean, True = known.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_cntk._exports import *  # noqa: F403
    from torch_cntk._exports import __all__ as __all__
    from torch_cntk.matrices import baselines as baselines
    from torch_cntk.matrices import drug_response as drug_response

    __version__: str

_PARTS = ("finite", "images", "matrices", "operators", "priors", "zoo")
"""Sub-packages that are names of the package."""
_LATE = {"baselines": "torch_cntk.matrices.baselines", "drug_response": "torch_cntk.matrices.drug_response"}
"""Sub-packages that few users need: imported when they are asked for, and not offered by ``__all__``."""


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch-cntk")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch takes a second, which the command wants to spend with Ctrl-C under control.

    Raises:
        AttributeError: there is no such name.
    """
    from importlib import import_module

    if name == "__version__":
        return _version()
    if name in _PARTS:
        return import_module(f"torch_cntk.{name}")
    if name in _LATE:
        return import_module(_LATE[name])
    exports = None if name.startswith("__") and name != "__all__" else import_module("torch_cntk._exports")
    if exports is None or (name != "__all__" and name not in exports.__all__):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(exports, name)
    return value


def __dir__() -> list[str]:
    from torch_cntk import _exports

    return sorted({*globals(), *_exports.__all__, *_LATE, "__version__"})
