"""``torch-cntk complete``: fill the missing entries of a table."""

from __future__ import annotations

import argparse
import math
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_cntk._internal.ranks import Mesh
from torch_cntk.cli import options
from torch_cntk.cli.outputs import check_apart
from torch_cntk.matrices.completion import ACTIVATIONS, MatrixCompletion
from torch_cntk.matrices.files import (
    Reading,
    Table,
    encode_tables,
    pandas_module,
    read_long,
    read_numbers,
    read_sheet,
)
from torch_cntk.matrices.plotting import check_plot_output, save_plot
from torch_cntk.matrices.written import check_table_output, write_table

if TYPE_CHECKING:
    from torch_cntk.cli.options import Commands

__all__ = ["add"]

_MOST_LAYERS = 1000
"""Kernels of deeper networks differ in nothing but the time that they take."""
_FEWEST = 10
"""Entries below which leaving some out tells nothing."""
_DECIMALS = re.compile(r"[+-]?\d*[.,]\d+(e[+-]?\d+)?", re.IGNORECASE)
"""A label that looks like a measurement."""
_LONG = 20.0
"""Seconds from which the user is told beforehand how long it takes."""


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "complete",
        help="fill the missing entries of a table",
        description="Fill the missing entries of a table, and report how good that is at entries that were left out. "
        "The first column holds the rows' labels, the first line those of the columns; empty cells are missing. Needs "
        "pandas. Started as torchrun --nproc-per-node=N -m torch_cntk complete ..., N processes divide the work.",
    )
    formats = "CSV, TSV, Parquet, Arrow, Excel, GCT, GCTX or h5ad"
    parser.add_argument("table", type=Path, metavar="TABLE", help=f"{formats}, of numbers")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the completed table")
    parser.add_argument(
        "--features",
        type=Path,
        help="a table with a line for each column of TABLE, found by its label: numbers or categories; without it, "
        "rows and columns describe each other",
    )
    parser.add_argument("--row-features", type=Path, metavar="FILE", help="the same for the rows of the table")
    parser.add_argument(
        "--text", nargs="+", default=[], metavar="NAME", help="features that hold text: each word counts by itself"
    )
    parser.add_argument(
        "--new-columns",
        action="store_true",
        help="predict also the columns that have features but are not in the table",
    )
    parser.add_argument("--clip", nargs=2, metavar=("LOW", "HIGH"), help="bounds of what is filled in; - is for none")
    _add_model(parser)
    _add_report(parser)
    _add_reading(parser)
    options.add_machine(parser)
    parser.set_defaults(run=_complete, divides=True)


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Options of the regression."""
    group = parser.add_argument_group(
        "model",
        "By default a mixture of passes and simpler completions is chosen by left-out entries (--passes auto); with "
        "one of the other options of this group it is one regression on the features, as in the paper.",
    )
    group.add_argument(
        "--passes",
        type=_passes,
        metavar="N|auto",
        help="the estimate describes rows and columns in the next pass, beside features",
    )
    group.add_argument("--hidden-layers", type=int, metavar="N", help="of the network (default: 1)")
    group.add_argument("--activation", choices=tuple(ACTIVATIONS), help="of the network (default: relu)")
    group.add_argument(
        "--ridge",
        type=options.ridge,
        metavar="R",
        help="a number, or cv to choose it by leaving out entries (default: cv)",
    )
    group.add_argument(
        "--identity",
        type=float,
        metavar="W",
        help="weight of what is particular to a column, beside its features (default: 0.3)",
    )


def _passes(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _add_report(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    group.add_argument(
        "--report",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="tell how good it is at entries that were left out, beside simple methods (default: yes)",
    )
    group.add_argument("--std", type=Path, metavar="FILE", help="write the standard deviation of each filled entry")
    group.add_argument("--plot", type=Path, metavar="FILE", help="draw predictions of left-out entries against them")
    group.add_argument("--by-row", type=Path, metavar="FILE", help="write the errors of each row as a table")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """Options that say how the files are written."""
    group = parser.add_argument_group("files", "How all files are written that are read, if it is not found out.")
    group.add_argument(
        "--long",
        nargs=3,
        metavar=("ROW", "COLUMN", "VALUE"),
        help="TABLE has a line for each entry, in these columns (or these numbers of columns, if it has no header): "
        "user item rating, for example",
    )
    group.add_argument(
        "--missing",
        action="append",
        default=[],
        metavar="TEXT",
        help="what stands for a missing entry beside an empty cell, NA and NaN, such as ND or -666 "
        "(--missing=-666); may be given several times",
    )
    group.add_argument(
        "--zeros", choices=("missing", "values"), help="what the zeros of a sparse matrix mean, in h5ad files"
    )
    group.add_argument("--separator", metavar="TEXT", help='between cells, such as ";", "::" or "\\t" for a tab')
    group.add_argument("--decimal", choices=(".", ","), help="the mark of decimals")
    group.add_argument("--encoding", metavar="NAME", help="of the text, such as latin-1 (default: UTF-8)")


def _reading(arguments: argparse.Namespace) -> Reading:
    """Read those options.

    Raises:
        ValueError: the separator is empty.
    """
    separator = None if arguments.separator is None else arguments.separator.replace("\\t", "\t")
    if separator == "":
        raise ValueError('expected a separator such as ";", got nothing')
    return Reading(tuple(arguments.missing), separator, arguments.decimal, arguments.encoding, zeros=arguments.zeros)


def _model(arguments: argparse.Namespace, device: str, mesh: Mesh) -> MatrixCompletion:
    """The estimator that was asked for.

    Raises:
        ValueError: options contradict each other.
    """
    names = ("hidden_layers", "activation", "ridge", "identity")
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.passes is not None and given:
        others = ", ".join(f"--{name}" for name in given).replace("_", "-")
        raise ValueError(f"expected --passes without {others}, which passes choose, got both")
    if given and arguments.features is None:
        raise ValueError(f"expected --features beside --{next(iter(given)).replace('_', '-')}, got none")
    common: dict[str, Any] = {
        # Of several ranks each has the device of the mesh.
        "device": device if mesh.size == 1 else None,
        "mesh": mesh if mesh.size > 1 else None,
        "clip": _bounds(arguments.clip),
        "progress": options.progress(arguments),
    }
    if not given:
        return MatrixCompletion(passes=arguments.passes or "auto", **common)
    return MatrixCompletion(**(common | {"ridge": "cv", "identity": 0.3} | given))


def _bounds(clip: Sequence[str] | None) -> tuple[float | None, float | None] | None:
    if clip is None:
        return None
    low, high = (None if bound == "-" else float(bound) for bound in clip)
    return low, high


def _read(arguments: argparse.Namespace) -> tuple[Table, dict[str, Any], list[str]]:
    """The table, its features, and what to tell the user of them."""
    reading = _reading(arguments)
    if arguments.long:
        given = read_long(arguments.table, arguments.long, reading)
    else:
        given = read_numbers(arguments.table, reading)
    told = _told_of_labels(given)
    files = {"features": arguments.features, "row_features": arguments.row_features}
    sides = {name: read_sheet(path, reading) for name, path in files.items() if path is not None}
    encoded, notes = encode_tables(sides, arguments.text)
    return given, encoded, told + notes


def _told_of_labels(given: Table) -> list[str]:
    """What to tell the user where the first column is likely data: all of its labels are numbers with decimals."""
    labels = [str(label) for label in given.frame.index]
    if given.long or len(labels) < 2 or not all(_DECIMALS.fullmatch(label) for label in labels):
        return []
    return [
        f"the first column of {given.path.name}, {labels[0]} and so on, is taken for labels of rows and not completed; "
        "if it holds data, put a column of labels before it"
    ]


def _check(arguments: argparse.Namespace) -> None:
    """Find out before long work what would fail at its end.

    Raises:
        ValueError: options contradict each other, or a number is out of range.
    """
    read = {"--features": arguments.features, "--row-features": arguments.row_features}
    beside = {"--std": arguments.std, "--plot": arguments.plot, "--by-row": arguments.by_row}
    written = {"the output": arguments.output, **beside}
    check_apart({"the table": arguments.table, **read}, written, replaced=("the output", "the table"))
    check_table_output(arguments.output, arguments.table)
    options.at_most(arguments.hidden_layers, _MOST_LAYERS, "--hidden-layers")
    for path in (arguments.std, arguments.by_row):
        if path is not None:
            check_table_output(path, arguments.table)
    if arguments.plot is not None:
        check_plot_output(arguments.plot)
    if arguments.new_columns and arguments.features is None:
        raise ValueError("expected --features beside --new-columns, got none")


def _complete(arguments: argparse.Namespace) -> None:
    """Check all that can be checked, complete, write.

    Under torchrun all ranks read the files and divide the work; rank 0 writes and tells.
    """
    mesh = options.mesh(arguments)
    with mesh.together():
        _check(arguments)
        device = options.device(arguments)
        model = _model(arguments, str(device), mesh)
        given, encoded, notes = _read(arguments)
    table = given.frame
    if arguments.new_columns:
        known = set(table.columns)
        labels = [label for label in encoded["features"].index if label not in known]
        table = table.reindex(columns=[*table.columns, *labels])
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        seconds = model.expected_seconds(table, **encoded)
        if seconds > _LONG:
            options.warn(f"this will take about {seconds / 60:.1f} minutes, by an estimate; --progress shows bars")
        model.fit(table, **encoded)
        filled = model.predict()
    taken = time.perf_counter() - start
    with mesh.together():
        if mesh.rank == 0:
            write_table(arguments.output, filled, given)
    for message in (*notes, *(warning.message for warning in caught)):
        options.warn(message)
    missing = int(given.frame.isna().to_numpy().sum())
    rows, columns = given.frame.shape
    added = filled.shape[1] - columns
    options.report(
        f"filled {missing:,} of {given.frame.size:,} entries ({rows} x {columns})"
        f"{f' and added {added} column' + 's' * (added > 1) if added else ''}, {_how(model)}, "
        f"residual {model.residual_:.1e}, {taken:.1f} s: {arguments.output}",
        arguments.output,
    )
    _judge(model, arguments, given, mesh)
    mesh.barrier()  # torchrun ends all processes as soon as one fails: not before all is told


def _how(model: MatrixCompletion) -> str:
    if model.plan_ is None:
        return f"ridge {model.ridge_:.1e}"
    return f"{model.passes_} pass{'' if model.passes_ == 1 else 'es'}"


def _judge(model: MatrixCompletion, arguments: argparse.Namespace, given: Table, mesh: Mesh) -> None:
    """Report, and write what was asked for beside the table, on rank 0."""
    if arguments.std is not None:
        # As if nothing had been observed: every cell is written, in the manner of the table.
        unknown = pandas_module().DataFrame(math.nan, index=given.frame.index, columns=given.frame.columns)
        deviations = model.predict(return_std=True)[1]
        with mesh.together():
            if mesh.rank == 0:
                write_table(arguments.std, deviations, replace(given, container=None, frame=unknown))
    if not (arguments.report or arguments.plot or arguments.by_row):
        return
    if int(given.frame.notna().to_numpy().sum()) < _FEWEST:
        options.report("too few entries to leave some out: there is no telling how good this is", arguments.output)
        return
    report = model.report()
    if arguments.report:
        options.report(str(report), arguments.output)
    with mesh.together():
        if mesh.rank > 0:
            return
        if arguments.plot is not None:
            save_plot(report.plot(), arguments.plot)
        if arguments.by_row is not None:
            rows = pandas_module().DataFrame(report.by_row()).set_index("row")
            write_table(arguments.by_row, rows)
