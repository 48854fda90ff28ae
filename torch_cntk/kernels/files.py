"""Kernels in safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from torch_cntk._internal.files import writing
from torch_cntk._internal.memory import require_bytes
from torch_cntk.covariance import Geometry, Table
from torch_cntk.kernels.compression import compress, decompress
from torch_cntk.kernels.format import METADATA, Header, NewerFormatError
from torch_cntk.kernels.packing import pack, unpack
from torch_cntk.kernels.storage import Storage, of_tables

__all__ = ["read", "repacked", "write"]

_UNPACKING = 4
"""Numbers that exist at a time for each one of a compact table: its bytes, their differences and their order."""


def write(
    path: str | Path, storage: Storage, origin: Mapping[str, Any], *, compact: bool, checksum: bool = True
) -> None:
    """Write a kernel, whole or not at all.

    Args:
        path: of the file.
        storage: its numbers.
        origin: see ``Kernel``.
        compact: see ``Kernel.save``.
        checksum: whether the file tells if it has been damaged; files that ship have a sum in their index instead.

    Raises:
        ValueError: this is a rank's share of a kernel.
        FileNotFoundError: the folder does not exist.
        OSError: the file cannot be written; nothing is left behind then.
    """
    storage.check_whole()
    header = Header.of(storage, origin, compact=compact)
    tensors = {
        name: compress(pack(table)) if compact else table.values.contiguous() for name, table in storage.tables.items()
    }
    text = header.text(header.sum_of(tensors) if checksum else None)
    with writing(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, {METADATA: text})


def read(path: str | Path) -> tuple[Storage, Mapping[str, Any]]:
    """Read what ``write`` wrote.

    No more is allocated than the facts in the file say, and those are compared with its length first.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not a kernel file, or of a newer format; the message has its name.
        OutOfMemoryError: what the file holds would not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no kernel file {path}")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return _parsed(file, path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def _parsed(file: Any, path: Path) -> tuple[Storage, Mapping[str, Any]]:
    """The kernel in an open safetensors file.

    Raises:
        ValueError: see ``read``.
    """
    metadata = file.metadata() or {}
    if METADATA not in metadata:
        raise ValueError(f"expected a file written by Kernel.save, got another safetensors file: {path}")
    try:
        header = Header.parse(metadata[METADATA])
        for name in header.geometries:
            described = file.get_slice(name)
            header.check_tensor(name, str(described.get_dtype()), tuple(described.get_shape()))
        tensors = {name: file.get_tensor(name) for name in header.geometries}
        if header.checksum is not None and header.sum_of(tensors) != header.checksum:
            raise ValueError("it is damaged: its checksum is not that of its content")
        tables = {name: _table(tensors[name], geometry, header) for name, geometry in header.geometries.items()}
        if len({table.values.dtype for table in tables.values()}) > 1:
            raise ValueError("expected tables of one precision")
        return of_tables(tables, header.radius, header.size), header.origin
    except NewerFormatError as error:
        raise ValueError(f"{error}: {path}; update torch_cntk") from error
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is not a consistent kernel file: {error!r}") from error


def _table(values: Tensor, geometry: Geometry, header: Header) -> Table:
    """A table from its tensor, after ``Header.check_tensor``.

    Raises:
        ValueError: the compressed bytes are damaged, or those of another table.
    """
    if header.compact is None:
        return Table(values, geometry)
    bound = geometry.entries * header.compact.itemsize
    require_bytes(_UNPACKING * bound, "reading the kernel file", lambda free: "it cannot be read on this machine")
    return unpack(decompress(values, header.compact, bound), geometry)


def repacked(storage: Storage) -> Storage:
    """The kernel as a compact file would give it back: entries that are equal by symmetry are equal to the bit."""
    return storage.with_tables({name: unpack(pack(table), table.geometry) for name, table in storage.tables.items()})
