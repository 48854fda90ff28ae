"""PNG files from their parts, for what Pillow does not write."""

from __future__ import annotations

import struct
import zlib


def png(width: int, height: int, depth: int, kind: int, rows: list[bytes], extra: bytes = b"") -> bytes:
    """A PNG file from its parts, for what Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    transparent = chunk(b"tRNS", extra) if extra else b""
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + transparent + body + chunk(b"IEND", b"")
