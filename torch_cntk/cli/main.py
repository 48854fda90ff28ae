"""The command ``torch-cntk``.

Each subcommand has a function that adds its parser and names, as ``run``, the function that does its work.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from torch_cntk import __version__
from torch_cntk._internal.checks import finite_number, positive_int, shape_text
from torch_cntk._internal.files import writing
from torch_cntk.finite.presets import PRESETS
from torch_cntk.finite.training import Training, train
from torch_cntk.images.default import default_network
from torch_cntk.images.files import Photograph, check_output, read_image, read_mask, write_image
from torch_cntk.images.guided import Guidance
from torch_cntk.images.inpaint import InpaintingResult, inpaint
from torch_cntk.images.plots import heatmap
from torch_cntk.kernels.kernel import Kernel
from torch_cntk.layers import Layer
from torch_cntk.matrices.completion import ACTIVATIONS, MatrixCompletion
from torch_cntk.matrices.files import check_table_output, encode_tables, read_table, write_table
from torch_cntk.priors.base import Identity, Meshgrid, Prior, Uniform
from torch_cntk.solvers import ConjugateGradient, Direct, EigenPro, Solver
from torch_cntk.zoo import catalogue
from torch_cntk.zoo.hourglass import hourglass
from torch_cntk.zoo.loading import cache_folder, cached_names, load_kernel

if TYPE_CHECKING:
    # Not at run time: the class of the group that add_subparsers returns is private to argparse.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["main"]

_USER_ERRORS = (
    ValueError,
    TypeError,
    IndexError,
    ArithmeticError,
    OSError,
    MemoryError,
    ImportError,
    torch.OutOfMemoryError,
)
_SMALLEST = 7
"""Side of the window with which SSIM compares two images."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``torch-cntk``.

    Args:
        argv: the arguments; those of the process by default.

    Returns:
        the exit status: 0, or 2 after an error, which is told in one line on stderr, or 130 after Ctrl-C. With the
        environment variable TORCH_CNTK_DEBUG set, errors are raised with their traceback instead.
    """
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], None] = arguments.run
    try:
        run(arguments)
    except KeyboardInterrupt:
        _complain("interrupted; nothing was written")
        return 130
    except _USER_ERRORS as error:
        if os.environ.get("TORCH_CNTK_DEBUG"):
            raise
        _complain(f"error: {str(error) or type(error).__name__}")
        return 2
    return 0


def _complain(message: str) -> None:
    print(f"torch-cntk: {' '.join(message.split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torch-cntk", description="Complete images and matrices with infinitely wide neural networks."
    )
    parser.add_argument("--version", action="version", version=f"torch-cntk {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_add_inpaint, _add_train, _add_complete, _add_demo, _add_kernels, _add_heatmap):
        add(commands)
    return parser


def _add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that computes; ``_device`` and ``_progress`` read them."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default: cpu)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: the idle cores)")
    parser.add_argument(
        "--progress", action=argparse.BooleanOptionalAction, help="show a bar (default: if stderr is a terminal)"
    )


def _device(arguments: argparse.Namespace) -> torch.device:
    """Return the device that was asked for, and set the number of threads.

    Raises:
        ValueError: there is no CUDA device, or the number of threads is below 1.
    """
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a CUDA device for --device cuda, got none that torch can use; leave the option out")
    threads = _idle_cores() if arguments.threads is None else positive_int(arguments.threads, "--threads")
    torch.set_num_threads(threads)
    return torch.device(arguments.device)


def _idle_cores() -> int:
    """Threads of torch for which there is a core to spare, at least 1.

    Threads that share a core with another program are far worse than none: each of the thousands of small steps of a
    solve waits until all of them have had their turn.
    """
    most = torch.get_num_threads()
    try:
        busy = os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        return most
    return max(1, min(most, round((os.cpu_count() or most) - busy)))


def _progress(arguments: argparse.Namespace) -> bool:
    return bool(sys.stderr.isatty() if arguments.progress is None else arguments.progress)


def _warn_unless_converged(result: InpaintingResult) -> None:
    if not result.converged:
        _complain(f"warning: {result.status.value}; residual {result.residual:.1e}")


def _summary(observed: Tensor, result: InpaintingResult, seconds: float) -> str:
    missing, size = int((~observed).sum()), f"{observed.shape[1]} x {observed.shape[0]}"
    how = result.solver if result.iterations == 0 else f"{result.solver}, {result.iterations} iterations"
    if result.passes:
        settings = result.guidance[0]
        assert isinstance(settings, Guidance)  # there is no other kind on the command line
        how = f"{result.passes} guided pass{'es' if result.passes > 1 else ''} of radius {settings.radius}, {how}"
    return (
        f"filled {missing:,} of {observed.numel():,} pixels ({size}) in {seconds:.1f} s by {how}, "
        f"residual {result.residual:.1e}"
    )


# torch-cntk inpaint


def _add_inpaint(commands: Commands) -> None:
    parser = commands.add_parser(
        "inpaint", help="fill the missing pixels of an image", description="Fill the missing pixels of an image."
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="PNG or JPEG")
    parser.add_argument(
        "--mask", type=Path, required=True, help="PNG or JPEG of the image's size: white is known, black is missing"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the filled image")
    parser.add_argument("--invert-mask", action="store_true", help="black is known, white is missing")
    parser.add_argument(
        "--kernel",
        metavar="NAME|FILE",
        help="see torch-cntk kernels, or of Kernel.save (default: suits the mask's holes)",
    )
    parser.add_argument(
        "--ridge",
        type=_ridge,
        default=1e-4,
        metavar="R|cv",
        help="more forgives more noise; cv chooses by leaving observed pixels out (default: %(default)g)",
    )
    parser.add_argument(
        "--solver",
        choices=("auto", *_SOLVERS),
        default="auto",
        help="auto: direct for small images, else conjugate gradients (cg)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="T",
        help=f"relative residual at which cg or eigenpro is done (default: {ConjugateGradient.tolerance:g})",
    )
    parser.add_argument(
        "--max-iterations",
        type=int,
        metavar="N",
        help=f"of cg (default: {ConjugateGradient.max_iterations}), or epochs of eigenpro ({EigenPro.epochs})",
    )
    _add_passes_option(parser)
    _add_machine_options(parser)
    parser.set_defaults(run=_inpaint)


def _add_passes_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passes",
        type=_passes,
        default=0,
        metavar="N|auto",
        help="content-aware passes that follow, each guided by the last result; auto chooses by leaving observed "
        "pixels out (default: %(default)s)",
    )


def _passes(text: str) -> int | str:
    """Read ``--passes``."""
    return text if text == "auto" else int(text)


_SOLVERS = ("direct", "cg", "eigenpro")


def _ridge(text: str) -> float | str:
    """Read ``--ridge``."""
    return text if text == "cv" else float(text)


def _solver(arguments: argparse.Namespace) -> Solver | Literal["auto"]:
    """Make the solver that was asked for.

    Raises:
        ValueError: an option is out of range, or is none of this solver's.
    """
    name, tolerance, iterations = arguments.solver, arguments.tolerance, arguments.max_iterations
    if name == "direct":
        if tolerance is not None or iterations is not None:
            raise ValueError("expected --tolerance and --max-iterations with an iterative solver, got --solver direct")
        return Direct()
    if name == "auto" and tolerance is None and iterations is None:
        return "auto"
    tolerance = ConjugateGradient.tolerance if tolerance is None else tolerance
    if name == "eigenpro":
        return EigenPro(epochs=EigenPro.epochs if iterations is None else iterations, tolerance=tolerance)
    return ConjugateGradient(tolerance, ConjugateGradient.max_iterations if iterations is None else iterations)


def _inpaint(arguments: argparse.Namespace) -> None:
    """Check all that can be checked, fill, write."""
    check_output(arguments.output)
    device = _device(arguments)
    solver, ridge = _solver(arguments), arguments.ridge
    if not isinstance(ridge, str):
        finite_number(ridge, "--ridge", minimum=0)
    photograph = read_image(arguments.image)
    check_output(arguments.output, alpha=photograph.alpha is not None)
    observed = _mask_for(photograph, arguments.mask, arguments.invert_mask)
    kernel = _kernel_for(observed, arguments.kernel, _progress(arguments))
    start = time.perf_counter()
    result = inpaint(
        photograph.pixels.to(device),
        observed.to(device),
        kernel,
        solver=solver,
        ridge=ridge,
        passes=arguments.passes,
        progress=_progress(arguments),
    )
    seconds = time.perf_counter() - start
    write_image(arguments.output, result.image, photograph.alpha)
    _warn_unless_converged(result)
    print(f"{_summary(observed, result, seconds)}: {arguments.output}")


def _mask_for(photograph: Photograph, path: Path, invert: bool) -> Tensor:
    """Read the mask of a photograph.

    Raises:
        ValueError: it does not belong to the photograph, or knows no pixel.
    """
    height, width = photograph.pixels.shape[1:]
    observed = read_mask(path, (height, width), invert)
    if not bool(observed.any()):
        known, hint = ("black", "") if invert else ("white", "; with --invert-mask black is known")
        raise ValueError(f"expected some {known} (known) pixels in the mask, got none: {path}{hint}")
    return observed


def _kernel_for(observed: Tensor, name: str | None, progress: bool) -> Kernel | None:
    """Get the kernel that was asked for, or return None for the default one.

    Raises:
        ValueError: it is no kernel for this image.
    """
    if name is None:
        return None
    kernel = load_kernel(name, progress=progress)
    if kernel.ndim != observed.ndim:
        raise ValueError(f"expected a kernel for images, of 2 dimensions, got one of {kernel.ndim}: {name}")
    if kernel.size is not None:
        kernel.check_size(tuple(observed.shape))
    return kernel


# torch-cntk train


def _add_train(commands: Commands) -> None:
    parser = commands.add_parser(
        "train",
        help="fill the missing pixels by training a finite network",
        description="Fill the missing pixels of an image by training a network of finite width on the known ones, as "
        "the deep image prior does: the skip-connected hourglass, or a published preset. Options override the preset.",
    )
    parser.add_argument("image", type=Path, metavar="IMAGE", help="PNG or JPEG")
    parser.add_argument(
        "--mask", type=Path, required=True, help="PNG or JPEG of the image's size: white is known, black is missing"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the filled image")
    parser.add_argument("--invert-mask", action="store_true", help="black is known, white is missing")
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
    _add_machine_options(parser)
    parser.set_defaults(run=_train)


_HOURGLASS: dict[str, Any] = {"levels": 5, "width": 128, "skip": 4, "up": "nearest"}


def _network_to_train(arguments: argparse.Namespace, channels: int) -> tuple[Layer, Prior, Training]:
    """What the options ask for.

    Raises:
        ValueError: options of the hourglass beside a preset, or values out of range.
    """
    shape = {name: getattr(arguments, name) for name in _HOURGLASS if getattr(arguments, name) is not None}
    options = ("steps", "lr", "jitter", "holdout", "patience", "iterate")
    changes = {name: getattr(arguments, name) for name in options if getattr(arguments, name) is not None}
    changes |= {"seed": arguments.seed, "compile": arguments.compile, "autocast": arguments.autocast}
    if arguments.preset is not None and shape:
        raise ValueError(f"expected no --{next(iter(shape))} beside --preset, which has a network of its own")
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
    check_output(arguments.output)
    device = _device(arguments)
    photograph = read_image(arguments.image)
    check_output(arguments.output, alpha=photograph.alpha is not None)
    observed = _mask_for(photograph, arguments.mask, arguments.invert_mask)
    network, prior, training = _network_to_train(arguments, photograph.pixels.shape[0])
    try:
        result = train(
            network,
            photograph.pixels.to(device),
            observed.to(device),
            prior=prior,
            training=training,
            checkpoint=arguments.checkpoint,
            progress=_progress(arguments),
        )
    except KeyboardInterrupt:
        if arguments.checkpoint is not None and arguments.checkpoint.exists():
            _complain(f"interrupted; the same command goes on from {arguments.checkpoint}")
            raise SystemExit(130) from None
        raise
    write_image(arguments.output, result.image, photograph.alpha)
    missing, steps = int((~observed).sum()), len(result.losses)
    print(
        f"filled {missing:,} of {observed.numel():,} pixels in {steps} steps, loss {float(result.losses[-1]):.1e}, "
        f"{result.seconds:.1f} s; {result.status.value}: {arguments.output}"
    )


# torch-cntk complete


def _add_complete(commands: Commands) -> None:
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
        "--ridge", type=_ridge, default="cv", metavar="R", help="a number, or cv to choose it by leaving out entries"
    )
    parser.add_argument(
        "--identity",
        type=float,
        default=0.3,
        metavar="W",
        help="weight of what is particular to a column, beside its features (default: %(default)s)",
    )
    _add_machine_options(parser)
    parser.set_defaults(run=_complete)


def _complete(arguments: argparse.Namespace) -> None:
    """Check all that can be checked, complete, write."""
    check_table_output(arguments.output)
    device = _device(arguments)
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
        progress=_progress(arguments),
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
        _complain(f"warning: {warning.message}")
    missing = int(table.isna().to_numpy().sum())
    added = filled.shape[1] - table.shape[1]
    print(
        f"filled {missing:,} of {table.size:,} entries ({table.shape[0]} x {table.shape[1]})"
        f"{f' and added {added} columns' if added else ''}, ridge {model.ridge_:.1e}, residual {model.residual_:.1e}, "
        f"{seconds:.1f} s: {arguments.output}"
    )


# torch-cntk demo


def _add_demo(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="fill the missing pixels of a sample photograph",
        description="Remove pixels of a photograph at random, fill them, and write the pictures before and after.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("demo"), metavar="FOLDER", help="for the pictures (default: ./demo)"
    )
    parser.add_argument("--image", type=Path, help="PNG or JPEG to take in place of the sample photograph")
    parser.add_argument(
        "--missing", type=float, default=0.5, metavar="SHARE", help="of the pixels, to remove (default: %(default)g)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the pixels' choice (default: %(default)s)")
    _add_passes_option(parser)
    _add_machine_options(parser)
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    """Check all that can be checked, fill, measure, write."""
    _check_folder(arguments.output)
    device = _device(arguments)
    metrics = _scikit_image("metrics")
    original = _sample() if arguments.image is None else read_image(arguments.image).pixels
    observed = _random_mask(original, arguments.missing, arguments.seed)
    start = time.perf_counter()
    result = inpaint(original.to(device), observed.to(device), passes=arguments.passes, progress=_progress(arguments))
    seconds = time.perf_counter() - start
    after = result.image.cpu().clamp(0, 1)
    pictures = {
        "original.png": original,
        "mask.png": observed[None].to(original.dtype),
        "before.png": torch.where(observed, original, 0),
        "after.png": after,
    }
    others: dict[str, Tensor] = {}
    if arguments.passes != 0:
        others = _without_passes(original, observed, device)
        pictures["comparison.png"] = torch.cat([others["periodic kernel"], after, others["biharmonic"], original], 2)
    _write_together(arguments.output, pictures)
    _warn_unless_converged(result)

    def quality(picture: Tensor) -> str:
        psnr = metrics.peak_signal_noise_ratio(original.numpy(), picture.numpy(), data_range=1)
        ssim = metrics.structural_similarity(original.numpy(), picture.numpy(), data_range=1, channel_axis=0)
        return f"PSNR {psnr:.2f} dB, SSIM {ssim:.4f}"

    print(f"{_summary(observed, result, seconds)}")
    print(f"{quality(after)} over the whole image")
    for name, picture in others.items():
        print(f"{quality(picture)} of the {name}")
    print(f"wrote {', '.join(pictures)} into {arguments.output}")


def _without_passes(original: Tensor, observed: Tensor, device: torch.device) -> dict[str, Tensor]:
    """What the periodic kernel alone makes of the picture, and what biharmonic inpainting does."""
    periodic = inpaint(original.to(device), observed.to(device)).image.cpu().clamp(0, 1)
    known = torch.where(observed, original, 0).permute(1, 2, 0).numpy()
    filled = _scikit_image("restoration").inpaint_biharmonic(known, (~observed).numpy(), channel_axis=-1)
    biharmonic = torch.where(observed, original, torch.from_numpy(filled).permute(2, 0, 1).to(original.dtype))
    return {"periodic kernel": periodic, "biharmonic": biharmonic.clamp(0, 1)}


def _scikit_image(part: str) -> ModuleType:
    """Import a part of scikit-image, which not every installation has.

    Raises:
        ImportError: it is not installed; the message says how to get it.
    """
    import importlib

    try:
        return importlib.import_module(f"skimage.{part}")
    except ImportError as error:
        raise ImportError(f"the demo needs scikit-image: pip install 'torch-cntk[examples]' ({error})") from error


def _sample() -> Tensor:
    """The photograph of an astronaut that comes with scikit-image, [3, 512, 512] in [0, 1]."""
    values = torch.from_numpy(_scikit_image("data").astronaut().copy())
    return values.permute(2, 0, 1).to(torch.float32) / 255


def _random_mask(image: Tensor, missing: float, seed: int) -> Tensor:
    """Draw which pixels of [channels, H, W] are observed, all but this share of them.

    Raises:
        ValueError: the image is too small to be measured, the share leaves nothing to fill or to fill it from, or
            the seed is too large.
    """
    size = tuple(image.shape[1:])
    if min(size) < _SMALLEST:
        raise ValueError(f"expected an image of at least {_SMALLEST} x {_SMALLEST} pixels, got {size[1]} x {size[0]}")
    count = image[0].numel()
    removed = round(finite_number(missing, "--missing", minimum=0) * count)
    if not 0 < removed < count:
        raise ValueError(f"expected --missing between 0 and 1, so that pixels are left and missing, got {missing:g}")
    if not -(2**63) <= seed < 2**64:
        raise ValueError(f"expected --seed to fit into 64 bits, got {seed}")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    observed = torch.ones(count, dtype=torch.bool)
    observed[order[:removed]] = False
    return observed.reshape(size)


def _check_folder(folder: Path) -> None:
    """Find out before long work whether files can be written into a folder, which need not exist yet.

    Raises:
        NotADirectoryError: there is a file of that name, or of a folder's above.
        PermissionError: nothing may be written there.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"expected a folder for the pictures, got {folder}: {existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"expected a folder that can be written to, got {existing}")


def _write_together(folder: Path, pictures: Mapping[str, Tensor]) -> None:
    """Write all pictures or none into a folder, which is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
        for name, pixels in pictures.items():
            write_image(Path(unfinished, name), pixels)
        for name in pictures:
            Path(unfinished, name).replace(folder / name)


# torch-cntk kernels


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


# torch-cntk heatmap

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
    _add_machine_options(parser)
    parser.set_defaults(run=_heatmap)


def _heatmap(arguments: argparse.Namespace) -> None:
    """Get the kernel, draw, write.

    Raises:
        FileNotFoundError: the output's folder does not exist.
        ValueError: the output's suffix is unknown.
    """
    size, pixel = tuple(arguments.size), tuple(arguments.pixel)
    output: Path = arguments.output
    if output.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ValueError(f"expected an output file with the suffix .png, .pdf, .svg, got {output}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"expected the output's folder to exist, but there is no folder {output.parent}")
    device = _device(arguments)
    if arguments.kernel is not None:
        kernel = load_kernel(arguments.kernel, device=device, progress=_progress(arguments))
    else:
        network = default_network(positive_int(arguments.levels, "--levels"))
        kernel = network.kernel(_PRIORS[arguments.prior], size, device=device, progress=_progress(arguments))
    axes = heatmap(kernel, pixel, size)
    with writing(output) as temporary:
        axes.figure.canvas.print_figure(temporary)
    print(f"wrote {output}")
