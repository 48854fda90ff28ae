"""``torch-cntk complete``: fill the missing entries of a table."""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from torch_cntk.cli import options
from torch_cntk.matrices.completion import ACTIVATIONS, MatrixCompletion
from torch_cntk.matrices.files import Reading, encode_tables, read_long, read_numbers, read_sheet
from torch_cntk.matrices.written import check_table_output, write_table

if TYPE_CHECKING:
    from torch_cntk.cli.options import Commands

__all__ = ["add"]

_MOST_LAYERS = 1000
"""Kernels of deeper networks differ in nothing but the time that they take."""


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "complete",
        help="fill the missing entries of a table",
        description="Fill the missing entries of a table whose columns have features. The first column holds the rows' "
        "labels, the first line those of the columns; empty cells are missing. Needs pandas.",
    )
    parser.add_argument("table", type=Path, metavar="TABLE", help="CSV, TSV or Parquet of numbers")
    parser.add_argument(
        "--features",
        type=Path,
        required=True,
        help="CSV, TSV or Parquet with a line for each column of the table, found by its label: numbers or categories",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the completed table")
    parser.add_argument("--row-features", type=Path, metavar="FILE", help="the same for the rows of the table")
    parser.add_argument(
        "--text", nargs="+", default=[], metavar="NAME", help="features that hold text: each word counts by itself"
    )
    parser.add_argument(
        "--new-columns",
        action="store_true",
        help="predict also the columns that have features but are not in the table",
    )
    parser.add_argument(
        "--hidden-layers", type=int, default=1, metavar="N", help="of the network (default: %(default)s)"
    )
    parser.add_argument(
        "--activation", choices=tuple(ACTIVATIONS), default="relu", help="of the network (default: %(default)s)"
    )
    parser.add_argument(
        "--ridge",
        type=options.ridge,
        default="cv",
        metavar="R",
        help="a number, or cv to choose it by leaving out entries",
    )
    parser.add_argument(
        "--identity",
        type=float,
        default=0.3,
        metavar="W",
        help="weight of what is particular to a column, beside its features (default: %(default)s)",
    )
    _add_reading(parser)
    options.add_machine(parser)
    parser.set_defaults(run=_complete)


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
    return Reading(tuple(arguments.missing), separator, arguments.decimal, arguments.encoding)


def _complete(arguments: argparse.Namespace) -> None:
    """Check all that can be checked, complete, write."""
    check_table_output(arguments.output, arguments.table)
    device = options.device(arguments)
    options.at_most(arguments.hidden_layers, _MOST_LAYERS, "--hidden-layers")
    reading = _reading(arguments)
    if arguments.long:
        given = read_long(arguments.table, arguments.long, reading)
    else:
        given = read_numbers(arguments.table, reading)
    table, sides = given.frame, {"features": read_sheet(arguments.features, reading)}
    if arguments.row_features is not None:
        sides["row_features"] = read_sheet(arguments.row_features, reading)
    encoded, notes = encode_tables(sides, arguments.text)
    model = MatrixCompletion(
        arguments.hidden_layers,
        arguments.activation,
        ridge=arguments.ridge,
        identity=arguments.identity,
        device=str(device),
        progress=options.progress(arguments),
    )
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model.fit(table, **encoded)
        filled = model.predict()
        if arguments.new_columns:
            labels = [label for label in encoded["features"].index if label not in set(table.columns)]
            if labels:
                filled = filled.join(model.predict(features=encoded["features"].loc[labels]))
    seconds = time.perf_counter() - start
    write_table(arguments.output, filled, given)
    for message in (*notes, *(warning.message for warning in caught)):
        options.warn(message)
    missing = int(table.isna().to_numpy().sum())
    added = filled.shape[1] - table.shape[1]
    options.report(
        f"filled {missing:,} of {table.size:,} entries ({table.shape[0]} x {table.shape[1]})"
        f"{f' and added {added} columns' if added else ''}, ridge {model.ridge_:.1e}, residual {model.residual_:.1e}, "
        f"{seconds:.1f} s: {arguments.output}",
        arguments.output,
    )
