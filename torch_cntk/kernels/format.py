"""What a kernel file says of its tensors: the facts in its metadata, checked before anything is allocated."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from torch_cntk._internal.checks import as_size
from torch_cntk.covariance import TAPERS, Geometry, Window
from torch_cntk.kernels.storage import Storage

__all__ = ["FORMAT_VERSION", "METADATA", "Header", "NewerFormatError"]

FORMAT_VERSION = 1
"""Of the files that ``Kernel.save`` writes; files of a newer format are refused."""

METADATA = "torch_cntk kernel"
"""The only key of a file's metadata: their order is not fixed, and equal kernels are to give equal files."""

_CHECKSUM = "sha256"
_FACTS = {"version", "radius", "size", "origin", "tables", "compact", _CHECKSUM}
"""Of this format and older ones; a fact of another name is a damaged one, and must not be left out."""
_NAMES = {"near", "far"}
_COMPACT = {"float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
_WIDTH = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}
"""Bytes of the floating point types, by their names in safetensors files."""
_BYTES = "U8"
_DEFLATION = 1032
"""Most bytes that deflate makes of one: 258 from two bits."""
_SYMMETRIES = 4
"""A compact file holds this share of a table's numbers at least: half by exchanging the axes, half by mirroring."""
_HOLLOW = 64
"""A window holds this share of the box around it at least: half of an ellipsoid, in up to 3 dimensions 3.9 times less
than the box, with a margin for short axes."""


class NewerFormatError(ValueError):
    """A file of a later version of the package."""


@dataclass(frozen=True)
class Header:
    """The facts of a kernel file.

    Attributes:
        radius: of the kernel.
        size: the only one that it serves, or None.
        origin: see ``Kernel``.
        geometries: of the tables, by name.
        compact: the numbers' type if tables are packed and compressed, else None.
        checksum: of the facts and the tensors, as ``sum_of`` gives it; None in files of older versions.
    """

    radius: tuple[int, ...]
    size: tuple[int, ...] | None
    origin: Mapping[str, Any]
    geometries: Mapping[str, Geometry]
    compact: torch.dtype | None
    checksum: str | None = None

    @classmethod
    def of(cls, storage: Storage, origin: Mapping[str, Any], *, compact: bool) -> Header:
        """Of a kernel that is to be written."""
        geometries = {name: table.geometry for name, table in storage.tables.items()}
        return cls(storage.radius, storage.size, origin, geometries, storage.dtype if compact else None)

    def facts(self) -> str:
        """All but the checksum as JSON."""
        return json.dumps(
            {
                "version": FORMAT_VERSION,
                "radius": self.radius,
                "size": self.size,
                "origin": dict(self.origin),
                "tables": {name: _entry(geometry) for name, geometry in self.geometries.items()},
                "compact": None if self.compact is None else str(self.compact).removeprefix("torch."),
            }
        )

    def text(self, checksum: str | None) -> str:
        """As it stands in the file's metadata."""
        return self.facts() if checksum is None else json.dumps({**json.loads(self.facts()), _CHECKSUM: checksum})

    @classmethod
    def parse(cls, text: str) -> Header:
        """The inverse of ``text``.

        Raises:
            NewerFormatError: the file is of a later version.
            ValueError: the facts are incomplete or contradict each other.
            KeyError: a fact is missing.
            TypeError: a fact is of another type.
        """
        facts = json.loads(text)
        version = int(facts["version"])
        if version > FORMAT_VERSION:
            raise NewerFormatError(f"expected format version {FORMAT_VERSION} or older, got {version}")
        if not set(facts) <= _FACTS:
            raise ValueError(f"expected the facts {sorted(_FACTS)}, got {sorted(set(facts) - _FACTS)} as well")
        names = set(facts["tables"])
        if not {"near"} <= names <= _NAMES:
            raise ValueError(f"expected the tables near and far, or near alone, got {sorted(names)}")
        geometries = {name: _geometry(entry) for name, entry in facts["tables"].items()}
        ndim = geometries["near"].ndim
        if any(geometry.ndim != ndim for geometry in geometries.values()):
            raise ValueError("expected tables of the same number of dimensions")
        radius = tuple(r - 1 for r in as_size([r + 1 for r in facts["radius"]], "radius", ndim))
        if any(r > n // 2 for r, n in zip(radius, geometries["near"].size, strict=True)):
            raise ValueError(f"expected a radius of at most half of {geometries['near'].size}, got {radius}")
        if not isinstance(facts["origin"], dict):
            raise TypeError(f"expected the origin as names and values, got {facts['origin']!r}")
        size = None if facts["size"] is None else as_size(facts["size"], "size", ndim)
        compact = None if facts.get("compact") is None else _COMPACT[facts["compact"]]
        return cls(radius, size, facts["origin"], geometries, compact, facts.get(_CHECKSUM))

    def check_tensor(self, name: str, kind: str, shape: tuple[int, ...]) -> None:
        """Compare what the file says of a tensor with what the facts say, before either is believed.

        Args:
            name: of the table.
            kind: its type, as safetensors names it.
            shape: its shape.

        Raises:
            ValueError: they do not go together.
        """
        geometry = self.geometries[name]
        if self.compact is not None:
            least = _fewest_entries(geometry) // _SYMMETRIES * self.compact.itemsize
            if kind != _BYTES or len(shape) != 1 or least > shape[0] * _DEFLATION:
                raise ValueError(f"expected the compressed entries of {geometry}, got {kind} of shape {shape}")
            return
        if kind not in _WIDTH or _fewest_entries(geometry) > math.prod(shape):
            raise ValueError(f"expected the numbers of {geometry}, got {kind} of shape {shape}")
        expected = (1, *geometry.box, *geometry.period)
        if shape != expected:
            raise ValueError(f"expected a table of shape {expected}, got {shape}")

    def sum_of(self, tensors: Mapping[str, Tensor]) -> str:
        """The SHA-256 sum of the facts and the tensors' bytes."""
        digest = hashlib.sha256(self.facts().encode())
        for name in sorted(tensors):
            digest.update(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _entry(geometry: Geometry) -> dict[str, Any]:
    """The fields of a geometry, and nothing that it keeps beside them. Files had no name for the first taper."""
    entry = {field.name: getattr(geometry, field.name) for field in fields(geometry)}
    return {name: value for name, value in entry.items() if (name, value) != ("taper", TAPERS[0])}


def _geometry(entry: Mapping[str, Any]) -> Geometry:
    """What a table stores.

    Raises:
        ValueError: no table can be like that.
    """
    size = as_size(entry["size"])
    ndim = len(size)
    period = as_size(entry["period"], "period", ndim)
    reflective, square = (_truth(entry, name) for name in ("reflective", "square"))
    if ndim == 0 or any(n % p for n, p in zip(size, period, strict=True)):
        raise ValueError(f"expected a period that divides {size}, got {period}")
    if square and (ndim < 2 or size[0] != size[1] or period[0] != period[1]):
        raise ValueError(f"expected two axes of one size and period, got {size} and {period}")
    if "reach" not in entry:
        return Geometry(size, period, reflective, square)
    reach = as_size(entry["reach"], "reach", ndim)
    if reflective or square or any(r - 1 > n // 2 for r, n in zip(reach, size, strict=True)):
        raise ValueError(f"expected a window within half of {size}, got {reach}")
    taper = entry.get("taper", TAPERS[0])
    if taper not in TAPERS:
        raise ValueError(f"expected a taper among {', '.join(TAPERS)}, got {taper!r}")
    return Window(size, period, reflective, square, reach, _truth(entry, "tapered"), taper)


def _truth(entry: Mapping[str, Any], name: str) -> bool:
    value = entry[name]
    if not isinstance(value, bool):
        raise TypeError(f"expected {name} to be true or false, got {value!r}")
    return value


def _fewest_entries(geometry: Geometry) -> int:
    """A number that the table's entries are not below, known without counting a window's displacements."""
    if isinstance(geometry, Window):
        return math.prod(2 * r - 1 for r in geometry.reach) * math.prod(geometry.period) // _HOLLOW
    return geometry.entries
