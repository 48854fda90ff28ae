"""``torch-cntk kernels`` lists kernels, ``torch-cntk heatmap`` draws a row of one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from torch_cntk._internal.checks import as_size, positive_int, shape_text
from torch_cntk._internal.contexts import weightless
from torch_cntk._internal.files import check_writable, is_stream, writing
from torch_cntk.cli import options
from torch_cntk.images.default import default_network
from torch_cntk.images.plotting import heatmap
from torch_cntk.priors import Identity, Meshgrid, Prior, Uniform
from torch_cntk.zoo import catalogue
from torch_cntk.zoo.loading import cache_folder, cached_names, load_kernel

if TYPE_CHECKING:
    from torch_cntk.cli.options import Commands

__all__ = ["add"]

_MOST_PIXELS = 1 << 22
"""Many more than a picture has dots; kernels of narrower and longer images take minutes."""


def add(commands: Commands) -> None:
    """Add both subcommands."""
    _add_kernels(commands)
    _add_heatmap(commands)


def _add_kernels(commands: Commands) -> None:
    parser = commands.add_parser(
        "kernels",
        help="list the kernels that have a name",
        description="List the kernels that ship with the package and those in the cache. Any other of the form "
        "PRIOR-[plain-|skip-|fine-|wide-]LEVELSxCHANNELS-ACTIVATION[-HEIGHTxWIDTH], such as uniform-7x128-leaky0.2 or "
        "identity-4x128-relu-96x96, is computed when it is first asked for and put into the cache.",
    )
    parser.set_defaults(run=_kernels)


def _kernels(arguments: argparse.Namespace) -> None:
    """A line a kernel."""
    rows = [("name", "prior", "network", "size", "bytes")]
    for entry in catalogue.index().values():
        size = f"multiples of {entry.period[0]}" if entry.size is None else shape_text(entry.size)
        rows.append((entry.name, entry.prior, entry.network, size, f"{entry.bytes:,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    cached = cached_names()
    print(f"in the cache {cache_folder()}: {', '.join(cached) or 'none'}")


_PRIORS: dict[str, Prior] = {"uniform": Uniform(0, 0.1), "identity": Identity(), "meshgrid": Meshgrid()}


def _add_heatmap(commands: Commands) -> None:
    parser = commands.add_parser(
        "heatmap",
        help="draw which pixels fill a given one",
        description="Draw a row of a kernel: which pixels of an image fill a given one.",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the picture: .png, .pdf, .svg")
    parser.add_argument("--pixel", type=int, nargs=2, required=True, metavar=("ROW", "COLUMN"), help="the pixel filled")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 64), metavar=("HEIGHT", "WIDTH"), help="of the image")
    kernels = parser.add_mutually_exclusive_group()
    kernels.add_argument("--kernel", metavar="NAME|FILE", help="see torch-cntk kernels, or of Kernel.save")
    kernels.add_argument("--prior", choices=sorted(_PRIORS), default="uniform", help="of the default network")
    parser.add_argument("--levels", type=int, default=3, metavar="N", help="of the default network (default: 3)")
    options.add_machine(parser)
    parser.set_defaults(run=_heatmap)


def _picture_format(output: Path) -> str:
    """What matplotlib calls the format of the output: png for a pipe or device that does not say.

    Raises:
        ValueError: the output's suffix is unknown.
    """
    kind = output.suffix.lower().removeprefix(".")
    if kind not in ("png", "pdf", "svg"):
        if not is_stream(output):
            raise ValueError(f"expected an output file with the suffix .png, .pdf, .svg, got {output}")
        return "png"
    return kind


def _heatmap(arguments: argparse.Namespace) -> None:
    """Check what can be checked, get the kernel, draw, write."""
    height, width = as_size(arguments.size, "--size")
    options.at_most(height * width, _MOST_PIXELS, "the pixels of --size")
    size, pixel = (height, width), tuple(arguments.pixel)
    output: Path = arguments.output
    check_writable(output)
    kind = _picture_format(output)
    device = options.device(arguments)
    if arguments.kernel is not None:
        kernel = load_kernel(arguments.kernel, device=device, progress=options.progress(arguments))
    else:
        options.check_levels(positive_int(arguments.levels, "--levels"), size)
        with weightless():
            network = default_network(arguments.levels)
        kernel = network.kernel(_PRIORS[arguments.prior], size, device=device, progress=options.progress(arguments))
    axes = heatmap(kernel, pixel, size)
    with writing(output) as temporary:
        axes.figure.canvas.print_figure(temporary, format=kind)
    options.report(f"wrote {output}", output)
