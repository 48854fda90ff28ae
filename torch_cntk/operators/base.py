"""K @ w over a whole image, without the matrix K."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.arrays import Given, given_back, tensor_of
from torch_cntk._internal.checks import shape_text
from torch_cntk._internal.grids import open_grid
from torch_cntk.operators.layout import Layout, Whole

if TYPE_CHECKING:
    from torch_cntk._internal.ranks import Mesh
    from torch_cntk.operators.over_ranks import BandOperator

__all__ = ["DenseOperator", "Lookup", "Operator", "transforms_cost"]

Lookup = Callable[[list[Tensor], list[Tensor]], Tensor]
"""Gives K(x, x') for pixels x and x': one integer tensor an axis each, all of which broadcast."""

_TRANSFORMS = 26
"""Both transforms of n pixels take 5 log2(n) operations a pixel, each as long as some 5 of a large matrix product, as
measured on two CPU cores."""
_ENTRY = 100.0
"""Finding an entry of K in a table takes as long as so many operations of a large matrix product: some nanoseconds."""
_AVERAGED = 15
"""Products with K that conjugate gradients take where K is close to its stationary average, whose inverse on the mask
is the preconditioner: 10 to 18 on all masks that were tried."""
_ROUGHLY_AVERAGED = 300
"""Likewise where K changes from place to place, so that its average tells less."""


def transforms_cost(size: tuple[int, ...]) -> float:
    """Time of a Fourier transform of an image and back, for each pixel, in units of ``Operator.cost``."""
    return _TRANSFORMS * math.log2(max(math.prod(size), 2))


class Operator(ABC):
    """A symmetric positive semi-definite kernel between all pixels of an image, as a linear map.

    The "image" may be any grid on which the kernel is known: the columns of a matrix are one of one axis.

    Operators compose: ``a + b`` is the sum of two kernels of one size, ``c * a`` a positive multiple. They can be
    pickled and copied. Products can be differentiated with respect to the images.

    A subclass says how to multiply (``_multiply``) and what single entries are (``lookup``, as a method or as a
    function given to the constructor), and states its costs, from which a solver is chosen. The unit of all costs is
    the time of one operation (FLOP) in a large matrix product in float32.

    Args:
        size: see below, as the others.
        dtype: see below.
        device: see below.
        lookup: see ``Lookup``; not needed by subclasses that override the method.
        stationary: see below.
        cost: see below.
        entry_dtype: see below; ``dtype`` by default.
        entry_cost: see below.
        traffic: see below.
        iterations: see below; by default some where there is a stationary average, else None.

    Attributes:
        size: of the image.
        dtype: precision in which it multiplies.
        device: where it multiplies.
        cost: estimated arithmetic of K @ w for each pixel.
        entry_dtype: precision to which K's entries are known.
        entry_cost: estimated time of an entry in ``entries``.
        traffic: numbers that K @ w reads from memory for each pixel and image, rather than from the cache.
        iterations: products with K that conjugate gradients take as a rule, at a moderate ridge; None where nothing
            bounds their number, as no good preconditioner is known.
        stationary: [*size] in float64, the mean over positions a of K(a, a + u) for each displacement u (wrapping
            around); None where displacements mean nothing or the mean is not known.
        mesh: the ranks that take its products together; None where this process takes them alone.
        takes_all_ranks: whether products can only be taken by several ranks together.
    """

    mesh: Mesh | None = None
    takes_all_ranks: ClassVar[bool] = False

    __array_ufunc__ = None  # numpy's numbers leave products with operators to the operators

    def __init__(
        self,
        size: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        lookup: Lookup | None = None,
        stationary: Tensor | None = None,
        *,
        cost: float,
        entry_dtype: torch.dtype | None = None,
        entry_cost: float = _ENTRY,
        traffic: float = 0.0,
        iterations: int | None = None,
    ) -> None:
        self.size = size
        self.dtype = dtype
        self.device = device
        self.cost = cost
        self.entry_dtype = entry_dtype or dtype
        self.entry_cost = entry_cost
        self.traffic = traffic
        self.iterations = _AVERAGED if iterations is None and stationary is not None else iterations
        self.stationary = stationary
        self._lookup = lookup

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """K(x, x') for pixels x and x': one integer tensor an axis each, all of which broadcast.

        Raises:
            NotImplementedError: the subclass has no such method, and gave no function to the constructor.
        """
        if self._lookup is None:
            raise NotImplementedError(f"expected {type(self).__name__} to define lookup, or to be given one")
        return self._lookup(first, second)

    @property
    def period(self) -> tuple[int, ...] | None:
        """K is invariant to joint shifts by so many pixels along each axis; None where no such shift is known."""
        return None

    @cached_property
    def diagonal(self) -> Tensor:
        """K(x, x), [*size] in float64."""
        grid = open_grid(self.size, self.device)
        return self.lookup(grid, grid).double().expand(self.size)

    @cached_property
    def mean_diagonal(self) -> float:
        """Mean of K(x, x)."""
        if self.stationary is not None:
            return float(self.stationary[(0,) * len(self.size)])
        return float(self.diagonal.mean())

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """K between some pixels and others.

        Args:
            first: [m], integers, positions in the flattened image.
            second: [n], likewise.

        Returns:
            [m, n] in float64.
        """
        x = [axis[:, None] for axis in torch.unravel_index(first, self.size)]
        return self.lookup(x, list(torch.unravel_index(second, self.size))).double()

    def select(self, index: Tensor) -> Operator:
        """K between some of the pixels, by their positions [m] in the flattened image: an operator of size (m,)."""
        return DenseOperator(self.entries(index, index))

    def divided(self, mesh: Mesh) -> Operator:
        """The same kernel, whose products several ranks take together; itself where they cannot divide them.

        Args:
            mesh: the ranks, all of which have this operator and ask for the same products.
        """
        return self

    def undivided(self) -> Operator:
        """The same kernel, of which this process takes products and entries alone."""
        return self

    def in_bands(self) -> BandOperator | None:
        """The same kernel on images of which each rank holds a band; None where a product needs whole ones."""
        return None

    @property
    def layout(self) -> Layout:
        """How the processes that take products hold the images."""
        return Whole(self.mesh)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{type(self).__name__}(size={self.size}, dtype={dtype})"

    def __matmul__(self, images: Given) -> Given:
        """K @ w, in the shape of w: of images [..., *size], or, as K is a matrix where the size is (n,), of columns.

        Args:
            images: [..., *size], or [n, k], the vectors its columns. [n, n] may be rows or columns: it is refused, as
                the two products differ, even for a symmetric one. A tensor, or a NumPy array.

        Returns:
            products in the precision of w; an array for an array.

        Raises:
            TypeError: the images are no floating point tensor or array.
            ValueError: the images are not of this size, or rows and columns of [n, n] may be meant.
        """
        if not isinstance(images, torch.Tensor | np.ndarray) or len(self.size) != 1 or images.ndim != 2:
            return self.multiply(images)
        (length,) = self.size
        if tuple(images.shape) == (length, length) and length > 1:
            raise ValueError(
                f"expected vectors as rows [k, {length}] or columns [{length}, k], got as many as each is long: "
                "operator.multiply(w) takes rows, operator.multiply(w.T).T columns"
            )
        return self.multiply(images.T).T if len(images) == length else self.multiply(images)

    def multiply(self, images: Given) -> Given:
        """K @ w for each of [..., *size], in the precision of w; only large sums are taken in the operator's.

        Args:
            images: a tensor, or a NumPy array, whose products are one.

        Raises:
            TypeError: the images are no floating point tensor or array.
            ValueError: the images are not of this size.
        """
        if isinstance(images, np.ndarray):
            return given_back(self._checked_product(tensor_of(images).to(self.device)), images)
        return self._checked_product(images)

    def _checked_product(self, images: Tensor) -> Tensor:
        """K @ w for each of [..., *size].

        Raises:
            TypeError: see ``multiply``.
            ValueError: see there.
        """
        what = "vectors" if len(self.size) == 1 else "images"
        if not isinstance(images, torch.Tensor) or not images.is_floating_point():
            got = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
            raise TypeError(f"expected {what} in a floating point tensor, got {got}")
        if tuple(images.shape[-len(self.size) :]) != self.size:
            of = "numbers, one an input (or pixel)" if len(self.size) == 1 else "pixels"
            raise ValueError(f"expected {what} of {shape_text(self.size)} {of}, got shape {tuple(images.shape)}")
        count = math.prod(images.shape[: images.ndim - len(self.size)])
        if count == 0:
            return images.clone()
        flat = images.reshape(count, *self.size)
        return self._product(flat).reshape(tuple(images.shape))

    def _product(self, images: Tensor) -> Tensor:
        """K @ w for [n, *size], also where gradients are recorded or automatic casting is on."""
        if torch.is_autocast_enabled(images.device.type):
            with torch.autocast(images.device.type, enabled=False):
                return self._product(images)
        if images.requires_grad and torch.is_grad_enabled():
            product: Tensor = _Differentiable.apply(images, self)
            return product
        return self._multiply(images)

    @abstractmethod
    def _multiply(self, images: Tensor) -> Tensor:
        """K @ w for [n, *size], as a new tensor, which may be changed in place.

        Images come in their own precision, which need not be the operator's, and go back in it.
        """

    def __add__(self, other: Operator) -> Operator:
        """The sum of two kernels."""
        from torch_cntk.operators.derived import SumOperator

        if not isinstance(other, Operator):
            return NotImplemented
        return SumOperator(self, other)

    def __mul__(self, factor: float) -> Operator:
        """A positive multiple of the kernel."""
        from torch_cntk.operators.derived import MultipleOperator

        if not isinstance(factor, Real):
            return NotImplemented
        return MultipleOperator(self, factor)

    __rmul__ = __mul__


class _Differentiable(torch.autograd.Function):
    """K @ w as an operation of autograd: K is symmetric, so that gradients are multiplied by K as well."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, operator: Operator) -> Tensor:
        """K @ w."""
        ctx.operator = operator
        return operator._multiply(images)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """K @ g."""
        return ctx.operator._product(gradients[0]), None


class DenseOperator(Operator):
    """K as a matrix.

    Args:
        matrix: [*size, *size].
        stationary: see ``Operator``.
    """

    def __init__(self, matrix: Tensor, stationary: Tensor | None = None) -> None:
        size = tuple(matrix.shape[: matrix.ndim // 2])
        pixels = math.prod(size)
        super().__init__(
            size,
            matrix.dtype,
            matrix.device,
            stationary=stationary,
            cost=2 * pixels,
            traffic=pixels,
            iterations=None if stationary is None else _ROUGHLY_AVERAGED,
        )
        self._matrix = matrix.reshape(pixels, -1)

    def lookup(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """See ``Operator.lookup``."""
        return self._matrix.reshape(*self.size, *self.size)[(*first, *second)]

    def entries(self, first: Tensor, second: Tensor) -> Tensor:
        """See ``Operator.entries``."""
        return self._matrix[first].index_select(1, second).double()

    def divided(self, mesh: Mesh) -> Operator:
        """Each rank multiplies by some rows of the matrix; see ``Operator.divided``."""
        from torch_cntk.operators.over_ranks import GatheredOperator

        return GatheredOperator(self, mesh, self._rows, len(self._matrix))

    def _rows(self, images: Tensor, part: slice) -> Tensor:
        """Some pixels of the product, [n, pixels]."""
        return (images.reshape(images.shape[0], -1).to(self.dtype) @ self._matrix[part].T).to(images.dtype)

    def _multiply(self, images: Tensor) -> Tensor:
        product = images.reshape(images.shape[0], -1).to(self.dtype) @ self._matrix
        return product.to(images.dtype).reshape(images.shape)
