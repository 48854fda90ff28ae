"""What one user of the page has: a photograph, what is missing of it, and how it was filled."""

from __future__ import annotations

import secrets
import shutil
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from torch_cntk.app.heat_maps import around, around_holes, coloured, enlarged, in_words, nearby
from torch_cntk.app.repair import METHODS, Method, Repaired, deviations, repair, weights
from torch_cntk.app.strokes import colours, on_copy, painted, shown
from torch_cntk.app.work import Progress, Work
from torch_cntk.images.certainty import std_picture
from torch_cntk.images.files import Photograph, read_image, write_image
from torch_cntk.images.mask_files import Mask, find_mask, grow
from torch_cntk.images.photographs import LEAST, growth, own_mask

__all__ = ["Machine", "Session"]

_MEGA = 1_000_000
_SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
    "WebP": (".webp",),
    "BMP": (".bmp",),
    "AVIF": (".avif",),
}


@dataclass(frozen=True)
class Machine:
    """What the page may use.

    Attributes:
        megapixels: of a photograph at most.
        device: where to compute, "cpu" or "cuda".
        threads: of torch in each computation; None leaves that to torch.
    """

    megapixels: float = 24.0
    device: str = "cpu"
    threads: int | None = None


@dataclass
class Session:
    """One user's photograph. Its files lie in a folder of its own, which ``close`` removes.

    Attributes:
        folder: exists, and belongs to this session alone.
        machine: what it may use.
        name: of the photograph's file, as the user knows it.
        photograph: as it was read, or None before.
        repaired: the last fill of it, or None before.
    """

    folder: Path
    machine: Machine = field(default_factory=Machine)
    name: str = ""
    photograph: Photograph | None = None
    repaired: Repaired | None = None
    _given: Tensor | None = None
    _work: Work[Any] | None = None
    _files: dict[str, Path] = field(default_factory=dict)

    def open(self, path: str | Path) -> str:
        """Read a photograph, in place of the one before.

        Args:
            path: of the uploaded file.

        Returns:
            what it is, in a line.

        Raises:
            ValueError: it is no picture that can be read, or has too many pixels; the one before stays.
        """
        path = Path(path)
        with _by_name(path):
            self._check_size(path)
            photograph = read_image(path)
            self._check_pixels(*photograph.pixels.shape[:0:-1])
        self.cancel()
        self._forget(*self._files)
        self.photograph, self.name, self.repaired, self._given = photograph, path.name, None, None
        height, width = photograph.pixels.shape[1:]
        alpha = ", with transparency" if photograph.alpha is not None else ""
        metadata = photograph.metadata
        return f"{path.name}: {width} x {height} pixels, {metadata.kind} of {metadata.depth} bits a channel{alpha}"

    def _new_path(self, suffix: str) -> Path:
        """A file's path that nobody can guess: the server shows files to all who know their paths."""
        return self.folder / f"{secrets.token_hex(16)}{suffix}"

    def _check_size(self, path: Path) -> None:
        """Refuse a photograph of too many pixels before they are decoded.

        Raises:
            ValueError: there are too many.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
                with PIL.Image.open(path) as image:
                    width, height = image.size
        except PIL.Image.DecompressionBombError as error:
            raise ValueError(f"expected a picture of at most {self.machine.megapixels:g} megapixels; {error}") from None
        except (OSError, SyntaxError, ValueError):
            return  # what it is, ``read_image`` finds out and says
        self._check_pixels(width, height)

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self.machine.megapixels * _MEGA:
            raise ValueError(
                f"expected a picture of at most {self.machine.megapixels:g} megapixels, got "
                f"{width * height / _MEGA:.1f} ({width} x {height} pixels); scale it down, cut it, or use "
                "torch-cntk inpaint"
            )

    @property
    def opened(self) -> Photograph:
        """The photograph.

        Raises:
            ValueError: there is none.
        """
        if self.photograph is None:
            raise ValueError("open a picture first")
        return self.photograph

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photograph."""
        height, width = self.opened.pixels.shape[1:]
        return height, width

    @property
    def usual_growth(self) -> int:
        """Pixels by which what was painted grows, by default."""
        # Strokes have soft edges, and so has what they cover.
        strokes = Mask(torch.zeros(0, dtype=torch.bool), "strokes", soft=True)
        return growth(strokes, self.opened.metadata)[0]

    def preview(self) -> Path:
        """A PNG file of the photograph as it is shown, at most 1280 pixels wide and high."""
        return self._files.get("before") or self._picture("before", shown(colours(self.opened), self.opened.alpha))

    def _picture(self, what: str, values: np.ndarray) -> Path:
        """A PNG file of what is shown, in place of the last one of its kind."""
        self._forget(what)
        path = self._files[what] = self._new_path(".png")
        profile = self.opened.metadata.profile if len(self.opened.pixels) == 3 else None
        options: dict[str, Any] = {} if profile is None else {"icc_profile": profile}
        PIL.Image.fromarray(values).save(path, compress_level=1, **options)
        return path

    def _forget(self, *kinds: str) -> None:
        """Remove files that are shown no more."""
        for kind in kinds:
            path = self._files.pop(kind, None)
            if path is not None:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def take_mask(self, path: str | Path) -> str:
        """Read a mask; it holds for this photograph until another one or ``drop_mask``.

        Args:
            path: of the uploaded file: white is known, black is missing, or strokes on a transparent layer.

        Returns:
            what it says, in a line.

        Raises:
            ValueError: it is no mask for this photograph.
        """
        path, size = Path(path), self.size
        with _by_name(path):
            self._given = find_mask(path, size).observed
        missing = int((~self._given).sum())
        return f"{path.name}: {missing:,} of {self._given.numel():,} pixels are missing"

    def drop_mask(self) -> None:
        """Forget the mask that was given."""
        self._given = None

    def mask(self, layers: list[np.ndarray], *, transparent: bool = False, grown: int | None = None) -> Tensor:
        """Which pixels are known, from what the user painted and gave.

        Args:
            layers: uint8 [h, w, 4] each, painted on the preview.
            transparent: whether what was erased in the photograph is missing as well.
            grown: pixels by which the missing part grows; by default ``usual_growth``.

        Returns:
            boolean [H, W], True = known.

        Raises:
            ValueError: nothing or all is missing.
        """
        observed = ~painted(layers, self.size)
        if self._given is not None:
            observed &= self._given
        own = own_mask(self.opened) if transparent else None
        if own is not None:
            observed &= own.observed
        if bool(observed.all()):
            raise ValueError("paint over what shall be filled first: nothing of the picture is missing")
        if not bool(observed.any()):
            raise ValueError("all of the picture is missing: leave some of it to fill from")
        return grow(observed, self.usual_growth if grown is None else grown, least=LEAST)[0]

    def fill(self, observed: Tensor, method: Method = "automatic") -> Generator[Progress, None, Repaired]:
        """Fill what is missing. ``cancel``, from another thread, ends it.

        Args:
            observed: of ``mask``.
            method: one of ``METHODS``.

        Yields:
            how far it is.

        Returns:
            the filled photograph, which ``repaired`` keeps.

        Raises:
            CancelledError: ``cancel`` was called; what was there before stays.
            ValueError: no such method, or nothing to fill from.
            MemoryError: it would not fit, or the system ended it.
        """
        if method not in METHODS:
            raise ValueError(f"expected one of {', '.join(METHODS)}, got {method}")
        photograph = self.opened
        work = Work(repair, photograph, observed, method, self.machine.device, threads=self.machine.threads)
        repaired: Repaired = yield from self._follow(work)
        if self.photograph is photograph:
            self.repaired = repaired
            self._forget("after", "download", "map", "spread")
        return repaired

    def _follow(self, work: Work[Any]) -> Generator[Progress, None, Any]:
        self.cancel()
        self._work = work
        try:
            return (yield from work.follow())
        finally:
            if self._work is work:
                self._work = None

    def cancel(self) -> None:
        """End what is being computed, if anything is."""
        work, self._work = self._work, None
        if work is not None:
            work.cancel()

    def result_preview(self) -> Path:
        """A PNG file of the filled photograph as it is shown.

        Raises:
            ValueError: nothing was filled yet.
        """
        filled = self._filled().photograph
        return self._files.get("after") or self._picture("after", shown(colours(filled, self.opened), filled.alpha))

    def _filled(self) -> Repaired:
        if self.repaired is None:
            raise ValueError("fill the picture first")
        return self.repaired

    def heat_map(self, place: tuple[int, int]) -> Generator[Progress, None, tuple[Path, str]]:
        """Which pixels fill a given one.

        Args:
            place: row and column on the ``preview``.

        Yields:
            how far it is.

        Returns:
            a PNG file of what is around the pixel with its weights in colour, and a sentence about them.

        Raises:
            ValueError: nothing was filled yet.
            CancelledError: see ``fill``.
            MemoryError: see ``fill``.
        """
        repaired = self._filled()
        row, column = on_copy(place, self.size)
        part, inside = around(repaired.observed, (row, column))
        cut = (slice(None), *part)
        picture = colours(self.opened)[cut]
        if bool(repaired.observed[row, column]):
            known = "was known: it is kept as it is. Click on one that was filled."
            return self._picture("map", enlarged(shown(picture))), f"The pixel in row {row}, column {column} {known}"
        if not bool(repaired.known[part].any()):
            raise ValueError("nothing near that pixel is known")
        work = Work(
            weights,
            self.opened.pixels[cut].clone(),
            repaired.known[part].clone(),
            inside,
            repaired.photograph.pixels[cut].clone(),
            replace(repaired.result, image=torch.zeros(0)),
            repaired.observed,
            threads=self.machine.threads,
        )
        found = (yield from self._follow(work)).numpy()
        seen = nearby(found, inside)
        image = coloured(found, picture, inside)[seen]
        return self._picture("map", enlarged(image)), in_words(found, (row, column), inside)

    def uncertainty(self) -> Generator[Progress, None, tuple[Path, str]]:
        """How sure the fill is of each pixel.

        Yields:
            how far it is.

        Returns:
            a PNG file of what is around the holes, yellow where the fill is least sure, and a sentence about it.

        Raises:
            ValueError: nothing was filled yet.
            CancelledError: see ``fill``.
            MemoryError: see ``fill``.
        """
        repaired = self._filled()
        part = around_holes(repaired.observed)
        cut = (slice(None), *part)
        work = Work(
            deviations,
            self.opened.pixels[cut].clone(),
            repaired.known[part].clone(),
            repaired.photograph.pixels[cut].clone(),
            replace(repaired.result, image=torch.zeros(0)),
            repaired.observed,
            threads=self.machine.threads,
        )
        posterior = yield from self._follow(work)
        std = posterior.std[0].cpu() * ~repaired.observed[part]
        picture, largest = std_picture(std, colours(self.opened)[cut])
        sentence = (
            f"Yellow is where the fill is least sure: a standard deviation of {255 * largest:.0f} of 255 grey levels. "
            f"Found {posterior.how}."
        )
        return self._picture("spread", enlarged((picture * 255).byte().movedim(0, -1).numpy())), sentence

    def download(self) -> Path:
        """Write the filled photograph: in the format, depth and mode of the original, with its metadata.

        Returns:
            the file's path; its name is the original's with "-filled".

        Raises:
            ValueError: nothing was filled yet.
            OSError: it cannot be written.
        """
        filled = self._filled().photograph
        self._forget("download")
        folder = self._files["download"] = self._new_path("")
        folder.mkdir()
        old, usual = Path(self.name), _SUFFIXES[filled.metadata.kind]
        suffix = old.suffix if old.suffix.lower() in usual else usual[0]
        path = folder / f"{old.stem}-filled{suffix}"
        write_image(path, filled.pixels, filled.alpha, metadata=filled.metadata)
        return path

    def close(self) -> None:
        """End what is being computed, and forget the photograph."""
        self.cancel()
        self.photograph = self.repaired = None
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def _by_name(path: Path) -> Iterator[None]:
    """Tell errors about a file by its name: where it lies on the server is nobody's business.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        yield
    except (OSError, ValueError, MemoryError) as error:
        raise ValueError(str(error).replace(str(path), path.name)) from error
