"""Kernels by name or file: those that ship, those in the user's cache, and files that know their network."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import filelock
import platformdirs
import torch

from torch_cntk._internal.memory import require_bytes
from torch_cntk.kernels.files import repacked
from torch_cntk.kernels.format import FORMAT_VERSION
from torch_cntk.kernels.kernel import Kernel, read
from torch_cntk.layers.computing import from_descriptions
from torch_cntk.zoo import catalogue
from torch_cntk.zoo.catalogue import Recipe, Shipped

__all__ = ["cache_folder", "cached_names", "load_kernel"]

_LOG = logging.getLogger(__name__)
_LOCK_SECONDS = 60.0
"""How long to wait for another process that computes the same kernel. Most take seconds; of those that take longer, or
whose process has been stopped, it is better to do the work twice than to wait for ever."""


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

    Example:
        >>> import torch_cntk as tc
        >>> kernel = tc.load_kernel("uniform-3x128-relu")
        >>> kernel.period, kernel.radius, kernel.size
        ((8, 8), (7, 7), None)
    """
    recipe = None
    if isinstance(name, str) and not name.endswith(".safetensors") and not _is_file(name):
        recipe = catalogue.recipe(name)
        if recipe is None:
            raise FileNotFoundError(
                f"there is no kernel file {name}, and it is no kernel's name, such as {catalogue.EXAMPLE!r}: "
                f"expected {catalogue.what_is_wrong(name)}"
            )
    if recipe is None:
        kernel = _read(Path(name))
    elif recipe.name in catalogue.index():
        kernel = _read_shipped(catalogue.index()[recipe.name])
    else:
        kernel = _cached(recipe, progress)
    return kernel.to(dtype, device)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except OSError:  # no file can have such a name
        return False


def _read(path: Path) -> Kernel:
    """A kernel from a file, able to serve the sizes on which displacements wrap.

    Raises:
        ValueError: the file is damaged, or its network unknown.
    """
    kernel = read(path)
    network, prior = kernel.origin.get("network"), kernel.origin.get("prior")
    if kernel.size is not None or network is None or prior is None:
        return kernel
    try:
        rebuild = from_descriptions(network, prior, kernel.origin.get("kind", "ntk"), kernel.dtype)
    except NotImplementedError:
        return kernel
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} describes a network that this version does not know: {error}") from error
    return kernel.rebuilt_by(rebuild)


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

    A cache that cannot be used costs a warning in the log, and the time to compute.
    """
    path = cache_folder() / f"{recipe.name}{_cache_suffix()}"
    # Files appear whole or not at all: no lock is needed to read.
    kernel = _read_cached(path, recipe, logging.DEBUG)
    if kernel is not None:
        return kernel
    with _lock(path):
        return _read_cached(path, recipe, logging.WARNING) or _computed(recipe, path, progress)


def _read_cached(path: Path, recipe: Recipe, level: int) -> Kernel | None:
    """The kernel from its file in the cache, or None if there is no good one; the log says why, at that level."""
    try:
        kernel = _read(path) if path.is_file() else None
    except (OSError, ValueError) as error:
        _LOG.log(level, "a cached kernel is computed again: %s", error)
        return None
    if kernel is not None and (kernel.origin != recipe.origin or kernel.size != recipe.size):
        _LOG.log(level, "a cached kernel is computed again: %s is of another network or prior than its name", path)
        return None
    return kernel


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Wait until no other process computes this kernel, within reason.

    The operating system releases the lock of a process that ends, in whatever way. One that stands still, or a folder
    in which nothing can be locked, does not hold others up: they compute the kernel as well.
    """
    lock = filelock.FileLock(path.with_suffix(".lock"), timeout=_LOCK_SECONDS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        _LOG.warning("the cache of kernels cannot be locked, so that others may do the same work: %s", error)
    try:
        yield
    finally:
        lock.release()


def _computed(recipe: Recipe, path: Path, progress: bool) -> Kernel:
    """Compute the kernel, write it to the cache if that is possible, and give it as it would be read from there.

    Raises:
        OutOfMemoryError: the kernel would not fit.
    """
    if recipe.size is not None:
        # A quarter of all pairs of pixels, in float32; known before features are made.
        require_bytes(math.prod(recipe.size) ** 2, f"the kernel {recipe.name}", lambda free: "take a smaller image")
    kernel = recipe.blank.kernel(recipe.prior, recipe.size, dtype=torch.float32, device="cpu", progress=progress)
    try:
        kernel.save(path, compact=True)
    except OSError as error:
        _LOG.warning("the kernel %s cannot be kept in the cache: %s", recipe.name, error)
    return replace(kernel, storage=repacked(kernel.storage), origin=recipe.origin)
