"""``torch-cntk inpaint FOLDER``: one file after the other, failures at the end, and only those that are not done."""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import multiprocessing
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.dealing import collected
from torch_cntk._internal.ranks import Mesh
from torch_cntk.cli import options
from torch_cntk.cli.process import complain
from torch_cntk.images.files import SUFFIXES

__all__ = ["FAILED", "add_jobs", "fill_folder"]

FAILED = 3
"""Exit status where some files could not be filled and the others are."""
_MARKS = ("_mask", "-mask")
"""What masks have behind the image's name, where it is not the same."""
_MOST_JOBS = 64
_SHOWN = 3
"""Files that the last sentence names."""

Fill = Callable[[argparse.Namespace], str]


@dataclass(frozen=True)
class _Outcome:
    """Of one file.

    Attributes:
        name: of the file.
        line: what was done, empty after an error.
        notes: what was said meanwhile, in lines.
        error: why it failed, else empty.
    """

    name: str
    line: str
    notes: tuple[str, ...]
    error: str = ""


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """The option of folders."""
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="files of a folder that are filled at once (default: 1)"
    )


def fill_folder(arguments: argparse.Namespace, fill: Fill, mesh: Mesh) -> int:
    """Fill all images of a folder that have not been filled yet.

    Under torchrun each file is filled by one rank, the next one by whoever has nothing to do. Rank 0 tells what it has
    done itself as it goes on, and what others have done in the end.

    Args:
        arguments: of the command, with a folder as image and output, and a folder or file as mask.
        fill: fills the image that its arguments name, writes it, and says in a line what it did; a function that can
            be pickled.
        mesh: the ranks that divide the files; all of them see both folders.

    Returns:
        the exit status, on every rank: 0, or ``FAILED``.

    Raises:
        ValueError: the folders are the same or not seen by all ranks, there is no image, or the number of jobs is out
            of range.
        OSError: a folder does not exist and cannot be made.
    """
    start = time.perf_counter()
    with mesh.together():
        images = _checked(arguments, mesh)
        arguments.output.mkdir(parents=True, exist_ok=True)
    _check_seen_by_all(arguments.output, mesh)
    todo = mesh.broadcast([image for image in images if not (arguments.output / image.name).exists()])
    work = [_for_file(arguments, image) for image in todo]
    before = len(images) - len(todo)
    own: dict[int, _Outcome] = {}
    # Ten seconds may pass within one file: then the bar of the files alone would stand still.
    with tqdm(total=len(images), initial=before, unit="file", disable=not options.progress(arguments)) as bar:
        for place, outcome in _outcomes(work, fill, arguments.jobs, mesh):
            own[place] = outcome
            _tell(outcome)
            bar.update(place + 1 + before - bar.n if mesh.size > 1 else 1)
    outcomes = collected(mesh, own)
    for place, outcome in enumerate(outcomes):
        if place not in own:
            _tell(outcome)
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        complain(f"failed: {outcome.name}: {outcome.error}")
    print(_sentence(len(todo) - len(failed), before, failed, time.perf_counter() - start, arguments.output), flush=True)
    mesh.barrier()  # torchrun ends all processes as soon as one fails: not before all is told
    return FAILED if failed else 0


def _check_seen_by_all(folder: Path, mesh: Mesh) -> None:
    """Make sure that all ranks, which may be on several hosts, write to one folder.

    Raises:
        ValueError: what one of them writes there another one does not see.
    """
    if mesh.size == 1:
        return
    probe = folder / mesh.broadcast(f".seen-by-all-{uuid.uuid4().hex}")
    with mesh.together():
        if mesh.rank == 0:
            probe.touch()
    try:
        with mesh.together():
            if not probe.exists():
                raise ValueError(f"expected a folder that all hosts share, got one of each host's own: {folder}")
    finally:
        if mesh.rank == 0:
            probe.unlink()


def _checked(arguments: argparse.Namespace, mesh: Mesh) -> list[Path]:
    """The images of the folder.

    Raises:
        ValueError: see ``fill_folder``.
    """
    options.at_most(positive_int(arguments.jobs, "--jobs"), _MOST_JOBS, "--jobs")
    if arguments.jobs > 1 and mesh.size > 1:
        raise ValueError(f"expected --jobs or several processes of torchrun, got {arguments.jobs} and {mesh.size}")
    if arguments.mask is not None and not arguments.mask.exists():
        raise ValueError(f"expected a mask's file or folder, got nothing of the name {arguments.mask}")
    if arguments.output.suffix.lower() in SUFFIXES and not arguments.output.is_dir():
        raise ValueError(f"expected a folder for the filled images of a folder, got the file {arguments.output}")
    if arguments.output.exists() and arguments.output.samefile(arguments.image):
        raise ValueError(
            f"expected a folder of its own for the filled images, got that of the images: {arguments.output}"
        )
    if arguments.mask is not None and arguments.output.exists() and arguments.output.samefile(arguments.mask):
        raise ValueError(f"expected a folder of its own for the filled images, got that of the masks: {arguments.mask}")
    return _images(arguments.image, arguments.mask)


def _images(folder: Path, masks: Path | None) -> list[Path]:
    """The images of a folder in the order of their names, without hidden files and the masks that lie between them.

    Macs leave a hidden ``._a.jpg`` beside each ``a.jpg`` on cards and network drives.

    Raises:
        ValueError: there are none.
    """
    found = sorted(
        path for path in folder.iterdir() if _visible(path) and path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if masks is not None and masks.exists() and masks.samefile(folder):
        found = [path for path in found if not path.stem.endswith(_MARKS)]
    if not found:
        raise ValueError(f"expected images ({', '.join(SUFFIXES)}) in the folder {folder}, got none")
    return found


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")


def _for_file(arguments: argparse.Namespace, image: Path) -> argparse.Namespace:
    """The arguments for one image; its mask is looked for when its turn comes."""
    one = copy.copy(arguments)
    one.image, one.output, one.progress = image, arguments.output / image.name, False
    one.threads = max(1, (arguments.threads or torch.get_num_threads()) // arguments.jobs)
    return one


def _mask_of(image: Path, masks: Path) -> Path:
    """An image's mask in a folder: the file of the same name, or that of another suffix, or with "_mask" behind it.

    Raises:
        ValueError: there is none, or there are several.
    """
    same = masks / image.name
    if same.exists() and not same.samefile(image):
        return same
    names = {image.stem + mark for mark in ("", *_MARKS)}
    found = sorted(path for path in masks.iterdir() if path.stem in names and path.suffix.lower() in SUFFIXES)
    found = [path for path in found if not path.samefile(image)]
    if len(found) != 1:
        got = "none" if not found else " and ".join(path.name for path in found)
        raise ValueError(f"expected one mask of the name {image.stem} in {masks}, got {got}")
    return found[0]


def _outcomes(work: Sequence[argparse.Namespace], fill: Fill, jobs: int, mesh: Mesh) -> Iterator[tuple[int, _Outcome]]:
    """Fill the files of this rank, as they are done, with their places in the work."""
    if jobs == 1 or len(work) < 2:
        yield from ((place, _outcome(work[place], fill)) for place in mesh.dealt(len(work)))
        return
    # Not forked: torch's threads do not survive that.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(work)), context, initializer=_begin) as pool:
        futures = {pool.submit(_outcome, one, fill): place for place, one in enumerate(work)}
        try:
            for future in as_completed(futures):
                error = future.exception()
                # A process that was killed, for its memory say, takes the others with it.
                place = futures[future]
                yield place, _Outcome(work[place].image.name, "", (), str(error)) if error else future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    """Ctrl-C reaches all processes: those that fill finish their file, and the first one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _outcome(arguments: argparse.Namespace, fill: Fill) -> _Outcome:
    """Fill one file; whatever happens is told."""
    said = io.StringIO()
    name = arguments.image.name
    try:
        with contextlib.redirect_stderr(said):
            if arguments.mask is not None and arguments.mask.is_dir():
                arguments.mask = _mask_of(arguments.image, arguments.mask)
            line = fill(arguments)
    except Exception as error:
        return _Outcome(name, "", _lines(said), " ".join(str(error).split()) or type(error).__name__)
    return _Outcome(name, line, _lines(said))


def _lines(said: io.StringIO) -> tuple[str, ...]:
    return tuple(line.removeprefix("torch-cntk: ") for line in said.getvalue().splitlines() if line.strip())


def _tell(outcome: _Outcome) -> None:
    """A line of a file, above the bar."""
    for note in outcome.notes:
        with tqdm.external_write_mode(file=sys.stderr):
            complain(f"{outcome.name}: {note}")
    with tqdm.external_write_mode(file=sys.stdout):
        print(f"{outcome.name}: {outcome.line}" if outcome.line else f"{outcome.name}: failed", flush=True)


def _sentence(done: int, before: int, failed: Sequence[_Outcome], seconds: float, output: Path) -> str:
    """What was done, in a sentence."""
    parts = [f"filled {done} file{'' if done == 1 else 's'} in {seconds:.1f} s"]
    if before:
        parts.append(f"{before} had been filled before")
    if failed:
        names = ", ".join(outcome.name for outcome in failed[:_SHOWN])
        parts.append(f"{len(failed)} failed ({names}{', ...' if len(failed) > _SHOWN else ''})")
    return f"{'; '.join(parts)}: {output}"
