"""The computing of an expression: tables level by level, each of them slab by slab.

An ``Evaluation`` compiles the expression into one ``Program`` for each node whose whole table is needed (before every
resampling, and the last), runs them in the order in which they read each other, and owns all that this takes: the
finished tables, until nobody reads them any more, the variances, spare memory and the progress bar. Expressions are not
changed, so that any number of evaluations of one may run, at once or in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor
from tqdm import tqdm

from torch_cntk._internal.checks import shape_text
from torch_cntk._internal.memory import require_bytes
from torch_cntk.covariance.lattice.expression import Lattice
from torch_cntk.covariance.lattice.order import parents_first
from torch_cntk.covariance.lattice.program import Program
from torch_cntk.covariance.means import SpareMemory
from torch_cntk.covariance.table import Slab, Table
from torch_cntk.covariance.window import Taper, Window, WindowShare

__all__ = ["Evaluation"]

Share = Callable[[int], slice]
"""Gives the part of so many displacements that a rank computes."""

_SLAB_ENTRIES = 1 << 16
"""Numbers of one covariance in a slab, for each thread (512 kB), and as many once more: Sigma, Theta and as much again
stay in what a core has of the second and the third cache (2 MB; a thread that is alone has more), while calls take ten
times as long as their beginnings. Torch cuts what is larger than this among its threads."""

_NEAR_SLABS = 2
"""Slabs of windows are so many times as large: they are computed in float32 as a rule, in bands of a few rows, where
calls' beginnings weigh more."""
_LEAST_MARGINS = 8
"""A band of rows has at least as many times the rows that it gets wrong on one side: an eighth more work on each."""


class Evaluation:
    """One computing of an expression; it may be asked for any number of tables, by one thread at a time."""

    def __init__(self, expression: Lattice, kind: str) -> None:
        """Compile.

        Args:
            expression: what to compute.
            kind: "ntk" (Theta) or "nngp" (Sigma).
        """
        self._expression = expression
        self._tables: dict[Lattice, Table] = {}
        spare = SpareMemory()
        programs: dict[Lattice | None, Program] = {None: self._program(expression, kind, spare, self._tables)}

        def sources(node: Lattice | None) -> tuple[Lattice, ...]:
            if node not in programs:
                assert node is not None
                programs[node] = self._program(node, "both", spare, self._tables)
            return programs[node].sources

        order = parents_first(None, sources)
        self._last = programs[None]
        self._before = [programs[node] for node in order if node is not None]
        self._bar: tqdm | None = None

    def _program(self, node: Lattice, kind: str, spare: SpareMemory, tables: dict[Lattice, Table]) -> Program:
        return Program(node, kind, spare, tables)

    # The whole table.

    def tabulate(
        self,
        dtype: torch.dtype = torch.float64,
        *,
        radius: tuple[int, ...] | None = None,
        progress: bool = False,
    ) -> tuple[Table, float | Tensor]:
        """Compute the whole table, less what it is beyond a radius.

        Args:
            dtype: of the stored numbers; the computation is in float64, the subtraction as well.
            radius: beyond which the table is one number, an entry an axis; the torus is larger than twice of it. By
                default nothing is subtracted.
            progress: whether to show a bar.

        Returns:
            table of 1 channel, and the number that was subtracted.

        Raises:
            OutOfMemoryError: before anything is computed, if the tables would not fit.
        """
        geometry = self._expression.geometry
        needed = self.bytes_needed(dtype)
        require_bytes(
            needed,
            f"the kernel of period {shape_text(geometry.period)} on {shape_text(geometry.size)} pixels",
            lambda free: f"about {self._fitting_size(free / needed)} would fit; float32 takes half as much as float64",
            self._expression.device,
        )
        geometries = (program.node.geometry for program in (*self._before, self._last))
        work = sum(g.entries // (2 if g.square else 1) for g in geometries)
        with (
            self._progress(work, progress),
            self._tables_before(lambda program: self._whole_table(program, torch.float64, None)[0]),
        ):
            return self._whole_table(self._last, dtype, radius)

    def bytes_needed(self, dtype: torch.dtype = torch.float64) -> int:
        """Bytes that ``tabulate`` holds at its peak: tables that are still read, and one slab with its temporaries."""
        sizes = {program.node: program.node.geometry.entries * 2 * torch.float64.itemsize for program in self._before}
        return self._peak(
            sizes,
            self._expression.geometry.entries * dtype.itemsize,
            lambda node: min(_displacements(node), math.prod(node.geometry.box)),
        )

    def _peak(self, sizes: dict[Lattice, int], own: int, displacements: Callable[[Lattice], int]) -> int:
        """Largest sum of the tables that are held (of these sizes) and of the slab of the program that runs."""
        readers = self._last_readers()
        held = peak = 0
        for program in (*self._before, self._last):
            held += own if program is self._last else sizes[program.node]
            peak = max(peak, held + program.bytes_needed(displacements(program.node)))
            held -= sum(sizes[node] for node in readers.get(program, ()))
        return peak

    def _fitting_size(self, share: float) -> str:
        """The image size whose dense table takes this share of the bytes: they grow with the square of the pixels."""
        geometry = self._expression.geometry
        shrink = share ** (1 / (2 * geometry.ndim))
        return shape_text([max(1, int(n * shrink)) for n in geometry.size]) + " pixels"

    def _whole_table(
        self, program: Program, dtype: torch.dtype, radius: tuple[int, ...] | None
    ) -> tuple[Table, float | Tensor]:
        geometry, far = program.node.geometry, 0.0
        values: Tensor | None = None
        for slab in geometry.slabs(_displacements(program.node)):
            part = program.run(slab)
            self._count(part)
            if radius is not None:
                if slab.holds_zero:
                    far = _value_beyond(radius, program, part, slab)
                part -= far
            if slab.count == geometry.box:
                values = part.to(dtype)
                break
            if values is None:
                values = part.new_empty((part.shape[0], *geometry.box, *geometry.period), dtype=dtype)
            where = tuple(slice(s, s + c) for s, c in zip(slab.start, slab.count, strict=True))
            values[(slice(None), *where)] = part
            program.reuse(part)
        else:
            assert values is not None
            geometry.complete(values)
        return Table(values, geometry), far

    @contextmanager
    def _progress(self, entries: int, shown: bool, leave: bool = True) -> Iterator[None]:
        """Show how many of the entries are done, if asked to."""
        if not shown:
            yield
            return
        with tqdm(total=entries, unit="entry", unit_scale=True, desc="kernel", leave=leave) as self._bar:
            try:
                yield
            finally:
                self._bar = None

    def _count(self, part: Tensor) -> None:
        """Tell the bar that a slab is done."""
        if self._bar is not None:
            self._bar.update(math.prod(part.shape[1:]))

    # The tables before.

    @contextmanager
    def _tables_before(self, compute: Callable[[Program], Table]) -> Iterator[None]:
        """Hold what the last table is read from; tables on the way there are dropped once nobody reads them."""
        readers = self._last_readers()
        try:
            for program in self._before:
                self._tables[program.node] = compute(program)
                for node in readers.get(program, ()):
                    del self._tables[node]
            yield
        finally:
            self._tables.clear()

    def _last_readers(self) -> dict[Program, list[Lattice]]:
        """The tables that a program is the last one to read."""
        last = {node: program for program in (*self._before, self._last) for node in program.sources}
        readers: dict[Program, list[Lattice]] = {}
        for node, program in last.items():
            readers.setdefault(program, []).append(node)
        return readers

    # Windows.

    def tabulate_window(
        self,
        dtype: torch.dtype,
        reach: tuple[int, ...],
        taper: Taper = "wendland",
        *,
        progress: bool = False,
        share: Share | None = None,
    ) -> Table:
        """Compute the displacements of an ellipsoid only, times a taper, which vanishes at its surface.

        A product of positive semi-definite functions: the result is one, too.

        Args:
            dtype: of the stored numbers.
            reach: half axes of the ellipsoid, at most half of the image.
            taper: see ``Window``.
            progress: whether to show a bar.
            share: gives the part of so many displacements that is wanted; all by default. Tables before a resampling,
                of which each displacement reads many, are computed in any case.

        Returns:
            table of 1 channel, whose geometry is a ``Window``.

        Raises:
            OutOfMemoryError: before anything is computed, if the tables would not fit.
        """
        window = Window.of(self._expression.geometry, reach, taper)
        window = window if share is None else WindowShare.of_window(window, share)
        boxes = self._boxes(tuple(r - 1 for r in reach))
        sizes = {node: box.entries * 2 * torch.float64.itemsize for node, box in boxes.items()}
        require_bytes(
            self._peak(
                sizes,
                window.entries * dtype.itemsize,
                # A slab is a part of a run along the last axis.
                lambda node: min(_displacements_of_band(node), 2 * boxes.get(node, window).reach[-1] - 1),
            ),
            f"the kernel of {len(window.offsets)} displacements on {shape_text(window.size)} pixels",
            lambda free: "a smaller radius takes less, and dtype=torch.float16 half as much as float32",
            self._expression.device,
        )
        work = window.entries + sum(box.entries for box in boxes.values())
        with (
            self._progress(work, progress, leave=False),
            self._tables_before(lambda program: self._near_table(program, boxes[program.node], torch.float64)),
        ):
            return self._near_table(self._last, window, dtype)

    # Shares.

    def tabulate_share(self, dtype: torch.dtype, share: Share, *, progress: bool = False) -> Table:
        """Compute a part of all displacements.

        Tables before a resampling, of which each displacement reads many, are computed whole; after the last
        downsampling of the sizes there are in a network of images, they are a small part of the work.

        Args:
            dtype: of the stored numbers.
            share: gives the part of so many displacements that is wanted.
            progress: whether to show a bar.

        Returns:
            table of 1 channel, whose geometry is a ``WindowShare``.

        Raises:
            OutOfMemoryError: before anything is computed, if the tables would not fit.
        """
        geometry = self._expression.geometry
        window = WindowShare.of_torus(geometry, share)
        sizes = {program.node: program.node.geometry.entries * 2 * torch.float64.itemsize for program in self._before}
        require_bytes(
            self._peak(sizes, window.entries * dtype.itemsize, _displacements),
            f"{len(window.offsets)} displacements of the kernel on {shape_text(geometry.size)} pixels",
            lambda free: "more processes take less each, and float32 half as much as float64",
            self._expression.device,
        )
        with (
            self._progress(window.entries, progress),
            self._tables_before(lambda program: self._whole_table(program, torch.float64, None)[0]),
        ):
            return self._near_table(self._last, window, dtype)

    def _boxes(self, largest: tuple[int, ...]) -> dict[Lattice, Window]:
        """The displacements of each table before that are read for those up to ``largest`` of the last one."""
        needed: dict[Lattice, tuple[int, ...]] = {}
        boxes: dict[Lattice, Window] = {}
        for program in (self._last, *reversed(self._before)):
            # All that read this table have been before.
            own = largest if program is self._last else needed[program.node]
            if program is not self._last:
                boxes[program.node] = Window.box_of(program.node.geometry, own)
            for node, most in program.displacements_before(own).items():
                needed[node] = tuple(map(max, most, needed.get(node, most)))
        return boxes

    def _near_table(self, program: Program, window: Window, dtype: torch.dtype) -> Table:
        """A table of near displacements; a band of rows at a time where an image is too large for the cache."""
        node, height = program.node, window.period[0]
        rows = _rows_of_band(node)
        pieces = list(window.pieces(_displacements_of_band(node)))
        if not pieces:  # of a share, where there are more ranks than displacements
            empty = torch.empty((1, *window.box, *window.period), dtype=dtype, device=node.device)
            return Table(empty, window)
        values: Tensor | None = None
        weights = window.weights()
        for top in range(0, height, rows):
            count = min(rows, height - top)
            for slab, where in pieces:
                part = _band(program, slab, top, count)
                if values is None:
                    values = part.new_empty((len(part), *window.box, *window.period), dtype=dtype)
                    images = values.view(len(part), len(window.offsets), *window.period)
                part = part.view(len(part), where.stop - where.start, count, *window.period[1:])
                place = images[:, where, top : top + count]
                if window.tapered:
                    torch.mul(part, weights[where].to(part).view(-1, *(1,) * node.ndim), out=place)
                else:
                    place.copy_(part)
                self._count(part)
        assert values is not None
        return Table(values, window)


def _band(program: Program, slab: Slab, top: int, count: int) -> Tensor:
    """A slab of some rows of positions."""
    margin = program.node.margin
    if margin is None or count == program.node.geometry.period[0]:
        return program.run(slab)
    images = program.run(replace(slab, band=(top - margin, count + 2 * margin)))
    return images.narrow(1 + program.node.ndim, margin, count)


def _slab_entries(load: int, device: torch.device) -> int:
    """Numbers of one covariance in a slab; at least one displacement."""
    return max(_SLAB_ENTRIES * (1 + torch.get_num_threads()) if device.type == "cpu" else _SLAB_ENTRIES << 7, load)


def _displacements(node: Lattice) -> int:
    """How many displacements a slab of a node's table has."""
    return _slab_entries(node.load, node.device) // node.load


def _rows_of_band(node: Lattice) -> int:
    """Rows of a node's images that are computed at a time: as many as fit the cache, if the rules know bands."""
    height, *rest = node.geometry.period
    if node.margin is None or not rest:
        return height
    return max(_slab_entries(1, node.device) // math.prod(rest), _LEAST_MARGINS * node.margin, 1)


def _displacements_of_band(node: Lattice) -> int:
    """How many displacements a slab of near displacements has."""
    height, *rest = node.geometry.period
    positions = min(_rows_of_band(node), height) * math.prod(rest)
    return max(_NEAR_SLABS * _slab_entries(1, node.device) // positions, 1)


def _value_beyond(radius: tuple[int, ...], program: Program, first: Tensor, slab: Slab) -> float:
    """The number that the table holds beyond a radius, given its first slab."""
    beyond = tuple(r + 1 for r in radius)
    ndim = len(beyond)
    if all(u < c for u, c in zip(beyond, slab.count, strict=True)):
        return float(first[(0, *beyond, *(0,) * ndim)])
    ones = (1,) * ndim
    return float(program.run(Slab(beyond, ones, ones)).flatten()[0])
