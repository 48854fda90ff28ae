"""Files of every mode and format come back as they were where nothing is filled: pixels and what is said beside them.

They are compared by Pillow and tifffile themselves.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.helpers.image_files import FILES, LOSS, RESOLUTION, TIFF_UNIT, XMP_TAG
from torch_cntk.images.files import read_image, write_image

PLAIN = {1, 8, 32946, 32773}
"""Numbers of the compressions that tifffile knows by itself: none, deflate, PackBits."""


def same_tiff(before: Path, after: Path) -> None:
    """By tifffile."""
    with tifffile.TiffFile(before) as old, tifffile.TiffFile(after) as new:
        if old.pages[0].compression not in PLAIN:
            # tifffile decodes the others with it; Pillow, which the package reads them with, does not need it.
            pytest.importorskip("imagecodecs")
        one: Any = old.pages[0]
        other: Any = new.pages[0]
        values = one.asarray()
        values = np.moveaxis(values, 0, -1) if one.planarconfig == 2 and values.ndim == 3 else values
        loss = 3 if one.compression == 7 else 0  # decoded by tifffile here, by Pillow there
        assert other.asarray().dtype == values.dtype
        assert np.allclose(other.asarray().astype(float), values.astype(float), rtol=0, atol=loss)
        photometric = 2 if one.photometric == 6 else one.photometric
        expected = (photometric, one.extrasamples, one.bitspersample)
        assert (other.photometric, other.extrasamples, other.bitspersample) == expected
        assert other.iccprofile == one.iccprofile
        assert tag(other, XMP_TAG) == tag(one, XMP_TAG)
        if tag(one, 296) == TIFF_UNIT:
            assert [tag(other, number) for number in RESOLUTION] == [tag(one, number) for number in RESOLUTION]
        if one.colormap is not None:
            assert np.array_equal(other.colormap // 256, one.colormap // 256)


def tag(page: tifffile.TiffPage, number: int) -> Any:
    return getattr(page.tags.get(number), "value", None)


def notes(image: Image.Image) -> dict[Any, Any]:
    found = image.getexif()
    inside = {tag: dict(found.get_ifd(tag)) for tag in (0x8769, 0x8825)}
    structure = set(range(254, 300)) | {320, 330, 338, 339, 34675, 700, 0x8769, 0x8825}
    own = {tag: value for tag, value in found.items() if tag not in structure or tag in (270, 271, 272)}
    return {tag: str(value) for tag, value in (own | inside).items()}


def same_by_pillow(before: Path, after: Path) -> None:
    with Image.open(before) as old, Image.open(after) as new:
        old.load()
        new.load()
        assert (new.mode, new.format, new.size) == (old.mode, old.format, old.size)
        one, other = (np.asarray(image).astype(int) for image in (old, new))
        if old.mode == "P":
            one, other = (np.asarray(image.convert("RGBA")).astype(int) for image in (old, new))
        assert np.abs(one - other).max() <= LOSS.get(before.suffix, 0)
        assert notes(new) == notes(old)
        for name in ("icc_profile", "dpi", "xmp", "transparency", "comment", "gamma", "progressive"):
            assert new.info.get(name) == old.info.get(name), name
        assert getattr(new, "text", None) == getattr(old, "text", None)
        assert getattr(new, "quantization", None) == getattr(old, "quantization", None) or old.mode == "CMYK"
        assert getattr(new, "layer", None) == getattr(old, "layer", None) or old.mode == "CMYK"


@pytest.mark.parametrize("name", FILES)
def test_what_is_read_is_written(tmp_path: Path, name: str) -> None:
    FILES[name](tmp_path / name)
    photograph = read_image(tmp_path / name)
    after = tmp_path / f"after{Path(name).suffix}"
    write_image(after, photograph.pixels, photograph.alpha, metadata=photograph.metadata)
    if name.endswith(".tif"):
        same_tiff(tmp_path / name, after)
    else:
        same_by_pillow(tmp_path / name, after)
    found, expected = (replace(one, lossy="") for one in (read_image(after).metadata, photograph.metadata))
    assert repr(found) == repr(expected)


def test_there_are_files_enough() -> None:
    assert len(FILES) >= 40
