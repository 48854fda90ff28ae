"""From a network's finished table to a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.checks import all_finite
from torch_cntk._internal.grids import open_grid
from torch_cntk.covariance import Table
from torch_cntk.kernels.kernel import Kernel, Rebuild
from torch_cntk.kernels.storage import Dense, Periodic, Windowed

__all__ = ["check_finite", "check_held", "from_table", "from_window"]


def from_table(
    table: Table,
    *,
    radius: tuple[int, ...] | None,
    far: float | Tensor | None,
    dtype: torch.dtype,
    origin: Mapping[str, Any],
    rebuild: Rebuild | None = None,
) -> Kernel:
    """Make a kernel of a finished table.

    Args:
        table: one channel.
        radius: beyond which the kernel depends on the phases only, and which the table exceeds on every axis; None for
            a kernel of one size.
        far: the number that was subtracted from the table so that it vanishes beyond the radius; None if that would
            take a number for each pair of phases (then the table is float64, and it is done here).
        dtype: of the kernel.
        origin: see ``Kernel``.
        rebuild: see ``Kernel``.

    Returns:
        the kernel; with a radius, for every multiple of the period.

    Raises:
        ValueError: a number is not finite.
    """
    check_finite(table.values.detach())
    geometry = table.geometry
    if radius is None:
        return Kernel(Dense(Table(table.values.to(dtype), geometry)), origin)
    if far is not None:
        ones = (1,) * geometry.ndim
        number = torch.as_tensor(far, dtype=dtype, device=table.values.device).reshape(1, *ones, *ones)
        far_table = Table(number, replace(geometry, size=ones, period=ones))
        return Kernel(Periodic(table, far_table, radius), origin, rebuild)
    phases = _far_table(table, radius)
    displacement = open_grid(geometry.box, table.values.device, geometry.ndim)
    position = open_grid(geometry.period, table.values.device)
    near = table.values - phases.lookup(displacement, position)
    stored = Periodic(Table(near.to(dtype), geometry), Table(phases.values.to(dtype), phases.geometry), radius)
    return Kernel(stored, origin, rebuild)


def from_window(table: Table, origin: Mapping[str, Any]) -> Kernel:
    """Make the kernel of one size that is a table of one channel, whose geometry is a ``Window``, and 0 beyond.

    Raises:
        ValueError: a number is not finite.
    """
    check_finite(table.values.detach())
    return Kernel(Windowed(table), origin)


def check_finite(values: Tensor) -> None:
    """Refuse numbers that float64, or the type that is stored, cannot hold.

    Raises:
        ValueError: one of them is infinite or NaN.
    """
    if not all_finite(values):
        raise ValueError(
            "expected a finite kernel, got infinity or NaN in it: this network's features grow beyond what "
            f"{str(values.dtype).removeprefix('torch.')} holds; scale its branches down (Scale) or normalise "
            "them (ChannelNorm)"
        )


def check_held(table: Table, dtype: torch.dtype, exact: Callable[[], Table]) -> None:
    """Refuse entries all of which lose their digits, or are lost, in the type that is stored.

    Args:
        table: of the entries.
        dtype: that is stored.
        exact: gives the same table in float64.

    Raises:
        ValueError: the largest one is below the type's normal numbers.
    """
    least = torch.finfo(dtype).tiny
    if dtype == torch.float64 or float(table.values.detach().abs().amax()) >= least:
        return
    largest = float(exact().values.detach().abs().amax())
    if 0 < largest < least:
        raise ValueError(
            f"expected a kernel of entries above {least:.1e}, the smallest that {str(dtype).removeprefix('torch.')} "
            f"holds with all digits, got {largest:.1e} at most: scale the input or the network up (Scale), or store it "
            "in a larger dtype"
        )


def _far_table(table: Table, radius: tuple[int, ...]) -> Table:
    """What the table holds beyond the radius, as a table on a torus of one period."""
    geometry = table.geometry
    period = geometry.period
    own = replace(geometry, size=period, period=period)
    # The same phases as in the first period, as many periods further on as it takes to be outside.
    displacement = [
        r + 1 + (u - r - 1) % p
        for u, p, r in zip(open_grid(own.box, table.values.device, own.ndim), period, radius, strict=True)
    ]
    position = open_grid(period, table.values.device)
    return Table(table.lookup(displacement, position), own)
