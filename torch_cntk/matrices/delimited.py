"""Delimited text (CSV, TSV) as cells: whichever separator, encoding or end of line a program has written."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

__all__ = ["Cells", "Dialect", "cells_of", "read_cells", "read_records", "replaced", "write_cells"]

_SEPARATORS = (",", "\t", ";", "|")
"""What is looked for, the most common first."""
_SAMPLE = 200
"""Lines that are looked at to find the separator."""
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
"""Marks of byte order, and the encoding of what follows them."""
_STAND_IN = "\x1f"
"""The unit separator of ASCII stands in for separators of several characters, which the csv module does not know."""
_LARGEST_CELL = 1 << 24
"""Characters; a cell that is longer follows from a quotation mark without its counterpart."""


@dataclass(frozen=True)
class Dialect:
    """How a table is written.

    Attributes:
        separator: between cells.
        encoding: of the text, as Python calls it.
        newline: end of a line.
        preamble: lines of comments before the header.
        mark: bytes before the text, of its byte order.
    """

    separator: str = ","
    encoding: str = "utf-8"
    newline: str = "\n"
    preamble: tuple[str, ...] = ()
    mark: bytes = b""

    def encoded(self, text: str, path: Path) -> bytes:
        """The bytes of a text in a file of this name: what ends with .gz is compressed."""
        data = self.mark + text.encode(self.encoding)
        return gzip.compress(data, mtime=0) if path.suffix.lower() == ".gz" else data


@dataclass(frozen=True)
class Cells:
    """A table of text.

    Attributes:
        path: where it was read.
        header: names of the columns.
        rows: cells of each line, as many as names.
        lines: where each of them stands in the file, from 1.
        dialect: how it is written.
        places: of these columns among the cells of a line of the file, from 0.
        text: of the whole file, or nothing if it is no text.
    """

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    dialect: Dialect = field(default_factory=Dialect)
    places: tuple[int, ...] = ()
    text: str = field(default="", repr=False)

    def column(self, name: str) -> int:
        """The place of a column.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.header:
            raise ValueError(f"expected a column {name!r} in {self.path}, got {', '.join(self.header[:10])}")
        return self.header.index(name)


def read_cells(path: Path, separator: str | None = None, encoding: str | None = None) -> Cells:
    """Read a table of text; the first line that is no comment holds the names of the columns.

    Blank lines, lines of empty cells, and columns without a name and without an entry are left out, and so are lines
    that begin with # and have another number of cells than the table.

    Args:
        path: of the file.
        separator: by default, and in files that do not have it, the one is found by which all lines have as many cells
            as the header.
        encoding: by default UTF-8, or what a byte order mark says.

    Raises:
        ValueError: the text has another encoding, its lines have different numbers of cells, or a name is missing or
            stands twice.
    """
    records, dialect, text = read_records(path, separator, encoding)
    preamble = [line.rstrip("\n") for line in islice(io.StringIO(text), _drop_comments(records))]
    return replace(cells_of(path, records, replace(dialect, preamble=tuple(preamble))), text=text)


def read_records(
    path: Path, separator: str | None, encoding: str | None
) -> tuple[list[tuple[int, list[str]]], Dialect, str]:
    """Lines of cells that are not blank, with their places in the file, how it is written, and its text.

    Raises:
        ValueError: the text has another encoding, or no separator that is known.
    """
    text, encoding, mark = _decoded(path, encoding)
    if separator is None or separator not in text:
        separator = _separator(text, path)
    ending = re.search(r"\r\n|\n|\r", text)
    dialect = Dialect(separator, encoding, ending[0] if ending else "\n", mark=mark)
    return list(_records(text, separator, path)), dialect, text


def cells_of(path: Path, records: Sequence[tuple[int, list[str]]], dialect: Dialect) -> Cells:
    """A table of lines of cells, each with its place in the file.

    Raises:
        ValueError: there is none, lines have different numbers of cells, or a name is missing or stands twice.
    """
    records = [(line, cells) for line, cells in records if any(map(str.strip, cells))]
    if len(records) < 2:
        raise ValueError(f"expected a header and lines below it in {path}, got {len(records)} lines")
    (first, header), body = records[0], records[1:]
    rows = [cells for _, cells in body]
    lengths = {len(cells) for cells in rows}
    if lengths == {len(header) + 1}:
        # The last cell is empty: lines end with a separator. Else, as R writes it: labels have no name above them.
        header = [*header, ""] if not any(cells[-1].strip() for cells in rows) else ["", *header]
    for line, cells in body:
        if len(cells) != len(header):
            raise ValueError(
                f"expected as many cells in each line of {path}, got {len(cells)} in line {line} and {len(header)} in "
                f"line {first}, separated by {dialect.separator!r}; is it another separator?"
            )
    named = [
        place for place, name in enumerate(header) if name or place == 0 or any(cells[place].strip() for cells in rows)
    ]
    header, rows = [header[place] for place in named], [[cells[place] for place in named] for cells in rows]
    _check_names(header, path)
    return Cells(path, header, rows, [line for line, _ in body], dialect, tuple(named))


def _check_names(header: list[str], path: Path) -> None:
    """Refuse names that are missing or stand twice; the first column holds labels and needs none.

    Raises:
        ValueError: so it is.
    """
    places: dict[str, int] = {}
    for place, name in enumerate(header):
        if not name and place:
            raise ValueError(f"expected a name above each column of {path}, got an empty one above column {place + 1}")
        if name in places:
            raise ValueError(
                f"expected different names above all columns of {path}, got {name!r} twice, above columns "
                f"{places[name] + 1} and {place + 1}"
            )
        places[name] = place


def _decoded(path: Path, encoding: str | None) -> tuple[str, str, bytes]:
    """The text of a file, its encoding, and the mark of its byte order.

    Raises:
        ValueError: the encoding is another one, or unknown; or the file is not compressed, as its name says.
    """
    data = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"expected {path} to be compressed by gzip, got something else: {error}") from error
    mark, name = next(((mark, name) for mark, name in _BOMS if data.startswith(mark)), (b"", "utf-8"))
    try:
        if mark and (encoding is None or codecs.lookup(encoding).name in (name, name[:6], f"{name}-sig")):
            encoding, data = name, data[len(mark) :]
        else:
            mark, encoding = b"", encoding or "utf-8"
        return data.decode(encoding), encoding, mark
    except LookupError as error:
        raise ValueError(f"expected the name of an encoding, such as utf-8 or latin-1, got {encoding!r}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"expected {path} to be {encoding}, got the byte 0x{data[error.start]:02x} in line {line}; tell its "
            "encoding, such as latin-1 or cp1252, or save it as UTF-8"
        ) from error


def _records(text: str, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Cells of each line that is not blank, with its place in the file.

    Raises:
        ValueError: a quotation mark has no counterpart, or a cell is too long.
    """
    if len(separator) > 1:
        text, separator = text.replace(separator, _STAND_IN), _STAND_IN
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_CELL))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"line {line} of {path} cannot be read: {error}; is a quotation mark unpaired?") from error
        if cells:
            yield line, cells


def _separator(text: str, path: Path) -> str:
    """The separator by which the first lines have as many cells as the header, or one fewer in the header.

    Raises:
        ValueError: none of those that are looked for is there.
    """
    lines = [line for line in islice(io.StringIO(text, newline=""), _SAMPLE) if line.strip()]
    if not lines:
        raise ValueError(f"expected a header and lines below it in {path}, got an empty file")
    counts = {}
    for separator in _SEPARATORS:
        found = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        try:
            records = [cells for cells in found if cells]
        except csv.Error:
            continue
        told = [cells for cells in records if not cells[0].startswith("#")] or records
        even = len({len(cells) for cells in told[1:]} | {len(told[0])}) == 1 or (
            {len(cells) for cells in told[1:]} == {len(told[0]) + 1}
        )
        counts[separator] = (even and len(told[-1]) > 1, len(told[0]))
    best = max(counts, key=lambda separator: counts[separator], default=",")
    if counts.get(best, (False, 0))[1] < 2 and not counts.get(best, (False, 0))[0]:
        raise ValueError(
            f"expected cells separated by a comma, tab, semicolon or bar in {path}, got none of them in the first "
            "line; tell its separator"
        )
    return best


def _drop_comments(records: list[tuple[int, list[str]]]) -> int:
    """Take lines of comments out of records, and return how many lines of the file stand before the header.

    A line that begins with # and has as many cells as the table is part of it: a header, or a label.
    """
    told = [len(cells) for _, cells in records if not cells[0].startswith("#")]
    width = max(set(told), key=told.count) if told else 0
    kept = [(line, cells) for line, cells in records if not cells[0].startswith("#") or len(cells) == width]
    commented = records[0] not in kept[:1] if records else False
    records[:] = kept
    return kept[0][0] - 1 if commented and kept else 0


def write_cells(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], dialect: Dialect, name: Path | None = None
) -> None:
    """Write a table of text in a dialect; an empty header is left out.

    Args:
        path: where to.
        header: names of the columns.
        rows: cells of each line.
        dialect: how.
        name: of the file, which tells whether it is compressed; by default the path.
    """
    several = len(dialect.separator) > 1
    separator = _STAND_IN if several else dialect.separator
    text = io.StringIO(newline="")
    for line in dialect.preamble:
        text.write(line + dialect.newline)
    writer = csv.writer(text, delimiter=separator, lineterminator=dialect.newline)
    writer.writerows([header, *rows] if header else rows)
    whole = text.getvalue()
    path.write_bytes(dialect.encoded(whole.replace(separator, dialect.separator) if several else whole, name or path))


def replaced(cells: Cells, new: Mapping[tuple[int, int], str]) -> str:
    """The text of a table in which some cells are others, and all else is as it was: quotation marks, spaces, comments.

    Args:
        cells: of a file of text.
        new: cells by their place: the row (an index of ``cells.rows``) and the column (one of ``cells.header``).
    """
    by_line: dict[int, dict[int, str]] = {}
    for (row, column), cell in new.items():
        by_line.setdefault(cells.lines[row], {})[cells.places[column]] = cell
    parts, position = [], 0
    for line, spans in _spans(cells.text, cells.dialect.separator, set(by_line)):
        for place, cell in sorted(by_line[line].items()):
            first, last = spans[place]
            quoted = cells.dialect.separator in cell or cells.text.startswith('"', first)
            parts += [cells.text[position:first], f'"{cell}"' if quoted else cell]
            position = last
    return "".join([*parts, cells.text[position:]])


def _spans(text: str, separator: str, wanted: set[int]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Where the cells of some lines stand in a text: the number of the line, from 1, and the ends of each cell."""
    end = re.escape(separator)
    cell = re.compile(rf' *(?P<cell>"(?:[^"]|"")*"(?:(?!{end})[^\r\n])*|(?:(?!{end})[^\r\n])*)')
    position, line = 0, 1
    while position < len(text):
        spans, start = [], position
        while True:
            found = cell.match(text, position)
            assert found is not None
            spans.append(found.span("cell"))
            position = found.end()
            if not text.startswith(separator, position):
                break
            position += len(separator)
        if line in wanted:
            yield line, spans
        position += 2 if text.startswith("\r\n", position) else 1
        line += len(re.findall(r"\r\n|\r|\n", text[start:position])) or 1
