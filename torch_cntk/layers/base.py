"""What every layer is: a torch module of finite width, and a rule for covariances."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

import torch
from torch import Tensor

from torch_cntk._internal.memory import allocating
from torch_cntk._internal.options import Option, as_json, as_typed, collapsed, options_of
from torch_cntk._internal.tunable import Tunable
from torch_cntk.covariance import Covariance, Taper
from torch_cntk.covariance.signal import InexactError, Signal
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.layers import computing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from torch_cntk._internal.ranks import Mesh
    from torch_cntk.layers.between import Output, Results
    from torch_cntk.operators import GramOperator, InputsOperator, ShardedGram
    from torch_cntk.priors.base import Prior

__all__ = ["Layer", "from_description"]

C = TypeVar("C", bound=Covariance)


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
    flattens: bool = False
    """Whether its output has no pixels, although its input has."""
    hides_channels: bool = False
    """Whether the number of channels that it gives depends on the size of the image."""
    ends_in: str | None = None
    """The head, in words, that nothing may follow, if the layer is or ends in one."""

    _unnamed: ClassVar[int] = 1
    """How many of the first options are shown without their names."""
    _always_shown: ClassVar[tuple[str, ...]] = ()
    """Options that are shown at their defaults as well, as the first one is."""
    _by_name: ClassVar[dict[str, type[Layer]]] = {}

    def __init_subclass__(cls, *, abstract: bool = False, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not abstract and not cls.__name__.startswith("_"):
            Layer._by_name[cls.__name__] = cls

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and isinstance(getattr(type(self), name, None), Tunable):
            # In the place of a number, a parameter is none of the finite network.
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    @abstractmethod
    def propagate(self, covariance: C) -> C:
        """Covariance of the output, given that of the input, in whatever form it is stored."""

    def require_exact(self, *, gaussian: bool = False) -> None:
        """Check that the rule of every layer is exact at its place, so that the kernel is that of the wide network.

        Args:
            gaussian: whether each channel of the input is a draw of one centred Gaussian process, as for
                ``priors.Normal``; a given input is not.

        Raises:
            ValueError: a rule would not be; it says which and why.
        """
        try:
            self.propagate(Signal.of_input(gaussian=gaussian))
        except InexactError as error:
            raise error.at(str(self)) from None

    def description(self) -> dict[str, Any]:
        """Name and options of the layer, of which ``from_description`` makes it anew (with fresh weights)."""
        told: dict[str, Any] = {"layer": type(self).__name__}
        for option in options_of(type(self)):
            value = self._value_of(option)
            if self._describes(option, value):
                told[option.name] = as_json(value)
        return told

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Layer:
        """Make the layer from its description, less the name."""
        return cls(**options)

    def extra_repr(self) -> str:
        """The options, as they would be typed: those that are needed, the first one, and what is not the default."""
        texts = []
        for option in options_of(type(self)):
            value = self._value_of(option)
            if self._shows(option, value):
                bare = option.leading is not None and option.leading < self._unnamed
                texts.append(as_typed(value) if bare else f"{option.name}={as_typed(value)}")
        return ", ".join(texts)

    def _value_of(self, option: Option) -> Any:
        """What was given for an option of the constructor: the attribute of that name."""
        return getattr(self, option.name)

    def _shows(self, option: Option, value: Any) -> bool:
        """Whether the repr tells an option."""
        if option.required or option.name in self._always_shown:
            return True
        return (option.leading == 0 and value is not None) or collapsed(value) != option.default

    def _describes(self, option: Option, value: Any) -> bool:
        """Whether the description tells an option."""
        return True

    @allocating("the kernel")
    def kernel(
        self,
        prior: Prior | str,
        size: tuple[int, ...] | None = None,
        *,
        input_size: tuple[int, ...] | None = None,
        radius: int | tuple[int, ...] | None = None,
        taper: Taper = "wendland",
        kind: str = "ntk",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        mesh: Mesh | None = None,
    ) -> Kernel:
        """Compute the exact kernel of this network as its width goes to infinity.

        Args:
            prior: the network's input, or its name where its usual options serve, such as "uniform".
            size: size of the output image. Not needed for a stationary prior, whose kernel then serves every size
                that is a multiple of its period, nor for a prior that has a size.
            input_size: size of the network's input instead. Where strides round, inputs of several sizes give outputs
                of one size; without it the kernel is that of the largest of them that is a multiple of all strides.
            radius: R, one number or one an axis: the kernel is multiplied by a taper of q = |(x' - x) / R|, which
                vanishes from 1 on and keeps it positive semi-definite. Only displacements inside are computed
                and stored, so that time and memory grow with the pixels and not with their square. At most half of
                the image; larger ones are cut to that, which the log says.
            taper: "wendland", (1 - q)^4 (4 q + 1), smooth; or "overlap", what a ball of diameter 1 has in common with
                one at the distance q, which falls slower: a smaller radius does as well then.
            kind: "ntk" (of training all layers) or "nngp" (of training the last layer only).
            dtype: the kernel is stored in; by default float64, or that of ``priors.Tensor``. It is always computed
                in float64, unless there is a radius: then it is computed in float32 where it is stored in that or in
                float16. Features that are equal to seven digits without being the same get an error of some 1e-4
                of the largest entry then, others of 1e-6.
            device: where to compute; by default where the prior is, or the CPU.
            progress: whether to show a bar.
            mesh: of ``torch_cntk.distributed.mesh()``: processes that call this with the same arguments. Each computes
                and holds its share of the displacements of a kernel of one size (dense, or with a radius); whatever
                the kernel is asked for then, all ranks have to ask for. Tables before an upsampling are computed by
                every rank: a sixteenth of an image's, or less.

        Returns:
            the kernel between pixels of the output.

        Raises:
            TypeError: the size or the radius is no integer or tuple of them.
            ValueError: a size does not fit the network or the prior, or it is needed and missing; a layer's rule
                would not be exact at its place in the network; the kind is unknown; or the radius is below 1.
            OutOfMemoryError: the kernel would not fit into memory; nothing has been computed then.
        """
        return computing.kernel(
            self, prior, size, computing.Options(radius, kind, dtype, device, progress, input_size, mesh, taper)
        )

    @overload
    def gram_operator(
        self,
        features: Tensor | NDArray[Any],
        *,
        kind: str = "ntk",
        white: float = 0.0,
        dtype: torch.dtype | None = None,
        mesh: None = None,
    ) -> GramOperator | InputsOperator: ...

    @overload
    def gram_operator(
        self,
        features: Tensor | NDArray[Any],
        *,
        kind: str = "ntk",
        white: float = 0.0,
        dtype: torch.dtype | None = None,
        mesh: Mesh,
    ) -> ShardedGram: ...

    @overload
    def gram_operator(
        self,
        features: Tensor | NDArray[Any],
        *,
        kind: str = "ntk",
        white: float = 0.0,
        dtype: torch.dtype | None = None,
        mesh: Mesh | None,
    ) -> GramOperator | InputsOperator | ShardedGram: ...

    def gram_operator(
        self,
        features: Tensor | NDArray[Any],
        *,
        kind: str = "ntk",
        white: float = 0.0,
        dtype: torch.dtype | None = None,
        mesh: Mesh | None = None,
    ) -> GramOperator | InputsOperator | ShardedGram:
        """The exact kernel of this network between inputs, as a linear map that stores no matrix.

        Args:
            features: rows of numbers, [n, p], or images, [n, channels, *size] (of one to three dimensions), floating
                point; Sigma_0(x, x') is the mean of their products over features or channels. A tensor, or a
                NumPy array.
            kind: "ntk" (of training all layers) or "nngp" (of training the last layer only).
            white: added to the variance of each row, as by a block of the identity matrix behind the features; 0 for
                images.
            dtype: in which it multiplies; that of the features by default.
            mesh: of ``torch_cntk.distributed.mesh()``: processes that call this with the same arguments. Each computes
                some blocks of the matrix in each product.

        Returns:
            the operator, of size (n,). ``operator @ w`` takes w of shape [n], [n, k] (columns) or [k, n] (rows); [n, n]
            is refused, as it may be either. ``operator.multiply`` takes rows.

        Raises:
            TypeError: the features are no floating point numbers.
            ValueError: the features are not finite or do not fit the network, a layer's rule would not be exact at its
                place in it, the network ends in pixels, or gradients would be recorded, which an operator does not pass
                on.
        """
        return computing.gram_operator(self, features, kind=kind, white=white, dtype=dtype, mesh=mesh)

    @overload
    def gram(
        self,
        features: Tensor,
        others: Tensor | None = None,
        *,
        kind: str = "ntk",
        output: Output = "inputs",
        dtype: torch.dtype = torch.float64,
        progress: bool = False,
        mesh: Mesh | None = None,
        results: Literal["all"] = "all",
    ) -> Tensor: ...

    @overload
    def gram(
        self,
        features: Tensor,
        others: Tensor | None = None,
        *,
        kind: str = "ntk",
        output: Output = "inputs",
        dtype: torch.dtype = torch.float64,
        progress: bool = False,
        mesh: Mesh | None = None,
        results: Results,
    ) -> Tensor | None: ...

    @overload
    def gram(
        self,
        features: NDArray[Any],
        others: NDArray[Any] | None = None,
        *,
        kind: str = "ntk",
        output: Output = "inputs",
        dtype: torch.dtype = torch.float64,
        progress: bool = False,
        mesh: Mesh | None = None,
        results: Literal["all"] = "all",
    ) -> NDArray[np.float64]: ...

    @allocating("the matrix of the kernel")
    def gram(
        self,
        features: Any,
        others: Any = None,
        *,
        kind: str = "ntk",
        output: Output = "inputs",
        dtype: torch.dtype = torch.float64,
        progress: bool = False,
        mesh: Mesh | None = None,
        results: Results = "all",
    ) -> Any:
        """The exact kernel of this network between inputs, as a matrix.

        Images pass through the layers to a head that leaves no pixels, ``Flatten`` or ``GlobalAvgPool``, and what
        follows. Only half of a matrix between the same inputs is computed, and only the displacements between pixels
        that the head asks for: behind ``Flatten`` pixels^1 numbers a pair of images, behind a pooling of all pixels
        pixels^2, which are never stored. Where the features require gradients the result has them.

        Args:
            features: rows of numbers, [n, p], or images, [n, channels, *size] (of one to three dimensions), floating
                point; Sigma_0(x, x') is the mean of their products over features or channels. Tensors, or NumPy arrays.
            others: [m, ...], likewise; the same inputs by default.
            kind: "ntk" (of training all layers) or "nngp" (of training the last layer only).
            output: "inputs", or "pixels" for the kernel between all pixels of the output of a network without a head.
            dtype: of the computation between images. float32 takes about half as long, and features that are equal to
                seven digits without being the same get an error of some 1e-4 of the largest entry then.
            progress: whether to show a bar, for images.
            mesh: of ``torch_cntk.distributed.mesh()``: processes that call this with the same arguments. Each block of
                the matrix is computed by one of them; the bits are those of one process. Without gradients.
            results: which ranks get the matrix: "all" of them, or the "first" alone.

        Returns:
            K between the inputs and the others, [n, m], in float64; between pixels [n, m, *size, *size]. A tensor for
            tensors, an array for arrays; None on ranks that do not get it.

        Raises:
            TypeError: the features are no floating point numbers, or one of two a tensor and the other an array.
            ValueError: the features are not finite or do not fit the network, a layer's rule would not be exact at its
                place in it, or the network ends in pixels and they were not asked for, or the other way round;
                arguments differ between ranks, or gradients are to be recorded beside a mesh.
            OutOfMemoryError: the matrix would not fit; ``gram_operator`` multiplies by it without storing it.
        """
        return computing.gram(self, features, others, computing.Between(kind, output, dtype, progress, mesh, results))


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
