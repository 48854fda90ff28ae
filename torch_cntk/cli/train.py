"""``torch-cntk train``: fill the missing pixels by training a finite network."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from torch_cntk.cli import options, pictures
from torch_cntk.cli.process import complain
from torch_cntk.finite.presets import PRESETS
from torch_cntk.finite.training import Training, train
from torch_cntk.images.files import check_output
from torch_cntk.layers import Layer
from torch_cntk.priors import Prior, Uniform
from torch_cntk.zoo.hourglass import hourglass

if TYPE_CHECKING:
    from torch_cntk.cli.options import Commands

__all__ = ["add"]

_MOST_CHANNELS = 16384
"""Filters of more channels than this in one layer take gigabytes, and steps take minutes."""
_MOST_STEPS = 10_000_000
"""A month of training on small images."""
_SMALL = 64
"""Side to which smaller images may be enlarged, in pixels, so that the usual number of levels serves them."""


def add(commands: Commands) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "train",
        help="fill the missing pixels by training a finite network",
        description="Fill the missing pixels of an image by training a network of finite width on the known ones, as "
        "the deep image prior does: the skip-connected hourglass, or a published preset. Options override the preset.",
    )
    pictures.add_files(parser)
    parser.add_argument("--preset", choices=sorted(PRESETS), help="published network and settings")
    shape = parser.add_argument_group("network", "of the hourglass, where there is no preset")
    shape.add_argument("--levels", type=int, metavar="N", help="halvings of the resolution (default: 5)")
    shape.add_argument("--width", type=int, metavar="N", help="channels (default: 128)")
    shape.add_argument("--skip", type=int, metavar="N", help="channels of the skip connections (default: 4)")
    shape.add_argument("--up", choices=("nearest", "bilinear"), help="upsampling (default: nearest)")
    how = parser.add_argument_group("training")
    how.add_argument("--steps", type=int, metavar="N", help="updates (default: 3000)")
    how.add_argument("--lr", type=float, metavar="R", help="learning rate of Adam (default: 0.01)")
    how.add_argument("--jitter", type=float, metavar="S", help="noise on the input (default: 0.03)")
    how.add_argument("--holdout", type=float, metavar="SHARE", help="of the known pixels, to judge by (default: 0)")
    how.add_argument("--patience", type=int, metavar="N", help="steps without progress on them before it stops")
    how.add_argument("--iterate", choices=("last", "best", "average"), help="which one is written (default: last)")
    how.add_argument("--seed", type=int, default=0, help="of weights, input and noise (default: %(default)s)")
    how.add_argument("--compile", action="store_true", help="compile the network first")
    how.add_argument("--autocast", action="store_true", help="compute in bfloat16 where that is safe")
    how.add_argument("--checkpoint", type=Path, metavar="FILE", help="to write the state to, and to go on from")
    options.add_machine(parser)
    parser.set_defaults(run=_train)


_HOURGLASS: dict[str, Any] = {"levels": 5, "width": 128, "skip": 4, "up": "nearest"}


def _network_to_train(
    arguments: argparse.Namespace, channels: int, size: Sequence[int]
) -> tuple[Layer, Prior, Training]:
    """What the options ask for.

    Raises:
        ValueError: options of the hourglass beside a preset, or values out of range.
    """
    shape = {name: getattr(arguments, name) for name in _HOURGLASS if getattr(arguments, name) is not None}
    settings = ("steps", "lr", "jitter", "holdout", "patience", "iterate")
    changes = {name: getattr(arguments, name) for name in settings if getattr(arguments, name) is not None}
    changes |= {"seed": arguments.seed, "compile": arguments.compile, "autocast": arguments.autocast}
    if arguments.preset is not None and shape:
        raise ValueError(f"expected no --{next(iter(shape))} beside --preset, which has a network of its own")
    if not -(2**63) <= arguments.seed < 2**64:
        raise ValueError(f"expected --seed to fit into 64 bits, got {arguments.seed}")
    options.check_levels(arguments.levels, [max(side, _SMALL) for side in size], room=4)
    options.at_most(arguments.steps, _MOST_STEPS, "--steps")
    for name in ("width", "skip"):
        options.at_most(getattr(arguments, name), _MOST_CHANNELS, f"--{name}")
    with torch.random.fork_rng([]):
        torch.manual_seed(arguments.seed)
        if arguments.preset is not None:
            entry = PRESETS[arguments.preset]
            return entry.network(channels), entry.prior, replace(entry.training, **changes)
        training = Training(jitter=0.03, batch_norm=True, parameterisation="standard")
        network = hourglass(**(_HOURGLASS | shape), channels=channels)
        return network, Uniform(0, 0.1), replace(training, **changes)


def _train(arguments: argparse.Namespace) -> None:
    """Check all that can be checked, train, write.

    Raises:
        SystemExit: Ctrl-C, where there is a checkpoint to go on from.
        KeyboardInterrupt: Ctrl-C, where there is none.
    """
    pictures.check_files(arguments, {}, {"--checkpoint": arguments.checkpoint})
    check_output(arguments.output)
    device = options.device(arguments)
    task = pictures.read_task(arguments)
    pixels, observed = task.photograph.pixels, task.observed
    network, prior, training = _network_to_train(arguments, pixels.shape[0], pixels.shape[1:])
    try:
        result = train(
            network,
            pixels.to(device),
            task.known.to(device),
            prior=prior,
            training=training,
            checkpoint=arguments.checkpoint,
            progress=options.progress(arguments),
        )
    except KeyboardInterrupt:
        if arguments.checkpoint is not None and arguments.checkpoint.exists():
            complain(f"interrupted; the same command goes on from {arguments.checkpoint}")
            raise SystemExit(130) from None
        raise
    task.write(arguments.output, result.image)
    missing, steps = int((~observed).sum()), len(result.losses)
    options.report(
        f"filled {missing:,} of {observed.numel():,} pixels in {steps} steps, loss {float(result.losses[-1]):.1e}, "
        f"{result.seconds:.1f} s; {result.status.value}: {arguments.output}",
        arguments.output,
    )
