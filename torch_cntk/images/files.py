"""Photographs and masks as files: PNG, JPEG and TIFF, 8 or 16 bits a channel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.files import check_writable, is_stream, writing
from torch_cntk.images.decoding import Metadata, decode
from torch_cntk.images.encoding import encode
from torch_cntk.images.mask_files import read_mask

__all__ = ["Metadata", "Photograph", "check_output", "read_image", "read_mask", "write_image"]

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF"}
_DTYPES = {8: torch.uint8, 16: torch.uint16}


@dataclass(frozen=True)
class Photograph:
    """An image file's content, upright.

    Attributes:
        pixels: float32 [channels, H, W] in [0, 1]; one channel for grey, three for red, green and blue.
        alpha: opacity, uint8 or uint16 [1, H, W], or None where the file has none.
        metadata: what the file says beside the pixels; ``write_image`` takes it.
    """

    pixels: Tensor
    alpha: Tensor | None = None
    metadata: Metadata = field(default_factory=Metadata)


def read_image(path: str | Path) -> Photograph:
    """Read a PNG, JPEG or TIFF file and turn it upright as its EXIF orientation says.

    Args:
        path: of a grey or RGB image of 8 or 16 bits a channel, with or without alpha, a palette image (which becomes
            RGB) or a 1-bit one (which becomes grey).

    Returns:
        pixels and alpha. The pixels are multiples of 1/255 or 1/65535, which ``write_image`` gives back to the bit in
        a PNG or TIFF file of the same depth.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file may not be read, or is a folder.
        ValueError: it is no PNG, JPEG or TIFF image, truncated, holds several pictures, or is of another mode, such as
            CMYK.
        OutOfMemoryError: it would not fit.
    """
    decoded = decode(Path(path))
    # A copy in the order of images.
    values = torch.from_numpy(np.array(np.moveaxis(decoded.values, -1, 0), order="C"))
    channels = len(values) - decoded.alpha
    most = 2**decoded.metadata.depth - 1
    alpha = values[channels:].clone() if decoded.alpha else None
    return Photograph(values[:channels].to(torch.float32).div_(most), alpha, decoded.metadata)


def write_image(
    path: str | Path,
    pixels: Tensor,
    alpha: Tensor | None = None,
    quality: int = 95,
    *,
    metadata: Metadata | None = None,
) -> None:
    """Write an image. The file appears whole or not at all.

    Args:
        path: .png, .jpg, .jpeg, .tif or .tiff.
        pixels: floating point [channels, H, W], one channel for grey or three for RGB. Values outside [0, 1] are
            clipped, the others rounded to the nearest multiple of 1/255, or 1/65535 with 16 bits.
        alpha: opacity, uint8 (or uint16 with 16 bits) [1, H, W]; not for JPEG.
        quality: of JPEG, 1 to 100.
        metadata: of the image that this one comes from: its depth is kept except in JPEG, which has 8 bits, and its
            notes, colour profile and resolution are. By default 8 bits and none of them.

    Raises:
        TypeError: the pixels are not floating point, alpha is not of the right type, or the quality is no integer.
        ValueError: the suffix is another one, JPEG shall have alpha, a shape does not fit, a pixel is NaN or infinite,
            or the quality is out of range.
        OSError: the folder does not exist, or the file cannot be written.
    """
    path = Path(path)
    kind = _format_of(path, alpha is not None)
    metadata = metadata or Metadata()
    metadata = replace(metadata, depth=8) if kind == "JPEG" else metadata
    values = _to_whole(pixels, metadata.depth)
    if alpha is not None:
        values = torch.cat([values, _checked_alpha(alpha, tuple(pixels.shape[1:]), metadata.depth)])
    if positive_int(quality, "quality") > 100:
        raise ValueError(f"expected quality to be at most 100, got {quality}")
    whole = values.permute(1, 2, 0).contiguous().numpy().astype(np.uint16 if metadata.depth == 16 else np.uint8)
    with writing(path) as temporary:
        encode(temporary, whole, kind, metadata, quality)


def check_output(path: str | Path, *, alpha: bool = False) -> None:
    """Find out before long work whether ``write_image`` could write there.

    Args:
        path: the file to be written.
        alpha: whether it shall have alpha.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
        PermissionError: nothing may be written in the folder.
        ValueError: the suffix is not that of a known format, or JPEG shall have alpha.
    """
    path = Path(path)
    # First: a folder given by mistake rarely has one of the suffixes.
    check_writable(path)
    _format_of(path, alpha)


def _format_of(path: Path, alpha: bool) -> str:
    """Return Pillow's name of the format that the suffix stands for; PNG for a pipe or device that has none.

    Raises:
        ValueError: the suffix is unknown, or the format cannot have alpha.
    """
    name = _FORMATS.get(path.suffix.lower())
    if name is None and is_stream(path):
        name = "PNG"
    if name is None:
        got = f"the suffix {path.suffix!r}" if path.suffix else "none"
        raise ValueError(f"expected an output file with the suffix {', '.join(_FORMATS)}, got {got}: {path}")
    if alpha and name == "JPEG":
        raise ValueError(f"expected a .png file, as the image has alpha, which JPEG cannot hold, got {path}")
    return name


def _to_whole(pixels: Tensor, depth: int) -> Tensor:
    """[0, 1] as int32 from 0 to 255 or 65535.

    Raises:
        TypeError: the pixels are not floating point.
        ValueError: their shape is no image's, or they are not finite.
    """
    if not isinstance(pixels, torch.Tensor) or not pixels.is_floating_point():
        got = pixels.dtype if isinstance(pixels, torch.Tensor) else type(pixels).__name__
        raise TypeError(f"expected the pixels as a floating point tensor in [0, 1], got {got}")
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.numel() == 0:
        raise ValueError(f"expected pixels of shape [1, H, W] or [3, H, W], got {tuple(pixels.shape)}")
    if not bool(torch.isfinite(pixels).all()):
        raise ValueError(f"expected finite pixels, got {int((~torch.isfinite(pixels)).sum())} NaN or infinite ones")
    whole: Tensor = (pixels.detach().cpu().clamp(0, 1) * (2**depth - 1)).round().to(torch.int32)
    return whole


def _checked_alpha(alpha: Tensor, size: tuple[int, ...], depth: int) -> Tensor:
    """As int32 of this depth.

    Raises:
        TypeError: it is of another type.
        ValueError: it is of another shape.
    """
    if not isinstance(alpha, torch.Tensor) or alpha.dtype not in (torch.uint8, _DTYPES[depth]):
        got = alpha.dtype if isinstance(alpha, torch.Tensor) else type(alpha).__name__
        raise TypeError(f"expected alpha as a tensor in {_DTYPES[depth]}, got {got}")
    if tuple(alpha.shape) != (1, *size):
        raise ValueError(f"expected alpha of shape {(1, *size)}, as the pixels, got {tuple(alpha.shape)}")
    values: Tensor = alpha.cpu().to(torch.int32)
    return 257 * values if depth == 16 and alpha.dtype == torch.uint8 else values
