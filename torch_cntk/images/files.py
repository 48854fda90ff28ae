"""Photographs and masks as files: PNG and JPEG, 8 bits a channel."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import PIL.ImageFile
import PIL.ImageOps
import torch
from torch import Tensor

from torch_cntk._internal.checks import positive_int
from torch_cntk._internal.files import check_writable, is_stream, writing

__all__ = ["Photograph", "check_output", "read_image", "read_mask", "write_image"]

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, PIL.Image.DecompressionBombError)
"""What Pillow raises for files that are no images or only the beginning of one."""


@dataclass(frozen=True)
class Photograph:
    """An image file's content, upright. Colour profiles and other metadata are not kept.

    Attributes:
        pixels: float32 [channels, H, W] in [0, 1]; one channel for grey, three for red, green and blue.
        alpha: opacity, uint8 [1, H, W], or None where the file has none.
    """

    pixels: Tensor
    alpha: Tensor | None = None


def read_image(path: str | Path) -> Photograph:
    """Read a PNG or JPEG file and turn it upright as its EXIF orientation says.

    Args:
        path: of an 8-bit grey or RGB image, with or without alpha, a palette image (which becomes RGB) or a 1-bit one
            (which becomes grey).

    Returns:
        pixels and alpha. The pixels of an 8-bit image are multiples of 1/255, which ``write_image`` gives back to the
        bit in a PNG file.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file may not be read, or is a folder.
        ValueError: it is no PNG or JPEG image, truncated, or of another mode, such as 16 bits or CMYK.
    """
    from torchvision.transforms.v2 import functional

    image = _load(Path(path))
    colour = image.mode in ("P", "PA", "RGB", "RGBA")
    # PNG may also declare one colour of an image without an alpha channel as transparent.
    transparent = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    values = functional.pil_to_tensor(image.convert(("RGB" if colour else "L") + ("A" if transparent else "")))
    channels = 3 if colour else 1
    return Photograph(values[:channels].to(torch.float32) / 255, values[channels:].clone() if transparent else None)


def read_mask(path: str | Path, size: tuple[int, int], invert: bool = False) -> Tensor:
    """Read which pixels are known from a PNG or JPEG file: white is known, black is missing.

    Args:
        path: of an image as ``read_image`` takes it. It is converted to grey; values above 127 are known. Alpha is
            ignored.
        size: height and width of the image that the mask belongs to.
        invert: take black as known and white as missing.

    Returns:
        boolean [H, W], True = known, as ``observed`` of ``torch_cntk.inpaint``.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file may not be read, or is a folder.
        ValueError: the mask is not of that size, no PNG or JPEG image, truncated, or of another mode.
    """
    from torchvision.transforms.v2 import functional

    mask = _load(Path(path))
    if (mask.height, mask.width) != tuple(size):
        raise ValueError(
            f"expected a mask of {size[1]} x {size[0]} pixels (width x height) like the image, "
            f"got {mask.width} x {mask.height}: {path}"
        )
    grey: Tensor = functional.pil_to_tensor(mask.convert("L"))[0]
    return grey <= 127 if invert else grey > 127


def write_image(path: str | Path, pixels: Tensor, alpha: Tensor | None = None, quality: int = 95) -> None:
    """Write an image with 8 bits a channel. The file appears whole or not at all.

    Args:
        path: .png, .jpg or .jpeg.
        pixels: floating point [channels, H, W], one channel for grey or three for RGB. Values outside [0, 1] are
            clipped, the others rounded to the nearest multiple of 1/255.
        alpha: opacity, uint8 [1, H, W]; PNG only.
        quality: of JPEG, 1 to 100.

    Raises:
        TypeError: the pixels are not floating point, alpha is not uint8, or the quality is no integer.
        ValueError: the suffix is another one, JPEG shall have alpha, a shape does not fit, a pixel is NaN or infinite,
            or the quality is out of range.
        OSError: the folder does not exist, or the file cannot be written.
    """
    from torchvision.transforms.v2 import functional

    path = Path(path)
    name = _format_of(path, alpha is not None)
    values = _to_bytes(pixels)
    if alpha is not None:
        values = torch.cat([values, _checked_alpha(alpha, tuple(pixels.shape[1:]))])
    if positive_int(quality, "quality") > 100:
        raise ValueError(f"expected quality to be at most 100, got {quality}")
    image = functional.to_pil_image(values)
    with writing(path) as temporary:
        image.save(temporary, format=name, **({"quality": quality} if name == "JPEG" else {}))


def check_output(path: str | Path, *, alpha: bool = False) -> None:
    """Find out before long work whether ``write_image`` could write there.

    Args:
        path: the file to be written.
        alpha: whether it shall have alpha.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
        PermissionError: nothing may be written in the folder.
        ValueError: the suffix is not .png, .jpg or .jpeg, or JPEG shall have alpha.
    """
    path = Path(path)
    # First: a folder given by mistake rarely has one of the suffixes.
    check_writable(path)
    _format_of(path, alpha)


def _format_of(path: Path, alpha: bool) -> str:
    """Return Pillow's name of the format that the suffix stands for.

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


def _load(path: Path) -> PIL.Image.Image:
    """Decode a file, turn it upright and check its mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be decoded, or its mode is not served.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no image file {path}")
    with path.open("rb") as file:
        try:
            with PIL.Image.open(file, formats=("PNG", "JPEG")) as opened:
                mode = _true_mode(opened)
                opened.load()
                image = PIL.ImageOps.exif_transpose(opened)
        except PIL.UnidentifiedImageError as error:
            raise ValueError(f"expected a PNG or JPEG image, got another or a damaged file: {path}") from error
        except _DAMAGED as error:
            raise ValueError(
                f"expected a whole PNG or JPEG image, got one that cannot be read: {path}: {error}"
            ) from error
    if mode not in _MODES:
        raise ValueError(
            f"expected an 8-bit grey, RGB or palette image, with or without alpha, got mode {mode}: {path}"
        )
    return image


def _true_mode(image: PIL.ImageFile.ImageFile) -> str:
    """The mode, or that of the file where Pillow would drop half of its 16 bits without a word."""
    # Only before the pixels are loaded do the tiles tell how they are stored, "RGB;16B" for instance.
    stored = next((tile[3] for tile in image.tile), None)
    return stored if isinstance(stored, str) and ";16" in stored else image.mode


def _to_bytes(pixels: Tensor) -> Tensor:
    if not isinstance(pixels, torch.Tensor) or not pixels.is_floating_point():
        got = pixels.dtype if isinstance(pixels, torch.Tensor) else type(pixels).__name__
        raise TypeError(f"expected the pixels as a floating point tensor in [0, 1], got {got}")
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or pixels.numel() == 0:
        raise ValueError(f"expected pixels of shape [1, H, W] or [3, H, W], got {tuple(pixels.shape)}")
    if not bool(torch.isfinite(pixels).all()):
        raise ValueError(f"expected finite pixels, got {int((~torch.isfinite(pixels)).sum())} NaN or infinite ones")
    return (pixels.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def _checked_alpha(alpha: Tensor, size: tuple[int, ...]) -> Tensor:
    if not isinstance(alpha, torch.Tensor) or alpha.dtype != torch.uint8:
        got = alpha.dtype if isinstance(alpha, torch.Tensor) else type(alpha).__name__
        raise TypeError(f"expected alpha as a tensor in uint8, got {got}")
    if tuple(alpha.shape) != (1, *size):
        raise ValueError(f"expected alpha of shape {(1, *size)}, as the pixels, got {tuple(alpha.shape)}")
    return alpha.cpu()
