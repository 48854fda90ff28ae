"""Damaged files: refused by name, or what is read is what was written; never something else in silence.

Text, JPEG and TIFF carry no checksums: there, what is read must be a table or an image.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

import torch_cntk as tc
from fuzz.oracle import WrongError, require
from tests.helpers.strategies.damage import Damage, several
from tests.helpers.training import mask, network, run, same
from torch_cntk.matrices.files import pandas_module, read_long, read_numbers, read_sheet

__all__ = ["Case", "cases", "check"]


@dataclass(frozen=True)
class Case:
    """A file, by its name here, and what happened to it."""

    name: str
    damages: list[Damage]


def _kernel() -> tc.Kernel:
    with torch.random.fork_rng(devices=[]):  # weights are drawn, of which a kernel needs none
        layers = [tc.StridedConv2d(1, 1, 3), tc.LeakyReLU(0.1), tc.NearestUp(2), tc.Conv2d(1, 1, 3), tc.ReLU()]
        return tc.Sequential(*layers).kernel(tc.priors.Uniform(0, 0.1))


def _saved(compact: bool) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.safetensors"
        _kernel().save(path, compact=compact)
        return path.read_bytes()


@lru_cache
def _net() -> tc.Sequential:
    with torch.random.fork_rng(devices=[]):
        return network()


def _train(path: Path) -> tc.TrainingResult:
    return run(_net(), steps=2, checkpoint=path, checkpoint_every=1)


@lru_cache
def _trained() -> tuple[tc.TrainingResult, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        result = _train(path)
        return result, path.read_bytes()


@lru_cache
def _pixels(depth: int, channels: int) -> np.ndarray:
    kind = np.uint8 if depth == 8 else np.uint16
    shape = (9, 12, channels) if channels > 1 else (9, 12)
    return np.random.default_rng(depth).integers(0, np.iinfo(kind).max, shape, dtype=kind)


def _picture(kind: str, depth: int = 8, channels: int = 3, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_pixels(depth, channels)).save(buffer, kind, **options)
    return buffer.getvalue()


def _mask() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask((9, 12)).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def _frame(form: str) -> bytes:
    pandas = pandas_module()
    frame = pandas.DataFrame({"x": [1.0, 2.5, np.nan], "y": [0.5, np.nan, 3.0]}, index=["a", "b", "c"])
    buffer = io.BytesIO()
    getattr(frame, f"to_{form}")(buffer)
    return buffer.getvalue()


_TEXT = "name,x,y,z\nfirst,1.5,,-3\nsecond,NA,2e3,7\nthird,0.25,4,\n"
_LONG = "user\titem\trating\n1\ta\t3\n1\tb\t4.5\n2\ta\t2\n3\tc\t5\n"
FILES: dict[str, Callable[[], bytes]] = {
    "kernel.safetensors": lambda: _saved(False),
    "compact.safetensors": lambda: _saved(True),
    "run.pt": lambda: _trained()[1],
    "grey16.png": lambda: _picture("PNG", 16, 1),
    "rgb.png": lambda: _picture("PNG", dpi=(72, 72)),
    "rgba.png": lambda: _picture("PNG", 8, 4),
    "rgb.jpg": lambda: _picture("JPEG"),
    "rgb.tif": lambda: _picture("TIFF"),
    "lzw.tif": lambda: _picture("TIFF", compression="tiff_lzw"),
    "grey16.tif": lambda: _picture("TIFF", 16, 1),
    "mask.png": _mask,
    "table.csv": lambda: _TEXT.encode(),
    "table.tsv": lambda: _TEXT.replace(",", "\t").encode("utf-16"),
    "sheet.csv": lambda: _TEXT.encode(),
    "table.parquet": lambda: _frame("parquet"),
    "table.xlsx": lambda: _frame("excel"),
    "long.txt": lambda: _LONG.encode(),
}
"""By name: the content of each, whole."""
_content = lru_cache(lambda name: FILES[name]())

cases = st.builds(Case, st.sampled_from(sorted(FILES)), several())


def check(case: Case) -> None:
    """Damage the file, and read it.

    Raises:
        ValueError: the file is refused, as it should be.
        TypeError: likewise.
        OSError: likewise.
        WrongError: what was read is wrong, or the message does not name the file.
    """
    content = _content(case.name)
    for damage in case.damages:
        content = damage(content)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / case.name
        path.write_bytes(content)
        try:
            _read(path)
        except (ValueError, TypeError, OSError) as error:
            if not isinstance(error, WrongError) and case.name not in str(error):
                raise WrongError(f"the message does not name the file: {error}") from error
            raise


def _read(path: Path) -> None:
    """Read what stands there, and look at what comes of it."""
    name = path.name
    if name.endswith(".safetensors"):
        _same_kernel(tc.load_kernel(path))
    elif name == "run.pt":
        require(same(_train(path), _trained()[0]), "a damaged checkpoint was gone on with")
    elif name == "mask.png":
        found = tc.images.read_mask(path, (9, 12))
        require(torch.equal(found, mask((9, 12))), "a damaged mask was read")
    elif name.endswith((".png", ".jpg", ".tif")):
        _same_picture(tc.images.read_image(path), name)
    else:
        _is_table(path)


def _same_kernel(kernel: tc.Kernel) -> None:
    whole = _kernel()
    require(kernel.origin == whole.origin, "a damaged origin was read")
    for found, expected in ((kernel.near, whole.near), (kernel.far, whole.far)):
        if found is None or expected is None:
            require(found is expected, "a table was lost")
            continue
        close = torch.allclose(found.values, expected.values, rtol=1e-12, atol=1e-14)
        require(found.geometry == expected.geometry and close, "a damaged table was read")


def _same_picture(photograph: tc.images.Photograph, name: str) -> None:
    pixels = photograph.pixels
    require(pixels.dtype == torch.float32 and pixels.ndim == 3 and len(pixels) in (1, 3), "it is no image")
    require(bool(((pixels >= 0) & (pixels <= 1)).all()), "a pixel is not in [0, 1]")
    if not name.endswith(".png"):
        return
    depth = 16 if "16" in name else 8
    expected = _pixels(depth, {"grey": 1, "rgba": 4}.get(name.removesuffix(".png").removesuffix("16"), 3))
    shown = torch.from_numpy(np.atleast_3d(expected).astype(np.float32) / (2**depth - 1)).movedim(-1, 0)
    require(torch.equal(pixels, shown[: len(pixels)]), "a damaged image was read")


def _is_table(path: Path) -> None:
    if path.name == "long.txt":
        frame = read_long(path, ["user", "item", "rating"]).frame
    elif path.name == "sheet.csv":
        frame = read_sheet(path).frame
        return
    else:
        frame = read_numbers(path).frame
    # Without its notes a file of columns holds its labels as a column, which is refused as numbers later.
    require(not np.isinf(frame.select_dtypes("number").to_numpy(dtype=float)).any(), "a cell is infinite")
    require(frame.index.is_unique and frame.columns.is_unique, "a label stands twice")
