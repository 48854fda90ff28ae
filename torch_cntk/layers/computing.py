"""The kernels of a network between pixels: the prior's covariance, taken through its layers, as a table."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_cntk._internal.agreed_memory import agreed_memory, ranks_of
from torch_cntk._internal.checks import as_device, as_precision, as_size, shape_text
from torch_cntk._internal.contexts import plain
from torch_cntk._internal.memory import require_bytes
from torch_cntk._internal.ranks import Mesh
from torch_cntk._internal.tunable import asks_for_gradients
from torch_cntk.covariance import TAPERS, Extent, Lattice, Taper
from torch_cntk.covariance.lattice.evaluation import Evaluation
from torch_cntk.covariance.lattice.recorded import RecordedEvaluation
from torch_cntk.kernels.build import check_finite, check_held, from_table, from_window
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.kernels.shared import Shared
from torch_cntk.layers.between import Between, gram, gram_operator
from torch_cntk.layers.recording import recording, require_reached
from torch_cntk.priors.base import Prior, named_prior

if TYPE_CHECKING:
    from torch_cntk.layers.base import Layer

__all__ = ["Between", "Options", "Recomputed", "gram", "gram_operator", "kernel"]

_LOG = logging.getLogger(__name__)

_LEAST_BYTES = 2
"""A table takes so many bytes for each pixel of its torus at the least: about half of the displacements are stored, in
float64."""
_ABSURD = 1 << 100
"""Bytes that nobody has; more of them are not worth telling apart."""


@dataclass(frozen=True)
class Options:
    """See ``Layer.kernel``."""

    radius: int | tuple[int, ...] | None = None
    kind: str = "ntk"
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    progress: bool = False
    input_size: tuple[int, ...] | None = None
    mesh: Mesh | None = None
    taper: Taper = "wendland"


@dataclass(frozen=True)
class _Task:
    """A kernel to be computed: ``Options`` with their defaults filled in, and what they are for."""

    network: Layer
    prior: Prior
    ndim: int
    kind: str
    dtype: torch.dtype
    device: torch.device
    progress: bool
    input_size: tuple[int, ...] | None
    mesh: Mesh | None
    recorded: bool

    def output(self, source: tuple[int, ...], precision: torch.dtype = torch.float64) -> Lattice:
        """The covariance of the network's output for inputs of a size."""
        return self.network.propagate(self.prior.covariance(source, self.device, precision))

    def evaluation(self, output: Lattice) -> Evaluation:
        """What computes the network's output."""
        return (RecordedEvaluation if self.recorded else Evaluation)(output, self.kind)

    @property
    def origin(self) -> dict[str, Any]:
        """See ``Kernel``."""
        return {"network": self.network.description(), "prior": self.prior.description(), "kind": self.kind}


def kernel(network: Layer, prior: Prior | str, size: tuple[int, ...] | None, options: Options) -> Kernel:
    """As ``Layer.kernel``, which has the arguments.

    Raises:
        TypeError: see there.
        ValueError: see there.
        OutOfMemoryError: see there.
    """
    if options.kind not in ("ntk", "nngp"):
        raise ValueError(f'expected kind "ntk" or "nngp", got {options.kind!r}')
    if options.taper not in TAPERS:
        raise ValueError(f"expected a taper among {', '.join(TAPERS)}, got {options.taper!r}")
    if options.radius is None and options.taper != TAPERS[0]:
        raise ValueError(f"expected a radius, beyond which the taper {options.taper!r} is 0, got None")
    if isinstance(prior, str):
        prior = named_prior(prior)
    if not isinstance(prior, Prior):
        tensor = isinstance(prior, torch.Tensor)
        got = f"a tensor of shape {tuple(prior.shape)}; see priors.Tensor" if tensor else repr(prior)
        raise TypeError(f"expected a feature prior, such as priors.Uniform(), got {got}")
    network.require_exact(gaussian=prior.gaussian)
    asked = (size, options.input_size, options.radius, options.taper, options.kind, options.dtype)
    ranks_of(options.mesh).agree(network=network, prior=_facts(prior), size_and_other_options=asked)
    device = as_device(options.device or prior.device or ("cpu" if options.mesh is None else options.mesh.device))
    if options.dtype is not None:
        as_precision(options.dtype)
    ndim = _ndim(network, prior, options.input_size if size is None else size)
    source = prior.size if options.input_size is None else as_size(options.input_size, "input_size", ndim)
    if prior.size not in (None, source):
        raise ValueError(f"expected the prior's size as input_size, {prior.size}, got {source}")
    dtype = options.dtype or prior.dtype
    of_prior = prior.tensors(ndim) if torch.is_grad_enabled() else []
    recorded = bool(of_prior) or asks_for_gradients(network.modules())
    if recorded and options.mesh is not None:
        raise ValueError("expected no options that require gradients with a mesh: ranks do not divide gradients")
    task = _Task(network, prior, ndim, options.kind, dtype, device, options.progress, source, options.mesh, recorded)
    with recording() if recorded else plain(), agreed_memory(ranks_of(options.mesh)):
        made = _whole(task, size) if options.radius is None else _windowed(task, size, options.radius, options.taper)
    if recorded:
        require_reached([table.values for table in made.storage.tables.values()], network.modules(), of_prior)
    return made


def _facts(prior: object) -> object:
    """What a prior consists of, tensors included, as ``Mesh.agree`` compares it."""
    if isinstance(prior, Prior):
        return {"prior": type(prior).__name__, **{name: _facts(value) for name, value in vars(prior).items()}}
    return [_facts(entry) for entry in prior] if isinstance(prior, list | tuple) else prior


def _whole(task: _Task, size: tuple[int, ...] | None) -> Kernel:
    """A kernel of all displacements."""
    start = task.prior.extent(task.ndim)
    extent = task.network.propagate(start or Extent.start(task.ndim))
    torus = _torus(task, extent, size, stationary=start is not None)
    # Also of a kernel that serves any size the size that was asked for must be one of them.
    source = _source(task, extent, torus)
    # A kernel of any size also serves this one, unless displacements would wrap.
    free = (
        start is not None
        and extent.shift_invariant
        and extent.fits(source)
        and all(n >= 2 * r + 1 for n, r in zip(torus, extent.radius, strict=True))
    )
    if free:
        torus = extent.smallest_torus()
        source = extent.input_size(torus)
    _require_least(torus, source)
    if task.mesh is not None:
        return _share(task, source, task.mesh, free=free)
    output = task.output(source)
    radius = extent.radius if free else None
    far: float | Tensor | None = None
    evaluation = task.evaluation(output)
    if radius is not None and not extent.uniform:
        # What is beyond the radius is a table itself: taken from the whole one before it is rounded.
        table = evaluation.tabulate(torch.float64, progress=task.progress)[0]
    else:
        table, far = evaluation.tabulate(task.dtype, radius=radius, progress=task.progress)
    if not far:
        check_held(table, task.dtype, lambda: evaluation.tabulate(torch.float64)[0])
    rebuild = Recomputed(task.network, task.prior, task.kind, task.dtype, task.device) if free else None
    return from_table(table, radius=radius, far=far, dtype=task.dtype, origin=task.origin, rebuild=rebuild)


def _share(task: _Task, source: tuple[int, ...], mesh: Mesh, *, free: bool) -> Kernel:
    """A rank's share of a kernel of one size.

    Raises:
        ValueError: all displacements together are few, as the kernel is periodic.
    """
    output = task.output(source)
    geometry = output.geometry
    if free or geometry.period != geometry.size:
        raise ValueError(
            f"expected a kernel whose period is the image, {shape_text(geometry.size)} pixels, got one of period "
            f"{shape_text(geometry.period)}, which is small and not divided: make it without mesh on every rank, "
            "inpaint(mesh=...) divides the work with it"
        )
    with mesh.together():
        table = Evaluation(output, task.kind).tabulate_share(task.dtype, mesh.share, progress=task.progress)
        check_finite(table.values)
    return Kernel(Shared(table, mesh), task.origin)


def _torus(task: _Task, extent: Extent, size: tuple[int, ...] | None, *, stationary: bool) -> tuple[int, ...]:
    """The output's size, or a default for it.

    Raises:
        ValueError: the size is needed and missing, or the prior's does not fit.
    """
    if size is not None:
        return as_size(size, "size", task.ndim)
    if task.input_size is not None:
        return _output_size(task.input_size, extent)
    if not stationary:
        raise ValueError(f"the kernel of {task.prior!r} belongs to one image size: expected size, got None")
    if not extent.shift_invariant:
        raise ValueError(
            "a layer of this network treats the border of the image specially, so its kernel belongs to one "
            "image size: expected size, such as (256, 256), got None"
        )
    return extent.smallest_torus()


def _output_size(source: tuple[int, ...], extent: Extent) -> tuple[int, ...]:
    """The size of the output for an input of a size.

    Raises:
        ValueError: the network does not take images of that size.
    """
    try:
        return extent.output_size(source)
    except ValueError as error:
        raise ValueError(
            f"an input of {shape_text(source)} pixels does not fit this network; pad it: {error}"
        ) from None


def _source(task: _Task, extent: Extent, torus: tuple[int, ...]) -> tuple[int, ...]:
    """The input's size for an output of a size: the one that is given, or else the largest one that gives it.

    Raises:
        ValueError: there is none, or the one that is given gives another output.
    """
    if task.input_size is None:
        return extent.input_size(torus)
    output = _output_size(task.input_size, extent)
    if output != torus:
        raise ValueError(f"expected the output's size {output}, got {torus}, for an input of size {task.input_size}")
    return task.input_size


def _require_least(*toruses: tuple[int, ...]) -> None:
    """Refuse at once what could not fit by any means; the exact number of bytes is found later, by the lattice.

    Raises:
        OutOfMemoryError: one number a displacement would not fit.
    """
    for torus in toruses:
        require_bytes(
            min(_LEAST_BYTES * math.prod(torus), _ABSURD),
            f"the kernel of this network on {shape_text(torus)} pixels",
            lambda free: "take fewer levels, or a smaller image",
        )


def _windowed(task: _Task, size: tuple[int, ...] | None, radius: int | tuple[int, ...], taper: Taper) -> Kernel:
    """A kernel under a taper.

    Raises:
        TypeError: the radius is no integer or tuple of them.
        ValueError: the size is missing or does not fit, the radius is below 1, or ranks are to divide a small window.
    """
    if size is None and task.input_size is None:
        raise ValueError("a kernel with a radius belongs to one image size: expected size, got None")
    extent = task.network.propagate(Extent.start(task.ndim))
    output = _torus(task, extent, size, stationary=False)
    asked = as_size(radius if isinstance(radius, Sequence) else (radius,) * task.ndim, "radius", task.ndim)
    clamped = tuple(min(r, max(n // 2, 1)) for r, n in zip(asked, output, strict=True))
    if clamped != asked:
        _LOG.warning("radius %s is beyond half of %s pixels: cut to %s", asked, shape_text(output), clamped)
    source = _source(task, extent, output)
    _require_least(output, source)
    computed = torch.float64 if task.dtype == torch.float64 else torch.float32
    covariance = task.output(source, computed)
    origin = {**task.origin, "radius": clamped, **({} if taper == TAPERS[0] else {"taper": taper})}
    evaluation, mesh = task.evaluation(covariance), task.mesh
    if mesh is None:
        table = evaluation.tabulate_window(task.dtype, clamped, taper, progress=task.progress)
        exact = lambda: task.evaluation(task.output(source)).tabulate_window(torch.float64, clamped, taper)  # noqa: E731
        check_held(table, task.dtype, exact)
        return from_window(table, origin)
    if covariance.geometry.period != covariance.geometry.size:
        raise ValueError(
            "expected a prior that differs from pixel to pixel for a window that ranks divide, got a stationary one, "
            "whose window is small: make it without mesh on every rank"
        )
    with mesh.together():
        table = evaluation.tabulate_window(task.dtype, clamped, taper, progress=task.progress, share=mesh.share)
        check_finite(table.values)
    return Kernel(Shared(table, mesh), origin)


def _ndim(network: Layer, prior: Prior, size: tuple[int, ...] | None) -> int:
    """Spatial dimensions of the images.

    Raises:
        ValueError: network, prior and size do not agree, or the network has none.
    """
    if network.ndim == 0:
        raise ValueError("a fully connected network has no pixels; net.gram(features) is its kernel between inputs")
    if network.flattens:
        raise ValueError("the network ends in no pixels; net.gram(images) is its kernel between images")
    given = {
        "the network": network.ndim,
        "the prior": None if prior.size is None else len(prior.size),
        "size": None if size is None else len(as_size(size)),
    }
    known = {name: ndim for name, ndim in given.items() if ndim is not None}
    if len(set(known.values())) > 1:
        text = ", ".join(f"{name} has {ndim}" for name, ndim in known.items())
        raise ValueError(f"expected the same number of spatial dimensions everywhere, got: {text}")
    return next(iter(known.values()), 2)


@dataclass(frozen=True)
class Recomputed:
    """Computes the kernel of a network anew, for sizes on which displacements wrap; see ``Rebuild``.

    When it is pickled, descriptions stand for the network and the prior, without weights. What has none is pickled
    itself, and forgotten where that is not possible: the kernel then refuses those sizes, as one from a file does.

    Attributes:
        network: whose kernel.
        prior: of its input.
        kind: "ntk" or "nngp".
        dtype: of the kernel.
        device: where to compute; by default where the prior is, or the CPU.
    """

    network: Layer
    prior: Prior
    kind: str
    dtype: torch.dtype
    device: torch.device | None = None

    def __call__(self, size: tuple[int, ...]) -> Kernel:
        """The kernel of that size."""
        return kernel(self.network, self.prior, size, Options(None, self.kind, self.dtype, self.device))

    def __deepcopy__(self, memo: dict[int, Any]) -> Recomputed:
        """Itself: nothing in it changes."""
        return self

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Descriptions, or the objects, or nothing."""
        rest = (self.kind, self.dtype, self.device)
        network, prior = _described(self.network), self.prior.description()
        if network is not None and prior is not None:
            return from_descriptions, (network, prior, *rest)
        given = (self.network, self.prior, *rest)
        try:
            pickle.dumps(given)
        except Exception:  # a user's function may fail in any way
            return _Forgotten, ()
        return Recomputed, given


class _Forgotten:
    """In the place of a network that cannot be pickled."""

    def __call__(self, size: tuple[int, ...]) -> None:
        """Nothing."""


def _described(network: Layer) -> Mapping[str, Any] | None:
    """The network's description, or None if the network cannot be made of it."""
    from torch_cntk.layers.base import from_description

    description = network.description()
    try:
        with torch.device("meta"):
            from_description(description)
    except (NotImplementedError, KeyError, TypeError, ValueError):
        return None
    return description


def from_descriptions(
    network: Mapping[str, Any],
    prior: Mapping[str, Any],
    kind: str,
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Recomputed:
    """What rebuilds a kernel, from the descriptions in its origin; the network's weights are never drawn.

    Raises:
        NotImplementedError: a description cannot hold what it names.
        KeyError: a description is incomplete.
        TypeError: an option is of another type.
        ValueError: a description names an unknown layer or prior.
    """
    from torch_cntk import priors
    from torch_cntk.layers.base import from_description

    with torch.device("meta"):
        net = from_description(network)
    return Recomputed(net, priors.from_description(prior), kind, dtype, device)
