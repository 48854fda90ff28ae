"""What the paper's image experiments share: tasks, rows of a table that grows, and how they are shown.

A row is what one method makes of one image under one mask. Rows are merged by their key into a file of JSON lines as
they come, so that an interrupted run keeps what it has, and ``--methods finite`` of another day completes the table.
Fills are kept beside it; ``--report`` makes the Markdown table and the page of pictures from what is there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import filelock
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.images import cropped, in_holes, psnr, shrunk, ssim
from benchmarks.methods import METHODS, Filled, Options, available, left_out
from benchmarks.timing import markdown, peak_bytes
from torch_cntk._internal.files import writing
from torch_cntk.images.files import read_image, write_image
from torch_cntk.images.masks import has_holes


@dataclass(frozen=True)
class Task:
    """An image and which of its pixels are known.

    Attributes:
        image: its name.
        kind: of mask, in words, such as "50 % missing".
        seed: of the mask; None for one that comes with the image.
        truth: float32 [channels, H, W] in [0, 1].
        observed: boolean [H, W], True = known.
    """

    image: str
    kind: str
    seed: int | None
    truth: Tensor
    observed: Tensor


@dataclass(frozen=True)
class Record:
    """A row: which task, what by, how well, and where and when it was measured."""

    image: str
    kind: str
    seed: int | None
    crop: int
    shrink: int
    method: str
    network: str
    height: int
    width: int
    channels: int
    missing: float
    psnr: float
    ssim: float
    seconds: float
    processor_seconds: float | None
    peak_bytes: int | None
    told: Mapping[str, float | int | str]
    command: str
    commit: str
    torch: str
    cores: int
    threads: int
    date: str
    holes: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str | int | None, ...]:
        """A row of the same key takes this one's place."""
        return self.image, self.kind, self.seed, self.crop, self.shrink, self.method, self.network

    @property
    def slug(self) -> str:
        """The key as the name of a file."""
        words = "-".join(str(part) for part in self.key if part not in ("", None))
        return "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in words)


class Table:
    """Rows in a file, which several processes may write to; fills and checkpoints beside it.

    Args:
        folder: of ``rows.jsonl``; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "rows.jsonl"
        for name in ("fills", "checkpoints"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def rows(self) -> dict[tuple[str | int | None, ...], Record]:
        """By key.

        Raises:
            ValueError: a line is no row.
        """
        if not self.path.is_file():
            return {}
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
            found = [Record(**json.loads(line)) for line in lines]
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected rows of this benchmark in {self.path}: {error}") from error
        return {row.key: row for row in found}

    def add(self, row: Record, fill: Tensor) -> None:
        """Put a row and its picture in, in place of one of the same key."""
        write_image(self.fill(row), fill)
        with filelock.FileLock(self.path.with_suffix(".lock")):
            rows = self.rows()
            old = rows.get(row.key)
            if row.peak_bytes is None and old is not None and old.commit == row.commit:
                row = replace(row, peak_bytes=old.peak_bytes)
            if row.processor_seconds is None and old is not None and old.told == row.told:
                # Training that was complete has nothing to add.
                row = replace(row, processor_seconds=old.processor_seconds)
            rows[row.key] = row
            with writing(self.path) as temporary:
                temporary.write_text("".join(json.dumps(asdict(each)) + "\n" for each in rows.values()))

    def fill(self, row: Record) -> Path:
        """Where its picture is."""
        return self.folder / "fills" / f"{row.slug}.png"

    def checkpoint(self, row: Record, settings: Options) -> Path:
        """Where its training may be gone on from; another one if it is done in another way."""
        differs: list[str] = [settings.iterate] if settings.iterate != "average" else []
        differs += ["bfloat16"] if settings.autocast else []
        return self.folder / "checkpoints" / f"{'-'.join([row.slug, *differs])}.pt"


# Tasks.


def reduced(image: Tensor, observed: Tensor | None, options: argparse.Namespace) -> tuple[Tensor, Tensor | None]:
    """An image, and its mask if it has one, shrunk and cropped as the options say."""
    if options.shrink > 1:
        image, observed = shrunk(image, observed, options.shrink)
    if options.crop:
        image = cropped(image, options.crop)
        observed = None if observed is None else cropped(observed, options.crop)
    return image, observed


# Running.


def _row(task: Task, method: str, options: argparse.Namespace, settings: Options) -> Record:
    """All of a row that is known before."""
    channels, height, width = task.truth.shape
    return Record(
        image=task.image,
        kind=task.kind,
        seed=task.seed,
        crop=options.crop,
        shrink=options.shrink,
        method=method,
        network=METHODS[method].network(settings),
        height=height,
        width=width,
        channels=channels,
        missing=1 - float(task.observed.double().mean()),
        psnr=0.0,
        ssim=0.0,
        seconds=0.0,
        processor_seconds=None,
        peak_bytes=None,
        told={},
        command=options.command,
        commit=_commit(),
        torch=torch.__version__,
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    )


def _command(name: str, arguments: Sequence[str]) -> str:
    """As it was typed, without the folders of this machine and what does not matter to the numbers."""
    words, skip = [f"python -m benchmarks.{name}"], False
    for word in arguments:
        option = word.partition("=")[0]
        if not skip and option not in (*_FOLDERS, "--report", "--resume"):
            words.append(shlex.quote(word))
        skip = word in _FOLDERS
    return " ".join(words)


_FOLDERS = ("--out", "--images", "--page")


@lru_cache(maxsize=1)
def _commit() -> str:
    """Of the source tree, with a + if the code has changes; empty outside of one."""
    git, code = ["git", "-C", str(Path(__file__).parents[1])], ("torch_cntk", "benchmarks", "precomputed")
    try:
        done = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        changed = (
            subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *code], capture_output=True, check=False).returncode
            == 1
        )
    except OSError:
        return ""
    return done.stdout.strip() + ("+" if changed else "")


def measured(task: Task, row: Record, settings: Options, *, memory: bool) -> tuple[Record, Tensor]:
    """Let a method fill a task, which it is not shown the truth of.

    Returns:
        the complete row, and the fill with the observed pixels restored.
    """
    known = torch.where(task.observed, task.truth, 0)
    resumed = settings.checkpoint is not None and settings.checkpoint.exists()
    start, started = time.perf_counter(), time.process_time()
    filled: Filled = METHODS[row.method].fill(known, task.observed, settings)
    seconds, processor = time.perf_counter() - start, time.process_time() - started
    if resumed:
        # It has been at work before.
        seconds = float(filled.told["training seconds"])
    image = torch.where(task.observed, task.truth, filled.image.clamp(0, 1))
    peak = None
    if memory:
        few = replace(settings, steps=2, checkpoint=None, progress=False)
        peak = peak_bytes(partial(METHODS[row.method].fill, known, task.observed, few))
    done = replace(
        row,
        told=filled.told,
        psnr=psnr(image, task.truth),
        ssim=ssim(image, task.truth),
        seconds=seconds,
        processor_seconds=None if resumed else processor,
        peak_bytes=peak,
        holes={} if bool(task.observed.all()) else in_holes(image, task.truth, ~task.observed),
    )
    return done, image


def run(tasks: Sequence[Task], table: Table, options: argparse.Namespace) -> None:
    """Every method on every task, but for known rows where a run is resumed; rows are saved as they come."""
    works = [(task, method) for task in tasks for method in options.methods]
    if options.resume:
        known, settings = table.rows(), settings_of(options)
        works = [(task, method) for task, method in works if _row(task, method, options, settings).key not in known]
    with tqdm(works, unit="row") as bar:
        for task, method in bar:
            settings = settings_of(options)
            row = _row(task, method, options, settings)
            if method == "finite":
                settings = replace(settings, checkpoint=table.checkpoint(row, settings), progress=True)
            bar.set_postfix_str(f"{task.image}, {task.kind}, {METHODS[method].title}")
            row, fill = measured(task, row, settings, memory=options.memory)
            table.add(row, fill)
            bar.write(f"{task.image}, {task.kind}, {METHODS[method].title}: {row.psnr:.2f} dB, {row.seconds:.1f} s")


def settings_of(options: argparse.Namespace) -> Options:
    """For the methods."""
    names = ("network", "ridge", "filters", "steps", "minutes", "iterate", "autocast")
    return Options(**{name: getattr(options, name) for name in names})


# Reporting.

Pair = tuple[float, float]
"""PSNR and SSIM."""


_MEASURES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "gradients": "gradients alike", "fine": "energy of fine detail"}


@dataclass(frozen=True)
class Published:
    """A column of numbers that were not measured here: title, kind of mask, PSNR by image, what to know."""

    title: str
    kind: str
    psnr: Mapping[str, float]
    remark: str

    def fits(self, kind: str, options: argparse.Namespace) -> bool:
        """Whether it is about these tasks: of that kind, on whole images."""
        return kind == self.kind and options.crop == 0 and options.shrink == 1


@dataclass
class Report:
    """The rows of some tasks, as text.

    Attributes:
        tasks: that are told of.
        rows: all there are, by key.
        options: of the command line.
        published: a column beside them, where the images are whole.
    """

    tasks: Sequence[Task]
    rows: Mapping[tuple[str | int | None, ...], Record]
    options: argparse.Namespace
    published: Published | None = None
    used: list[Record] = field(default_factory=list)

    def found(self, task: Task, method: str) -> Record | None:
        """The row of a task and a method."""
        row = _row(task, method, self.options, settings_of(self.options))
        return self.rows.get(row.key)

    def methods(self) -> list[str]:
        """Those that have rows."""
        return [name for name in METHODS if any(self.found(task, name) for task in self.tasks)]

    def text(self) -> str:
        """Markdown: quality, then seconds, memory and steps, then how it was made."""
        parts = []
        for kind in dict.fromkeys(task.kind for task in self.tasks):
            group = [task for task in self.tasks if task.kind == kind]
            if any(self.found(task, method) for task in group for method in METHODS):
                parts += [self._quality(kind, group), *self._in_holes(group), self._costs(group)]
        return "\n\n".join([*parts, self._origin()]) + "\n"

    def _quality(self, kind: str, tasks: Sequence[Task]) -> str:
        images = _images(tasks)
        shown = self.published if self.published and self.published.fits(kind, self.options) else None
        columns: dict[str, dict[str, Pair]] = {method: self._by_image(tasks, method) for method in self.methods()}
        lines = []
        for image in images:
            cells = _marked([column.get(image) for column in columns.values()])
            lines.append([image, *cells, *([_number(shown.psnr.get(image))] if shown else [])])
        if len(images) > 1:
            full = [column if len(column) == len(images) else {} for column in columns.values()]
            lines.append(["mean", *_marked([_mean_pair(list(column.values())) for column in full])])
            lines.append(["least gain", *(_least_gain(column, columns.get("biharmonic", {})) for column in full)])
            if shown and set(images) <= set(shown.psnr):
                lines[-2].append(_number(mean(shown.psnr[image] for image in images)))
        titles = [*(METHODS[method].title for method in columns), *([shown.title] if shown else [])]
        heading = f"**{kind}**: PSNR (dB) / SSIM of the whole image{_seeds(tasks)}; the least gain is on biharmonic"
        padded = [[*line, *("" for _ in range(len(titles) + 1 - len(line)))] for line in lines]
        return f"{heading}\n\n" + markdown(["image", *titles], padded)

    def _by_image(self, tasks: Sequence[Task], method: str) -> dict[str, Pair]:
        """Means over the seeds of an image; images of which one is missing are left out."""
        pairs = {}
        for image in dict.fromkeys(task.image for task in tasks):
            found = [self.found(task, method) for task in tasks if task.image == image]
            rows = [row for row in found if row is not None]
            self.used += rows
            if len(rows) == len(found):
                pairs[image] = mean(row.psnr for row in rows), mean(row.ssim for row in rows)
        return pairs

    def _in_holes(self, tasks: Sequence[Task]) -> list[str]:
        """A table of the missing pixels, where they are holes: means over the images that all methods have filled."""
        if not has_holes(tasks[0].observed):
            return []
        found = {method: self._measures(tasks, method) for method in self.methods()}
        found = {method: measures for method, measures in found.items() if measures}
        images = [name for name in _images(tasks) if found and all(name in measures for measures in found.values())]
        if not images:
            return []
        lines = []
        for method, measures in found.items():
            means = {name: mean(measures[image][name] for image in images) for name in _MEASURES}
            lines.append([METHODS[method].title, f"{means.pop('psnr'):.2f}", *map("{:.3f}".format, means.values())])
        heading = f"The missing pixels alone, means over {len(images)} images ({', '.join(images)}):"
        return [heading, markdown(["method", *_MEASURES.values()], lines)]

    def _measures(self, tasks: Sequence[Task], method: str) -> dict[str, Mapping[str, float]]:
        """Of the missing pixels, by image."""
        rows = {task.image: self.found(task, method) for task in tasks}
        return {name: row.holes for name, row in rows.items() if row is not None and row.holes}

    def _costs(self, tasks: Sequence[Task]) -> str:
        lines = []
        for method in self.methods():
            rows = [row for task in tasks if (row := self.found(task, method)) is not None]
            if not rows:
                continue
            peaks = [row.peak_bytes for row in rows if row.peak_bytes is not None]
            processor = [row.processor_seconds for row in rows if row.processor_seconds is not None]
            lines.append(
                (
                    METHODS[method].title,
                    rows[0].network,
                    _range([row.seconds for row in rows]),
                    _range(processor) if processor else "-",
                    f"{max(peaks) / 1e9:.2f} GB" if peaks else "-",
                    ", ".join(_told(rows)),
                )
            )
        return markdown(["method", "network", "seconds an image", "of a processor", "peak memory", "by the way"], lines)

    def _origin(self) -> str:
        lines = ["Observed pixels are restored; images are clipped to [0, 1].", *self._part()]
        for command in dict.fromkeys(row.command for row in self.used):
            rows = [row for row in self.used if row.command == command]
            titles = ", ".join(dict.fromkeys(METHODS[row.method].title for row in rows))
            where = sorted({f"{row.cores} cores, threads used: {row.threads}, torch {row.torch}" for row in rows})
            when = sorted({f"{row.date} at {row.commit}" for row in rows})
            lines.append(f"`{command}` ({titles}); {'; '.join(where)}; {', '.join(when)}.")
        if self.published and any(self.published.fits(task.kind, self.options) for task in self.tasks):
            lines.append(self.published.remark)
        return "\n".join(f"- {line}" for line in lines)

    def _part(self) -> list[str]:
        crop, shrink = self.options.crop, self.options.shrink
        parts = [f"shrunk by {shrink}"] if shrink > 1 else []
        parts += [f"the {crop} x {crop} pixels in the middle"] if crop else []
        return [f"Images are {' and of that '.join(parts)}, for all methods."] if parts else []


def _images(tasks: Sequence[Task]) -> list[str]:
    return list(dict.fromkeys(task.image for task in tasks))


def mean(numbers: Iterable[float]) -> float:
    """Of some numbers."""
    return statistics.fmean(numbers)


def _mean_pair(pairs: Sequence[Pair]) -> Pair | None:
    return (mean(pair[0] for pair in pairs), mean(pair[1] for pair in pairs)) if pairs else None


def _least_gain(column: Mapping[str, Pair], biharmonic: Mapping[str, Pair]) -> str:
    """PSNR above biharmonic, of the image where that is least."""
    gains = [column[image][0] - biharmonic[image][0] for image in column if image in biharmonic]
    return f"{min(gains):+.2f}" if gains and column is not biharmonic else "-"


def _marked(cells: Sequence[Pair | None]) -> list[str]:
    """As text; the highest PSNR is bold."""
    best = max((cell[0] for cell in cells if cell is not None), default=None)
    texts = []
    for cell in cells:
        text = "-" if cell is None else f"{cell[0]:.2f} / {cell[1]:.3f}"
        texts.append(f"**{text}**" if cell is not None and cell[0] == best else text)
    return texts


def _range(values: Sequence[float]) -> str:
    return f"{mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _seeds(tasks: Sequence[Task]) -> str:
    seeds = sorted({task.seed for task in tasks if task.seed is not None})
    return f"; mask seeds {', '.join(map(str, seeds))}" if seeds else ""


def _told(rows: Sequence[Record]) -> list[str]:
    """What the methods say about these rows: ranges of numbers, words once."""
    texts = []
    for name in dict.fromkeys(name for row in rows for name in row.told):
        values = [row.told[name] for row in rows if name in row.told]
        numbers = [value for value in values if not isinstance(value, str)]
        if numbers:
            low, high = min(numbers), max(numbers)
            texts.append(f"{name} {low:.4g}" + (f" to {high:.4g}" if high > low else ""))
        else:
            texts.append(f"{name} {', '.join(sorted({str(value) for value in values}))}")
    return texts


def page(path: Path, report: Report, table: Table, *, tile: int, zoom: int, quality: int = 85) -> None:
    """Write pictures side by side: what is known, each method, the truth; a line an image, first seed only."""
    from matplotlib.figure import Figure

    methods = report.methods()
    tasks = list({(task.image, task.kind): task for task in reversed(report.tasks)}.values())[::-1]
    tasks = [task for task in tasks if any(report.found(task, method) for method in methods)]
    if not tasks:
        return
    columns = len(methods) + 2
    dots = 100
    figure = Figure(figsize=(columns * tile / dots, len(tasks) * (tile + 24) / dots), dpi=dots)
    axes = figure.subplots(len(tasks), columns, squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        grey = torch.where(task.observed, task.truth, 1.0)
        pictures: list[tuple[str, Tensor | None]] = [(f"{task.image}, {task.kind}", grey)]
        for method in methods:
            row = report.found(task, method)
            title = METHODS[method].title + (f" {row.psnr:.2f}" if row else "")
            pictures.append((title, read_image(table.fill(row)).pixels if row else None))
        pictures.append(("truth", task.truth))
        for axis, (title, picture) in zip(line, pictures, strict=True):
            axis.axis("off")
            axis.set_title(title, fontsize=7, pad=2)
            if picture is not None:
                shown = cropped(picture, zoom) if zoom else picture
                axis.imshow(shown.permute(1, 2, 0).expand(-1, -1, 3).numpy(), interpolation="antialiased")
    figure.subplots_adjust(0.003, 0.003, 0.997, 1 - 18 / ((tile + 24) * len(tasks)), wspace=0.02, hspace=24 / tile)
    with writing(path) as temporary:
        figure.savefig(temporary, format="jpg", pil_kwargs={"quality": quality, "optimize": True})


# The command line.

FAST = {"crop": 32, "shrink": 4, "filters": 4, "steps": 3, "minutes": 0.1, "network": "uniform-2x128-leaky0.1"}
"""What the fast mode sets: seconds in all, and of no meaning."""


def parser(description: str | None, name: str, **defaults: object) -> argparse.ArgumentParser:
    """The options that all experiments have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=None,
        help="default: all but slow ones",
    )
    made.add_argument("--only", nargs="+", metavar="IMAGE", help="names of images (default: all)")
    made.add_argument("--images", type=Path, metavar="FOLDER", help="with the images (default: TORCH_CNTK_DATA/images)")
    made.add_argument("--out", type=Path, default=Path("results") / name, help="folder of the table and the pictures")
    made.add_argument("--crop", type=int, default=0, help="side of the square in the middle that is kept")
    made.add_argument("--shrink", type=int, default=1, help="factor, before cropping")
    made.add_argument("--network", help="of which kernel and finite network are taken, by its kernel's name")
    made.add_argument("--ridge", type=float, default=1e-3, help="of that network's kernel (default 1e-3)")
    made.add_argument("--filters", type=int, default=128, help="of the finite network (default 128)")
    made.add_argument("--steps", type=int, default=3000, help="of training, at most")
    made.add_argument("--minutes", type=float, default=15.0, help="of training, at most; goes on from a checkpoint")
    made.add_argument(
        "--iterate",
        choices=("last", "best", "average"),
        default="average",
        help="what is taken of training: the last output, the best on observed pixels that are held out, or a mean",
    )
    made.add_argument("--autocast", action="store_true", help="train in bfloat16 where torch holds it safe")
    made.add_argument("--memory", action="store_true", help="measure peak memory, in processes of their own")
    made.add_argument("--report", action="store_true", help="run nothing; report what is there")
    made.add_argument("--resume", action="store_true", help="measure only rows that are not in the table yet")
    made.add_argument("--page", type=Path, help="the page of pictures (default: in the folder)")
    made.add_argument("--tile", type=int, default=256, help="width of a picture on the page")
    made.add_argument("--zoom", type=int, default=0, help="side of the square in the middle that the page shows")
    made.add_argument("--fast", action="store_true", help="small parts and few steps: seconds, and of no meaning")
    made.set_defaults(**defaults)
    return made


def main(
    name: str,
    made: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    tasks_of: Callable[[argparse.Namespace], list[Task]],
    published: Published | None = None,
) -> None:
    """Run, then report.

    Args:
        name: of the experiment and of its files.
        made: of ``parser``, with the experiment's own options.
        arguments: of the command line; by default those of the process.
        tasks_of: makes the tasks of the options.
        published: a column beside the measured ones.

    Raises:
        SystemExit: images that are asked for are not there, or the run is interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = made.parse_args(arguments)
    options.command = _command(name, arguments)
    if options.fast:
        vars(options).update(FAST)
    if options.methods is None:
        options.methods = [method for method in available() if not METHODS[method].slow or options.fast]
        print(left_out(), file=sys.stderr)
    if unavailable := set(options.methods) - set(available()):
        raise SystemExit(f"{left_out()} Asked for: {', '.join(sorted(unavailable))}.")
    tasks = tasks_of(options)
    if unknown := set(options.only or ()) - {task.image for task in tasks}:
        raise SystemExit(f"expected images among {', '.join(dict.fromkeys(t.image for t in tasks))}, got {unknown}")
    if options.only:
        tasks = [task for task in tasks if task.image in options.only]
    table = Table(options.out)
    interrupted = False
    if not options.report:
        try:
            run(tasks, table, options)
        except KeyboardInterrupt:
            interrupted = True
    report = Report(tasks, table.rows(), options, published)
    text = report.text()
    print(text)
    with writing(options.out / f"{name}.md") as temporary:
        temporary.write_text(text)
    page(options.page or options.out / f"{name}.jpg", report, table, tile=options.tile, zoom=options.zoom)
    if interrupted:
        raise SystemExit("interrupted; finished rows are kept, training goes on from its last checkpoint")
