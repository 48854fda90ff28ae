"""What every layer is: a torch module of finite width, and a rule for covariances."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor

from torch_cntk._internal.checks import as_size, shape_text
from torch_cntk._internal.memory import allocating, require_bytes
from torch_cntk.covariance import Covariance, Extent
from torch_cntk.covariance.signal import Signal
from torch_cntk.kernels.kernel import Kernel, from_table, from_window
from torch_cntk.operators.gram import GramOperator

if TYPE_CHECKING:
    from torch_cntk.priors.base import Prior

__all__ = ["Layer", "from_description"]

C = TypeVar("C", bound=Covariance)
_LOG = logging.getLogger(__name__)


class Layer(torch.nn.Module):
    """A ``torch.nn.Module`` that is defined once and read two ways.

    ``forward`` is the finite network; ``propagate`` takes the covariance of its input to that of its output as the
    width goes to infinity, in the NTK parameterisation.

    Attributes:
        in_channels: channels that the layer needs, or None if it takes any.
        out_channels: channels that it gives, or None if it gives as many as it gets.
        ndim: its number of spatial dimensions, or None if it works in any.
    """

    in_channels: int | None = None
    out_channels: int | None = None
    ndim: int | None = None

    _options: ClassVar[tuple[str, ...]] = ()
    _by_name: ClassVar[dict[str, type[Layer]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not cls.__name__.startswith("_"):
            Layer._by_name[cls.__name__] = cls

    @abstractmethod
    def propagate(self, covariance: C) -> C:
        """Covariance of the output, given that of the input, in whatever form it is stored."""

    def trace(self, signal: Signal) -> Signal:
        """What is known of the features after this layer: by default, those of weights if it has any, or a linear map.

        Raises:
            ValueError: the layer's rule for covariances would not be exact here.
        """
        if next(self.parameters(recurse=False), None) is not None:
            return signal.weighted(id(self))
        return signal

    def description(self) -> dict[str, Any]:
        """Name and options of the layer, of which ``from_description`` makes it anew (with fresh weights)."""
        return {"layer": type(self).__name__, **{name: getattr(self, name) for name in self._options}}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layer:
        """Make the layer from its description, less the name."""
        return cls(**options)

    def extra_repr(self) -> str:
        """The options, as they would be typed."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._options)

    @allocating("the kernel")
    def kernel(
        self,
        prior: Prior,
        size: tuple[int, ...] | None = None,
        *,
        radius: int | tuple[int, ...] | None = None,
        kind: str = "ntk",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> Kernel:
        """Compute the exact kernel of this network as its width goes to infinity.

        Args:
            prior: the network's input.
            size: size of the output image. Not needed for a stationary prior, whose kernel then serves every size
                that is a multiple of its period, nor for a prior that has a size.
            radius: R, one number or one an axis: the kernel is multiplied by Wendland's function of |(x' - x) / R|,
                which vanishes from 1 on and keeps it positive semi-definite. Only displacements inside are computed
                and stored, so that time and memory grow with the pixels and not with their square. At most half of
                the image; larger ones are cut to that, which the log says.
            kind: "ntk" (of training all layers) or "nngp" (of training the last layer only).
            dtype: the kernel is stored in; by default float64, or that of ``priors.Tensor``. It is always computed
                in float64, unless there is a radius: then it is computed in float32 where it is stored in that or in
                float16. Features that are equal to seven digits without being the same get an error of some 1e-4
                of the largest entry then, others of 1e-6.
            device: where to compute; by default where the prior is, or the CPU.
            progress: whether to show a bar.

        Returns:
            the kernel between pixels of the output.

        Raises:
            ValueError: the size does not fit the network or the prior, or it is needed and missing; or a layer's rule
                would not be exact at its place in the network.
            OutOfMemoryError: the kernel would not fit into memory; nothing has been computed then.
        """
        if kind not in ("ntk", "nngp"):
            raise ValueError(f'expected kind "ntk" or "nngp", got {kind!r}')
        self.trace(Signal.of_prior())
        dtype = dtype or prior.dtype
        device = torch.device(device or prior.device or "cpu")
        ndim = self._kernel_ndim(prior, size)
        if radius is not None:
            return self._windowed_kernel(prior, size or prior.size, radius, ndim, kind, dtype, device, progress)
        extent = prior.extent(ndim)
        stationary = extent is not None
        extent = self.propagate(extent or Extent.start(ndim))
        if size is None and prior.size is None:
            if not stationary:
                raise ValueError(f"the kernel of {prior!r} belongs to one image size: expected size, got None")
            if not extent.shift_invariant:
                raise ValueError(
                    "a layer of this network treats the border of the image specially, so its kernel belongs to one "
                    "image size: expected size, such as (256, 256), got None"
                )
            torus = extent.smallest_torus()
        elif size is None:
            assert prior.size is not None
            torus = tuple(int(n * s) for n, s in zip(prior.size, extent.scale, strict=True))
            if extent.input_size(torus) != prior.size:
                raise ValueError(f"a prior of {shape_text(prior.size)} pixels does not fit this network; pad it")
        else:
            torus = as_size(size, "size", ndim)
        source = extent.input_size(torus)
        # A kernel of any size also serves this one, unless displacements would wrap.
        free = (
            stationary
            and extent.shift_invariant
            and all(n >= 2 * r + 1 for n, r in zip(torus, extent.radius, strict=True))
        )
        if free:
            torus = extent.smallest_torus()
            source = extent.input_size(torus)
        output = self.propagate(prior.covariance(source, device))
        radius = extent.radius if free else None
        if radius is not None and not extent.uniform:
            # What is beyond the radius is a table itself: taken from the whole one before it is rounded.
            table, far = output.tabulate(kind, torch.float64, progress=progress)[0], None
        else:
            table, far = output.tabulate(kind, dtype, radius=radius, progress=progress)
        return from_table(
            table,
            radius=radius,
            far=far,
            dtype=dtype,
            origin={"network": self.description(), "prior": prior.description(), "kind": kind},
            rebuild=lambda n: self.kernel(prior, n, kind=kind, dtype=dtype, device=device) if stationary else None,
        )

    def _windowed_kernel(
        self,
        prior: Prior,
        size: tuple[int, ...] | None,
        radius: int | tuple[int, ...],
        ndim: int,
        kind: str,
        dtype: torch.dtype,
        device: torch.device,
        progress: bool,
    ) -> Kernel:
        """As ``kernel``, for its arguments after their defaults.

        Raises:
            TypeError: the radius is no integer or tuple of them.
            ValueError: the size is missing or does not fit, or the radius is below 1.
        """
        if size is None:
            raise ValueError("a kernel with a radius belongs to one image size: expected size, got None")
        extent = self.propagate(Extent.start(ndim))
        output = as_size(size, "size", ndim)
        if size is prior.size:
            output = tuple(int(n * s) for n, s in zip(size, extent.scale, strict=True))
        reach = as_size(radius if isinstance(radius, Sequence) else (radius,) * ndim, "radius", ndim)
        clamped = tuple(min(r, max(n // 2, 1)) for r, n in zip(reach, output, strict=True))
        if clamped != reach:
            _LOG.warning("radius %s is beyond half of %s pixels: cut to %s", reach, shape_text(output), clamped)
        computed = torch.float64 if dtype == torch.float64 else torch.float32
        covariance = self.propagate(prior.covariance(extent.input_size(output), device, computed))
        table = covariance.tabulate_window(kind, dtype, clamped, progress=progress)
        return from_window(
            table, {"network": self.description(), "prior": prior.description(), "kind": kind, "radius": clamped}
        )

    def gram_operator(
        self, features: Tensor, *, kind: str = "ntk", white: float = 0.0, dtype: torch.dtype | None = None
    ) -> GramOperator:
        """The exact kernel of this fully connected network between inputs, as a linear map that stores no matrix.

        Args:
            features: [n, p], one input a row, floating point; Sigma_0(x, x') is the mean of their products.
            kind: "ntk" (of training all layers) or "nngp" (of training the last layer only).
            white: added to the variance of each input, as by a block of the identity matrix behind the features.
            dtype: in which it multiplies; that of the features by default.

        Returns:
            the operator, of size (n,).

        Raises:
            TypeError: the features are no floating point tensor.
            ValueError: this is no fully connected network, a layer's rule would not be exact at its place in it, or the
                features are not [n, p] and finite.
        """
        if not isinstance(features, torch.Tensor) or not features.is_floating_point():
            got = features.dtype if isinstance(features, torch.Tensor) else type(features).__name__
            raise TypeError(f"expected a floating point tensor [inputs, features], got {got}")
        if not bool(torch.isfinite(features).all()):
            raise ValueError("expected finite features, got NaN or infinity among them")
        if features.ndim == 2 and self.in_channels not in (None, features.shape[1]):
            raise ValueError(f"expected the network's {self.in_channels} features, got {features.shape[1]}")
        self.trace(Signal.of_prior())
        return GramOperator(self.propagate, features, kind=kind, white=white, dtype=dtype)

    @allocating("the matrix of the kernel")
    def gram(self, features: Tensor, others: Tensor | None = None, *, kind: str = "ntk") -> Tensor:
        """The exact kernel of this fully connected network between inputs, as a matrix.

        Args:
            features: [n, p], one input a row, floating point; Sigma_0(x, x') is the mean of their products.
            others: [m, p]; the same inputs by default.
            kind: "ntk" (of training all layers) or "nngp" (of training the last layer only).

        Returns:
            K between the inputs and the others, [n, m], in float64.

        Raises:
            TypeError: the features are no floating point tensor.
            ValueError: this is no fully connected network, or the features are not [n, p] and finite.
            OutOfMemoryError: the matrix would not fit; ``gram_operator`` multiplies by it without storing it.
        """
        operator = self.gram_operator(features if others is None else others, kind=kind)
        count = len(features)
        require_bytes(
            count * operator.size[0] * 8,
            f"the kernel between {count:,} and {operator.size[0]:,} inputs",
            lambda free: "net.gram_operator(features) multiplies by it without storing it",
            features.device,
        )
        return operator.dense() if others is None else operator.cross(features)

    def _kernel_ndim(self, prior: Prior, size: tuple[int, ...] | None) -> int:
        if self.ndim == 0:
            raise ValueError("a fully connected network has no pixels; net.gram(features) is its kernel between inputs")
        given = {
            "the network": self.ndim,
            "the prior": None if prior.size is None else len(prior.size),
            "size": None if size is None else len(as_size(size)),
        }
        known = {name: ndim for name, ndim in given.items() if ndim is not None}
        if len(set(known.values())) > 1:
            text = ", ".join(f"{name} has {ndim}" for name, ndim in known.items())
            raise ValueError(f"expected the same number of spatial dimensions everywhere, got: {text}")
        return next(iter(known.values()), 2)


def from_description(description: Mapping[str, Any]) -> Layer:
    """Make a layer, with fresh weights, from ``Layer.description()``.

    Raises:
        ValueError: the description names no layer.
        NotImplementedError: it names one that a description cannot hold.
    """
    options = dict(description)
    name = options.pop("layer", None)
    if name not in Layer._by_name:
        raise ValueError(f"expected one of the layers {sorted(Layer._by_name)}, got {name!r}")
    return Layer._by_name[name].from_options(options)
