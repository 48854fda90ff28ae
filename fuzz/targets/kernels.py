"""Kernels: symmetric, positive semi-definite, equal to the textbook recursion, and the same in every form."""

from __future__ import annotations

import math
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

import torch_cntk as tc
from fuzz.oracle import require
from tests.helpers import conditioning, networks
from tests.helpers.strategies.networks import any_nets, features_prior, kinds, nets, priors, seeds, several
from torch_cntk.covariance import Extent

__all__ = ["Case", "cases", "check"]

_MOST_PIXELS = 150
"""Of a kernel that is looked at as a whole."""
_MOST_RECURSION = 60
"""Pixels on the way for which the recursion takes milliseconds."""
_MOST_QUADRATURE = 6
"""Likewise where an activation is integrated numerically."""
_DIGITS = {torch.float64: 1e-11, torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""What rounding may do to a kernel, relative to its largest entry."""
_SINGLE = 1e-3
"""The bound that ``Layer.kernel`` states for windows in single precision, with a margin."""


@dataclass(frozen=True)
class Case:
    """A kernel to compute: the network's layers, its input, and the arguments of ``Layer.kernel``."""

    layers: list[tc.Layer]
    prior: Any
    size: Any
    options: dict[str, Any]
    ordinary: bool
    seed: int


_silly_sizes = st.sampled_from([(), (0,), (-4, 4), (3.5, 2), "ab", (4,), (4, 4, 4, 4), [8, 8], (10**9, 10**9), True])
_silly_options = st.sampled_from(
    [
        *({"kind": kind} for kind in ("NTK", None)),
        *({"radius": radius} for radius in (0, 2.5, (1, 2, 3, 4), "3", 10**9)),
        *({"dtype": dtype} for dtype in (torch.int64, torch.complex64, "float32")),
        {"device": "tpu"},
    ]
)
_options = st.fixed_dictionaries(
    {},
    optional={
        "kind": kinds,
        "radius": st.integers(1, 6) | st.tuples(several, several),
        "dtype": st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
    },
)
_more_priors = st.sampled_from(
    [
        tc.priors.Uniform(0, 0.1),
        tc.priors.White(2.0),
        tc.priors.Normal(0, 1e-9),
        tc.priors.Normal(3, 1e6),
        tc.priors.Identity(),
        tc.priors.Meshgrid(),
        tc.priors.Coordinates(2.0),
        tc.priors.Coordinates(0.1, 3.0) + tc.priors.White(0.1),
        tc.priors.Uniform() + tc.priors.Meshgrid(),
        tc.priors.Constant(1.0),
        None,
        "uniform",
        torch.ones(1, 4, 4),
    ]
)


@st.composite
def _chains(draw: Any) -> Case:
    """Chains on sizes that they fit: never to be refused."""
    ndim = draw(st.sampled_from([1, 2, 2, 3]))
    net = draw(nets(ndim, 3))
    multiples = draw(st.tuples(*(several for _ in range(ndim))))
    source = tuple(g * m for g, m in zip(networks.granule(net, ndim), multiples, strict=True))
    assume(networks.most_pixels(net, source) <= networks.MOST_PIXELS[ndim])
    size = tuple(int(n * s) for n, s in zip(source, networks.scales(net, ndim)[-1], strict=True))
    return Case(list(net.layers), draw(priors), size, {"kind": draw(kinds)}, True, draw(seeds))


@st.composite
def _any(draw: Any) -> Case:
    """Everything else, most of which fits."""
    ndim = draw(st.sampled_from([1, 1, 2, 2, 3]))
    sides = st.sampled_from([1, 2, 3, 4, 6, 8] if ndim < 3 else [1, 2, 4])
    size = draw(st.none() | st.tuples(*(sides for _ in range(ndim))) | st.tuples(*(sides for _ in range(ndim))))
    prior = draw(priors | _more_priors | features_prior(ndim, most=6 if ndim < 3 else 3))
    options = draw(_options)
    if draw(st.integers(0, 9)) == 0:
        size = draw(_silly_sizes)
    if draw(st.integers(0, 9)) == 0:
        options |= draw(_silly_options)
    return Case(draw(any_nets(ndim)), prior, size, options, False, draw(seeds))


cases = _chains() | _any()


def check(case: Case) -> None:
    """Compute the kernel and look at all of its forms."""
    net = tc.Sequential(*case.layers)
    kernel = net.kernel(case.prior, case.size, **case.options)
    size = _size(kernel, case)
    if math.prod(size) > _MOST_PIXELS:
        return
    try:
        dense = kernel.dense(size)
    except tc.OutOfMemoryError:
        return
    matrix = dense.double().reshape(math.prod(size), -1)
    largest = float(matrix.abs().max())
    require(torch.isfinite(matrix).all(), "the kernel is not finite")
    require((matrix - matrix.T).abs().max() <= 1e-13 * largest, "the kernel is not symmetric")
    error = _check_recursion(net, kernel, case, size, matrix)
    tolerance = _tolerance(kernel, case)
    least = float(torch.linalg.eigvalsh(matrix)[0])
    # Of a matrix whose entries are so far off: by Gershgorin's theorem.
    bound = -len(matrix) * max(tolerance, error) * largest
    require(least >= bound, f"an eigenvalue is {least}, of entries up to {largest}; allowed are {bound}")
    _check_forms(kernel, size, matrix, tolerance * largest, case.seed)


def _size(kernel: tc.Kernel, case: Case) -> tuple[int, ...]:
    if kernel.size is not None:
        return kernel.size
    return tuple(kernel.period) if case.size is None else tuple(case.size)


def _tolerance(kernel: tc.Kernel, case: Case) -> float:
    single = kernel.dtype != torch.float64 and "radius" in case.options
    return max(_DIGITS[kernel.dtype], _SINGLE if single else 0.0)


def _check_forms(kernel: tc.Kernel, size: tuple[int, ...], matrix: Tensor, tolerance: float, seed: int) -> None:
    """Single entries, rows, products, files and copies all say the same."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (int(k) for k in torch.randint(len(matrix), (2,), generator=generator))
    pixel, other = (tuple(int(x) for x in torch.unravel_index(torch.tensor(k), size)) for k in (first, second))
    require(kernel.at(pixel, other, size) == float(matrix[first, second]), "Kernel.at is not Kernel.dense")
    require(torch.equal(kernel.row(pixel, size).double().flatten(), matrix[first]), "Kernel.row is not Kernel.dense")
    operator = kernel.operator(size, dtype=torch.float64)
    w = torch.randn(2, *size, dtype=torch.float64, generator=generator)
    expected = w.flatten(1) @ matrix
    error = float((operator.multiply(w).flatten(1) - expected).abs().max())
    # Windows are multiplied by in single precision.
    bound = tolerance * float(w.flatten(1).abs().sum(1).max())
    require(error <= bound, f"K @ w is {error} off, allowed are {bound}")
    chosen = torch.randint(len(matrix), (3,), generator=generator)
    found = operator.entries(chosen, chosen)
    require((found - matrix[chosen][:, chosen]).abs().max() <= tolerance, "Operator.entries is not Kernel.dense")
    if seed % 4 == 0:
        _check_copies(kernel, size, matrix, compact=seed % 8 == 0)


def _check_copies(kernel: tc.Kernel, size: tuple[int, ...], matrix: Tensor, *, compact: bool) -> None:
    again = pickle.loads(pickle.dumps(kernel))
    require(torch.equal(again.dense(size).double().flatten(), matrix.flatten()), "a pickled kernel is another one")
    if kernel.dtype == torch.bfloat16 and compact:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.safetensors"
        kernel.save(path, compact=compact)
        read = tc.load_kernel(path)
    loaded = read.dense(size).double().reshape(matrix.shape)
    allowed = 1e-12 * float(matrix.abs().max()) if compact else 0.0
    require((loaded - matrix).abs().max() <= allowed, "a kernel that is read again is another one")


def _check_recursion(net: tc.Sequential, kernel: tc.Kernel, case: Case, size: tuple[int, ...], matrix: Tensor) -> float:
    """Compare with the textbook recursion, where it does not take long; returns how far entries may be off."""
    source = net.propagate(Extent.start(len(size))).input_size(size)
    sigma = networks.covariance_of(case.prior, source)
    homogeneous = _homogeneous(net)
    most = _MOST_RECURSION if homogeneous else _MOST_QUADRATURE
    if sigma is None or _most_pixels(net, source) > most:
        return 0.0 if homogeneous else conditioning.TABLES[1]
    taper = _taper(case.options["radius"], size) if "radius" in case.options else 1.0
    expected = networks.Expected(
        net, sigma, case.options.get("kind", "ntk"), usual=_tolerance(kernel, case), taper=taper
    )
    error, allowed = expected.judge(matrix)
    require(error <= allowed, f"the kernel is {error} off the recursion, allowed are {allowed}")
    return error


def _homogeneous(net: tc.Layer) -> bool:
    slow = (tc.layers.Activation,)
    fast = (tc.ReLU, tc.LeakyReLU, tc.Abs, tc.Erf, tc.Sin)
    return not any(isinstance(layer, slow) and not isinstance(layer, fast) for layer in net.modules())


def _most_pixels(net: tc.Sequential, source: tuple[int, ...]) -> int:
    extent, most = Extent.start(len(source)), math.prod(source)
    for layer in net.layers:
        for inner in layer.modules():
            # A resampling inside of a branch counts as if it were in the chain.
            if isinstance(inner, tc.NearestUp | tc.BilinearUp):
                most = max(most, math.prod(source) * 3 ** len(source))
        extent = layer.propagate(extent)
        most = max(most, math.prod(int(n * s) for n, s in zip(source, extent.scale, strict=True)))
    return most


def _taper(radius: Any, size: tuple[int, ...]) -> Tensor:
    """Wendland's function of the distance on the torus, [pixels, pixels]."""
    reach = radius if isinstance(radius, tuple) else (radius,) * len(size)
    total = torch.zeros(*size, *size, dtype=torch.float64)
    for axis, (n, r) in enumerate(zip(size, reach, strict=True)):
        place = torch.arange(n)
        apart = (place[:, None] - place).abs()
        apart = torch.minimum(apart, n - apart).double() / min(r, max(n // 2, 1))
        shape = [n if k in (axis, axis + len(size)) else 1 for k in range(2 * len(size))]
        total = total + apart.reshape(shape) ** 2
    q = total.sqrt().clamp_max(1)
    pixels = math.prod(size)
    return ((1 - q) ** 4 * (4 * q + 1)).reshape(pixels, pixels)
