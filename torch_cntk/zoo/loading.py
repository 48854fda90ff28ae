"""Kernels by name or file: those that ship, those in the user's cache, and files that know their network."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import filelock
import platformdirs
import torch

from torch_cntk import priors
from torch_cntk.kernels import kernel as _kernel
from torch_cntk.kernels.kernel import FORMAT_VERSION, Kernel
from torch_cntk.layers import from_description
from torch_cntk.zoo import catalogue
from torch_cntk.zoo.catalogue import Recipe, Shipped

__all__ = ["cache_folder", "cached_names", "load_kernel"]

_EXAMPLE = "uniform-5x128-leaky0.1"


def load_kernel(
    name: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Kernel:
    """Get a kernel by its name, or read one from a file that ``Kernel.save`` wrote.

    Names are ``PRIOR-[plain-|skip-|fine-|wide-]LEVELSxCHANNELS-ACTIVATION[-HEIGHTxWIDTH]``, such as
    ``uniform-5x128-leaky0.1`` or ``identity-plain-3x128-relu-64x64``; see ``torch_cntk.catalogue`` for the networks.
    Common ones ship with the package (``torch-cntk kernels`` lists them); any other is computed when it is first asked
    for and kept in the user's cache folder, or that of the environment variable TORCH_CNTK_CACHE. Several processes may
    ask at once: one computes, the others wait.

    Args:
        name: of a kernel, or path of a .safetensors file.
        dtype: to hold it in; as stored by default (float32 for named kernels).
        device: to hold it on; the CPU by default.
        progress: whether to show a bar if the kernel has to be computed.

    Returns:
        the kernel. If its prior is stationary, images so small that displacements wrap are served as well: their
        kernel is computed from the network's description in the file.

    Raises:
        FileNotFoundError: there is no such file, nor a kernel of that name.
        ValueError: the file is truncated, damaged, not a kernel file, of a newer format, or (for a name) not that
            kernel's.
        OutOfMemoryError: the kernel has to be computed and would not fit.
    """
    recipe = None
    if isinstance(name, str) and not name.endswith(".safetensors") and not Path(name).is_file():
        recipe = catalogue.recipe(name)
        if recipe is None:
            raise FileNotFoundError(f"there is no kernel file {name}, and it is no kernel's name, such as {_EXAMPLE!r}")
    if recipe is None:
        kernel = _read(Path(name))
    elif recipe.name in catalogue.index():
        kernel = _read_shipped(catalogue.index()[recipe.name])
    else:
        kernel = _cached(recipe, progress)
    return kernel.to(dtype, device)


def _read(path: Path) -> Kernel:
    """A kernel from a file, able to serve the sizes on which displacements wrap.

    Raises:
        ValueError: the file is damaged, or its network unknown.
    """
    kernel = _kernel.read(path)
    network, prior = kernel.origin.get("network"), kernel.origin.get("prior")
    if kernel.size is None and network is not None and prior is not None:
        try:
            with torch.device("meta"):  # its weights are not needed
                net = from_description(network)
            source = priors.from_description(prior)
        except NotImplementedError:
            return kernel
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} describes a network that this version does not know: {error}") from error
        kind, stored = kernel.origin.get("kind", "ntk"), kernel.dtype
        kernel.rebuild = lambda size: net.kernel(source, size, kind=kind, dtype=stored)
    return kernel


def _read_shipped(entry: Shipped) -> Kernel:
    """A kernel that came with the package.

    Raises:
        FileNotFoundError: its file is missing.
        ValueError: its file is not the one that was shipped.
    """
    if not entry.path.is_file():
        raise FileNotFoundError(f"expected the precomputed kernel {entry.path}; install torch_cntk again")
    found = hashlib.sha256(entry.path.read_bytes()).hexdigest()
    if found != entry.sha256:
        raise ValueError(
            f"{entry.path} is damaged: expected the SHA-256 sum {entry.sha256}, got {found}; install torch_cntk again"
        )
    return _read(entry.path)


def cache_folder() -> Path:
    """Where kernels that do not ship are kept: TORCH_CNTK_CACHE if that is set, or the user's cache folder."""
    given = os.environ.get("TORCH_CNTK_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("torch_cntk", appauthor=False))


def cached_names() -> list[str]:
    """Names of the kernels in the cache folder."""
    suffix = _cache_suffix()
    return sorted(path.name.removesuffix(suffix) for path in cache_folder().glob(f"*{suffix}"))


def _cache_suffix() -> str:
    # Another format is another file: versions of the package may share the folder.
    return f".v{FORMAT_VERSION}.safetensors"


def _cached(recipe: Recipe, progress: bool) -> Kernel:
    """The kernel from the cache, where it is put if it is not there.

    Raises:
        ValueError: what is in the cache is not this kernel.
    """
    with torch.device("meta"):  # the weights are not needed, and may be too many to be stored
        network = recipe.network
    path = cache_folder() / f"{recipe.name}{_cache_suffix()}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            kernel = network.kernel(recipe.prior, recipe.size, dtype=torch.float32, progress=progress)
            kernel.save(path, compact=True)
    try:
        kernel = _read(path)
    except ValueError as error:
        raise ValueError(f"{error}; delete it to have the kernel computed again") from error
    if kernel.origin != recipe.origin or kernel.size != recipe.size:
        raise ValueError(f"{path} is the kernel of another network or prior than its name says; delete it")
    return kernel
