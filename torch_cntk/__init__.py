"""Complete images and matrices with infinitely wide neural networks.

A network is defined once from layers that mirror ``torch.nn`` and read two ways: ``forward`` is the finite network,
``kernel`` gives the exact convolutional neural tangent kernel of the infinitely wide one (Radhakrishnan, Stefanakis,
Belkin, Uhler, PNAS 2022). Masks are called ``observed`` everywhere: boolean, True = known.

``__init__.pyi`` lists the names. Each is imported when it is asked for: torch takes a second, which the command
``torch-cntk`` spends with Ctrl-C under control.
"""

import lazy_loader

_of_stub, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Import what is asked for.

    Raises:
        AttributeError: there is no such name.
    """
    if name != "__version__":
        return _of_stub(name)
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch-cntk")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
