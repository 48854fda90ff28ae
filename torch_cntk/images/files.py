"""Photographs and masks as files, stored as they came: PNG, JPEG, TIFF, WebP, BMP and AVIF."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.brief import Brief
from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.files import check_writable, is_stream, writing
from torch_cntk.images.decoding import Metadata, decode
from torch_cntk.images.encoding import adapted, encode
from torch_cntk.images.mask_files import read_mask

__all__ = ["SUFFIXES", "Metadata", "Photograph", "check_output", "read_image", "read_mask", "write_image"]

_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WebP",
    ".bmp": "BMP",
    ".avif": "AVIF",
}
SUFFIXES = tuple(_FORMATS)
"""Of files that are read and written."""
_REAL = {16: np.float16, 32: np.float32, 64: np.float64}


@dataclass(frozen=True, repr=False)
class Photograph(Brief):
    """An image file's content, upright.

    Attributes:
        pixels: float32 [channels, H, W] in [0, 1]; one channel for grey, three for red, green and blue (or Lab), four
            for cyan, magenta, yellow and black. Files of floating point numbers keep theirs, in float64 if they have
            64 bits.
        alpha: opacity, uint8, uint16 or floating point [1, H, W], or None where the file has none.
        metadata: what the file says beside the pixels; ``write_image`` takes it.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    metadata: Metadata = field(default_factory=Metadata)


def read_image(path: str | Path) -> Photograph:
    """Read a PNG, JPEG, TIFF, WebP, BMP or AVIF file and turn it upright as its EXIF orientation says.

    Args:
        path: of a grey, RGB, CMYK or Lab image of up to 16 bits a channel, with or without alpha; a TIFF file may have
            floating point numbers. Palette images become RGB and 1-bit ones grey; ``write_image`` stores them as they
            were.

    Returns:
        pixels and alpha. The pixels are multiples of 1/255 or 1/65535, which ``write_image`` gives back to the bit in
        a file of the same kind, unless that is JPEG or AVIF.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file may not be read, or is a folder.
        ValueError: it is no such image, truncated, holds several pictures (pages, an animation), or is of another mode,
            such as 32-bit integers.
        OutOfMemoryError: it would not fit.
    """
    decoded = decode(Path(path))
    # A copy in the order of images.
    values = torch.from_numpy(np.array(np.moveaxis(decoded.values, -1, 0), order="C"))
    channels = len(values) - decoded.alpha
    alpha = values[channels:].clone() if decoded.alpha else None
    pixels = _scaled(values[:channels])
    if alpha is not None and decoded.metadata.premultiplied:
        # In double precision they are the file's own again if they are multiplied.
        opacity = _scaled(alpha).double()
        pixels = torch.where(opacity > 0, pixels.double() / opacity.where(opacity > 0, 1.0), 0.0)
    return Photograph(pixels, alpha, decoded.metadata)


def _scaled(values: Tensor) -> Tensor:
    """Levels as float32 in [0, 1]; floating point numbers are kept."""
    if values.is_floating_point():
        return values.float() if values.dtype == torch.float16 else values.clone()
    return values.to(torch.float32).div_(255 if values.dtype == torch.uint8 else 65535)


def write_image(
    path: str | Path,
    pixels: Tensor,
    alpha: Tensor | None = None,
    quality: int | None = None,
    *,
    metadata: Metadata | None = None,
) -> None:
    """Write an image. The file appears whole or not at all.

    Args:
        path: .png, .jpg, .jpeg, .tif, .tiff, .webp, .bmp or .avif.
        pixels: floating point [channels, H, W], one channel for grey, three for RGB, four for CMYK. Values outside
            [0, 1] are clipped, the others rounded to the nearest multiple of 1/255, or 1/65535 with 16 bits.
        alpha: opacity [1, H, W], uint8 (or uint16 with 16 bits, or floating point where the file has that); not for
            JPEG.
        quality: of JPEG, 1 to 100; by default that of the original, and 95 if there is none.
        metadata: of the image that this one comes from, as ``read_image`` gives it: depth, palette, notes, colour
            profile, resolution and compression are kept as far as the format can hold them. By default 8 bits and none
            of them.

    Raises:
        TypeError: the pixels are not floating point, alpha is not of the right type, or the quality is no integer.
        ValueError: the suffix is another one, the format cannot hold such colours or alpha, a shape does not fit, a
            pixel is NaN or infinite, or the quality is out of range.
        OSError: the folder does not exist, or the file cannot be written.
    """
    path = Path(path)
    _check_pixels(pixels)
    kind = _format_of(path)
    stored = adapted(metadata or Metadata(), kind, len(pixels), alpha is not None)
    if alpha is not None:
        _check_alpha(alpha, tuple(pixels.shape[1:]), stored)
    if quality is not None and positive_int(quality, "quality") > 100:
        raise ValueError(f"expected quality to be at most 100, got {quality}")
    with writing(path) as temporary:
        encode(temporary, _values(pixels, alpha, stored), alpha is not None, kind, stored, quality)


def _values(pixels: Tensor, alpha: Tensor | None, stored: Metadata) -> np.ndarray:
    """What the file holds, [H, W, channels], alpha last."""
    whole = pixels.detach().cpu()
    if alpha is not None:
        opacity = _scaled(alpha.cpu())
        if stored.premultiplied:
            whole = whole * opacity
        whole = torch.cat([whole.double(), opacity.double()])
    if not stored.real:
        whole = (whole.clamp(0, 1) * (2**stored.depth - 1)).round().to(torch.int32)
    dtype = _REAL[stored.depth] if stored.real else np.uint16 if stored.depth == 16 else np.uint8
    return whole.permute(1, 2, 0).contiguous().numpy().astype(dtype)


def check_output(path: str | Path, *, alpha: bool = False, channels: int = 3, metadata: Metadata | None = None) -> None:
    """Find out before long work whether ``write_image`` could write there.

    Args:
        path: the file to be written.
        alpha: whether it shall have alpha.
        channels: number of the others.
        metadata: of the image that it shall come from.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
        PermissionError: nothing may be written in the folder.
        ValueError: the suffix is not that of a known format, or the format cannot hold such an image.
    """
    path = Path(path)
    # First: a folder given by mistake rarely has one of the suffixes.
    check_writable(path)
    adapted(metadata or Metadata(), _format_of(path), channels, alpha)


def _format_of(path: Path) -> str:
    """Return the format that the suffix stands for; PNG for a pipe or device that has none.

    Raises:
        ValueError: the suffix is unknown.
    """
    name = _FORMATS.get(path.suffix.lower())
    if name is None and is_stream(path):
        name = "PNG"
    if name is None:
        got = f"the suffix {path.suffix!r}" if path.suffix else "none"
        raise ValueError(f"expected an output file with the suffix {', '.join(_FORMATS)}, got {got}: {path}")
    return name


def _check_pixels(pixels: object) -> None:
    """Refuse what cannot be written.

    Raises:
        TypeError: the pixels are not floating point.
        ValueError: their shape is no image's, or they are not finite.
    """
    if not isinstance(pixels, torch.Tensor) or not pixels.is_floating_point():
        got = pixels.dtype if isinstance(pixels, torch.Tensor) else type(pixels).__name__
        raise TypeError(f"expected the pixels as a floating point tensor in [0, 1], got {got}")
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4) or pixels.numel() == 0:
        raise ValueError(
            f"expected pixels of shape [1, H, W], [3, H, W] or, CMYK, [4, H, W], got {tuple(pixels.shape)}"
        )
    if not bool(torch.isfinite(pixels).all()):
        raise ValueError(f"expected finite pixels, got {int((~torch.isfinite(pixels)).sum())} NaN or infinite ones")


def _check_alpha(alpha: object, size: tuple[int, ...], stored: Metadata) -> None:
    """Refuse what is no opacity.

    Raises:
        TypeError: it is of another type.
        ValueError: it is of another shape.
    """
    wanted = [torch.uint8, torch.uint16][: 2 if stored.depth == 16 else 1]
    if stored.real:
        wanted = [torch.float16, torch.float64, torch.float32]
    if not isinstance(alpha, torch.Tensor) or alpha.dtype not in wanted:
        got = alpha.dtype if isinstance(alpha, torch.Tensor) else type(alpha).__name__
        raise TypeError(f"expected alpha as a tensor in {wanted[-1]}, got {got}")
    if tuple(alpha.shape) != (1, *size):
        raise ValueError(f"expected alpha of shape {(1, *size)}, as the pixels, got {tuple(alpha.shape)}")
