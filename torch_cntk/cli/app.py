"""``torch-cntk app``: a page on which photographs are repaired, in a browser."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

import torch

from torch_cntk._internal.checks import finite_number
from torch_cntk.app.serve import serving
from torch_cntk.app.session import Machine
from torch_cntk.cli import options

if TYPE_CHECKING:
    from torch_cntk.cli.options import Commands

__all__ = ["add"]

_AT_HOME = ("127.0.0.1", "localhost", "::1")
_MOST_MEGAPIXELS = 1000
_PORTS = 65_535


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "app",
        help="a page on which photographs are repaired",
        description="Show a page on which photographs are repaired, in a browser; Ctrl-C ends it. Needs gradio: "
        "pip install 'torch-cntk[app]'.",
    )
    parser.add_argument(
        "--host",
        default=_AT_HOME[0],
        metavar="ADDRESS",
        help="to listen on; 0.0.0.0 lets other machines in (default: %(default)s, this machine alone)",
    )
    parser.add_argument("--port", type=int, metavar="N", help="to listen on (default: a free one from 7860 on)")
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=Machine.megapixels,
        metavar="M",
        help="of a photograph at most (default: %(default)g)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    options.add_device(parser)
    parser.set_defaults(run=_app)


def _app(arguments: argparse.Namespace) -> None:
    """Show the page until Ctrl-C.

    Raises:
        ValueError: an option is out of range.
    """
    megapixels = finite_number(arguments.max_megapixels, "--max-megapixels", minimum=0)
    if not 0 < megapixels <= _MOST_MEGAPIXELS:
        raise ValueError(f"expected --max-megapixels above 0 and at most {_MOST_MEGAPIXELS}, got {megapixels:g}")
    if arguments.port is not None and not 0 < arguments.port <= _PORTS:
        raise ValueError(f"expected --port from 1 to {_PORTS}, got {arguments.port}")
    device = options.device(arguments)
    if arguments.host not in _AT_HOME:
        options.warn(f"whoever reaches this machine at {arguments.host} may use the page")
    machine = Machine(megapixels, str(device), torch.get_num_threads())
    with serving(machine, host=arguments.host, port=arguments.port, browser=arguments.open) as address:
        print(f"the page is at {address} until Ctrl-C", flush=True)
        _wait()


def _wait() -> None:
    """Until Ctrl-C, with which one leaves a server."""
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
