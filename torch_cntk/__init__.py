"""Complete images and matrices with infinitely wide neural networks.

A network is defined once from layers that mirror ``torch.nn`` and read two ways: ``forward`` is the finite network,
``kernel`` gives the exact convolutional neural tangent kernel of the infinitely wide one (Radhakrishnan, Stefanakis,
Belkin, Uhler, PNAS 2022). Masks are called ``observed`` everywhere: boolean, True = known.

``__init__.pyi`` lists the names.
"""

import sys
from pathlib import PurePath

import lazy_loader

_LATE = ("baselines", "drug_response")
"""Names that few users need: each is imported when it is asked for."""

_of_stub, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Import what is asked for.

    Raises:
        AttributeError: there is no such name; says what comes close.
    """
    if name in __all__:
        return _of_stub(name)
    if name != "__version__":
        from torch_cntk._internal.guesses import hint

        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint(name, __all__)}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch-cntk")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"


def _is_the_command() -> bool:
    """Whether this is ``torch-cntk`` or ``python -m torch_cntk``.

    The command imports torch, which takes a second, by itself: with Ctrl-C under control.
    """
    module = [after for before, after in zip(sys.orig_argv, sys.orig_argv[1:], strict=False) if before == "-m"]
    return module[:1] == [__name__] or PurePath(sys.argv[0] if sys.argv else "").stem == "torch-cntk"


if not _is_the_command():
    for _name in __all__:
        if _name not in _LATE:
            __getattr__(_name)
