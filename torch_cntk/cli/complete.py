"""``torch-cntk complete``: fill the missing entries of a table."""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from torch_cntk.cli import options
from torch_cntk.matrices.completion import ACTIVATIONS, MatrixCompletion
from torch_cntk.matrices.files import check_table_output, encode_tables, read_table, write_table

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
    options.add_machine(parser)
    parser.set_defaults(run=_complete)


def _complete(arguments: argparse.Namespace) -> None:
    """Check all that can be checked, complete, write."""
    check_table_output(arguments.output)
    device = options.device(arguments)
    options.at_most(arguments.hidden_layers, _MOST_LAYERS, "--hidden-layers")
    table = read_table(arguments.table)
    sides = {"features": read_table(arguments.features)}
    if arguments.row_features is not None:
        sides["row_features"] = read_table(arguments.row_features)
    encoded = encode_tables(sides, arguments.text)
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
    write_table(arguments.output, filled)
    for warning in caught:
        options.warn(warning.message)
    missing = int(table.isna().to_numpy().sum())
    added = filled.shape[1] - table.shape[1]
    options.report(
        f"filled {missing:,} of {table.size:,} entries ({table.shape[0]} x {table.shape[1]})"
        f"{f' and added {added} columns' if added else ''}, ridge {model.ridge_:.1e}, residual {model.residual_:.1e}, "
        f"{seconds:.1f} s: {arguments.output}",
        arguments.output,
    )
