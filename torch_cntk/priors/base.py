"""What every feature prior is, and sums of them.

Each prior gives both a sample for the finite network and the covariance Sigma_0 between pixels for the kernel, with
the convention Sigma_0(x, x') = mean over channels of E[Z_c(x) Z_c(x')]. Priors add up: ``first + second`` has the
channels of both, side by side, and the sum of their covariances.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_cntk._internal.checks import as_size, positive_int, shape_text
from torch_cntk._internal.options import as_json, as_typed, options_of
from torch_cntk._internal.tunable import tensors_of
from torch_cntk.covariance import Extent, Lattice

__all__ = ["Prior", "Sum", "from_description", "named_prior"]


class Prior(ABC):
    """A distribution of input images.

    Attributes:
        size: the only image size that the prior exists for, or None if it exists for any.
        device: where its kernel is computed unless told otherwise.
        dtype: that its kernel is stored in unless told otherwise.
        gaussian: whether each channel of a sample is a draw of one and the same centred Gaussian process. Only then
            may an activation or a normalisation read the input itself, with no weight layer between.
    """

    size: tuple[int, ...] | None = None
    device: torch.device | None = None
    dtype: torch.dtype = torch.float64
    gaussian: bool = False

    _unnamed: ClassVar[int] = 1
    """How many of the first options are shown without their names."""
    _by_name: ClassVar[dict[str, type[Prior]]] = {}
    """The priors that a description can hold."""

    def __init_subclass__(cls, *, described: bool = True, **options: Any) -> None:
        super().__init_subclass__(**options)
        if described and not cls.__name__.startswith("_"):
            Prior._by_name[cls.__name__] = cls

    def sample(
        self,
        channels: int,
        size: tuple[int, ...] | None = None,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw the input of a finite network.

        Args:
            channels: the network's input channels.
            size: spatial size; may be left out where the prior has one.
            generator: source of randomness; torch's global one by default.
            dtype: of the sample.
            device: of the sample.

        Returns:
            [channels, *size].

        Raises:
            TypeError: the channels or the size are no integers.
            ValueError: the size is needed and missing, or the prior does not have these channels or this size.
        """
        size = self.size if size is None else as_size(size)
        if size is None:
            raise ValueError(f"{self!r} has no size of its own: expected size, such as (256, 256), got None")
        return self._draw((positive_int(channels, "channels"), *size), generator, dtype, device)

    @abstractmethod
    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        """A sample of ``shape`` [channels, *size]; dtype and device are the prior's own choice where they are None."""

    @abstractmethod
    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """Sigma_0 (and Theta = 0) on a torus of ``size`` pixels, an entry of ``size`` an axis.

        Features that differ from pixel to pixel, and all that is made from them, are computed in ``dtype``.
        """

    def channels(self, ndim: int) -> int | None:
        """The number of channels that a sample in ``ndim`` dimensions must have, or None if any."""
        return None

    def __add__(self, other: Prior) -> Sum:
        """The channels of both side by side."""
        if not isinstance(other, Prior):
            return NotImplemented
        return Sum(self, other)

    def extent(self, ndim: int) -> Extent | None:
        """Period and radius of Sigma_0 in ``ndim`` dimensions, or None if it is not stationary."""
        return None

    def tensors(self, ndim: int) -> list[Tensor]:
        """The tensors that gradients of Sigma_0 in ``ndim`` dimensions are to pass on to."""
        return [tensor for _, tensor in tensors_of(self)]

    def description(self) -> dict[str, Any] | None:
        """What rebuilds the prior (see ``from_description``), or None where that would hold the data itself."""
        options = {option.name: as_json(getattr(self, option.name)) for option in options_of(type(self))}
        return {"prior": type(self).__name__, **options}

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Prior:
        """Rebuild the prior from its description, less the name."""
        return cls(**options)

    def __repr__(self) -> str:
        texts = [
            as_typed(getattr(self, option.name))
            if place < self._unnamed
            else f"{option.name}={as_typed(getattr(self, option.name))}"
            for place, option in enumerate(options_of(type(self)))
        ]
        return f"{type(self).__name__}({', '.join(texts)})"


class Sum(Prior):
    """Priors side by side: ``first + second``. Their covariances add up.

    A sample of C channels gives each term that has channels of its own, such as ``Tensor``, those, and shares out the
    rest evenly among the others. A term that got c of the channels is multiplied by sqrt(C / c), so that the mean over
    all channels is the sum of the terms' means.

    Raises:
        TypeError: a term is no prior.
        ValueError: there is no term, or terms differ in the size that they have.
    """

    def __init__(self, *terms: Prior) -> None:
        for term in terms:
            if not isinstance(term, Prior):
                raise TypeError(f"expected priors, got {type(term).__name__}")
        # Sums of sums have their terms in one row, so that channels are shared out evenly.
        self.terms: tuple[Prior, ...] = tuple(
            part for term in terms for part in (term.terms if isinstance(term, Sum) else (term,))
        )
        if not self.terms:
            raise ValueError("expected at least one prior, got none")
        sizes = {term.size for term in self.terms if term.size is not None}
        if len(sizes) > 1:
            raise ValueError(f"expected priors of one size, got {' and '.join(map(shape_text, sorted(sizes)))} pixels")
        self.size = next(iter(sizes), None)
        # The channels of several terms differ in distribution.
        self.gaussian = len(self.terms) == 1 and self.terms[0].gaussian
        owners = [term for term in self.terms if term.device is not None]
        self.device = owners[0].device if owners else None
        self.dtype = owners[0].dtype if owners else torch.float64

    def covariance(
        self, size: tuple[int, ...], device: torch.device | None = None, dtype: torch.dtype = torch.float64
    ) -> Lattice:
        """The sum."""
        # Those of the longest period first: the others are added to them, in their precision.
        first, *others = sorted(
            (term.covariance(size, device, dtype) for term in self.terms),
            key=lambda covariance: -math.prod(covariance.geometry.period),
        )
        return first.mix((1.0,) * len(self.terms), tuple(others))

    def extent(self, ndim: int) -> Extent | None:
        """The largest of the terms', if all have one."""
        extents = [term.extent(ndim) for term in self.terms]
        radius = [max(extent.radius) for extent in extents if extent is not None]
        return Extent.start(ndim, max(radius)) if len(radius) == len(extents) else None

    def _draw(
        self,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        channels, *size = shape
        dtype, device = dtype or (self.dtype if self.device is not None else None), device or self.device
        shares = self._shares(channels, len(size))
        samples = [
            term._draw((share, *size), generator, dtype, device) * math.sqrt(channels / share)
            for term, share in zip(self.terms, shares, strict=True)
        ]
        return torch.cat(samples)

    def _shares(self, channels: int, ndim: int) -> list[int]:
        """Channels of each term.

        Raises:
            ValueError: there are too few or, where no term takes any number, too many.
        """
        own = [term.channels(ndim) for term in self.terms]
        taken, free = sum(count for count in own if count is not None), own.count(None)
        if channels < taken + free or (free == 0 and channels != taken):
            raise ValueError(
                f"expected {'at least ' if free else ''}{taken + free} channels for {self!r}, got {channels}"
            )
        shares, left = [], channels - taken
        for count in own:
            if count is None:
                count = -(-left // free)
                left, free = left - count, free - 1
            shares.append(count)
        return shares

    def channels(self, ndim: int) -> int | None:
        """The sum, if each term has channels of its own."""
        own = [term.channels(ndim) for term in self.terms]
        known = [count for count in own if count is not None]
        return sum(known) if len(known) == len(own) else None

    def tensors(self, ndim: int) -> list[Tensor]:
        """Those of all terms."""
        return [tensor for term in self.terms for tensor in term.tensors(ndim)]

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Prior:
        """Rebuild the sum from the descriptions of its terms."""
        return cls(*(from_description(term) for term in options["terms"]))

    def description(self) -> dict[str, Any] | None:
        """The terms' descriptions, if all have one."""
        descriptions = [term.description() for term in self.terms]
        return None if None in descriptions else {"prior": "Sum", "terms": descriptions}

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))


def from_description(description: Mapping[str, Any]) -> Prior:
    """Rebuild a prior from ``Prior.description()``.

    Raises:
        ValueError: the description names no prior that can be rebuilt.
    """
    options = dict(description)
    name = options.pop("prior", None)
    if name not in Prior._by_name:
        raise ValueError(f"expected one of the priors {sorted(Prior._by_name)}, got {name!r}")
    return Prior._by_name[name].from_options(options)


def named_prior(name: str) -> Prior:
    """The prior of this name, with its usual options: "uniform", say.

    Raises:
        ValueError: there is none of that name, or it has no usual options.
    """
    classes = {known.lower(): kind for known, kind in Prior._by_name.items()}
    if name.lower() not in classes:
        raise ValueError(f"expected a feature prior, or one of the names {sorted(classes)}, got {name!r}")
    kind = classes[name.lower()]
    try:
        return kind()
    except TypeError as error:
        raise ValueError(
            f"expected a prior with its options, such as priors.{kind.__name__}(...), got {name!r}: {error}"
        ) from error
