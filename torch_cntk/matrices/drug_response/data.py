"""Gene expression (or any profile) of drugs in cell types, from the formats that it comes in."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from torch import Tensor

from torch_cntk.matrices.delimited import Cells, read_cells

__all__ = ["DrugResponse", "read_drug_response"]


@dataclass(frozen=True)
class DrugResponse:
    """Profiles of drugs in cell types; as a matrix, a row is a gene and a column a pair of a drug and a cell type.

    Attributes:
        tensor: [drugs, cells, genes] in float64; NaN where a pair was not measured.
        drugs: their names.
        cells: their names.
        genes: their names.
        controls: profile of each cell type without a drug, [cells, genes], or None.
    """

    tensor: Tensor
    drugs: tuple[str, ...]
    cells: tuple[str, ...]
    genes: tuple[str, ...]
    controls: Tensor | None = None

    def __post_init__(self) -> None:
        shape = (len(self.drugs), len(self.cells), len(self.genes))
        if tuple(self.tensor.shape) != shape:
            raise ValueError(f"expected a tensor of {shape} drugs, cells and genes, got {tuple(self.tensor.shape)}")
        if self.controls is not None and tuple(self.controls.shape) != shape[1:]:
            raise ValueError(f"expected controls of {shape[1:]} cells and genes, got {tuple(self.controls.shape)}")

    @property
    def observed(self) -> Tensor:
        """Which pairs were measured, boolean [drugs, cells]; profiles with gaps are not counted."""
        return torch.isfinite(self.tensor).all(2)

    def fold_change(self) -> DrugResponse:
        """The log2 of each profile over the control of its cell type.

        Returns:
            the same pairs, without controls.

        Raises:
            ValueError: there are no controls, or intensities are not positive.
        """
        if self.controls is None:
            raise ValueError("expected data with a control for each cell type, got none")
        known = self.tensor[self.observed]
        if float(known.min()) <= 0 or not bool((self.controls > 0).all()):
            raise ValueError("expected positive intensities, whose logarithm is taken, got some at or below 0")
        return replace(self, tensor=torch.log2(self.tensor / self.controls), controls=None)

    def select_cells(self, keep: Sequence[int]) -> DrugResponse:
        """The data of some cell types, by their places."""
        index = torch.as_tensor(keep)
        controls = None if self.controls is None else self.controls[index]
        return replace(
            self,
            tensor=self.tensor[:, index],
            cells=tuple(self.cells[k] for k in index.tolist()),
            controls=controls,
        )

    def cell(self, name: str) -> int:
        """The place of a cell type.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.cells:
            raise ValueError(f"expected a cell type among {', '.join(self.cells)}, got {name!r}")
        return self.cells.index(name)


def read_drug_response(path: str | Path) -> DrugResponse:
    """Read profiles of drugs in cell types.

    * ``.mat``: ``T`` [drugs, genes, cells] with ``pertIds``, ``geneIds`` and ``cellIds``, NaN where a pair was not
      measured: the tensors of Hodos et al. (2018), files of MATLAB up to version 7.2.
    * ``.npz``: a tensor ``T`` [drugs, cells, genes] with labels ``drug``, ``cell`` and ``gene`` (or ``feature``), or a
      table ``X`` [pairs, genes] with ``drug`` and ``cell`` of each line and, if there are, controls ``ctrl`` of the
      cell types ``ctrl_cell``. Nothing is unpickled.
    * ``.csv`` or ``.tsv``: a line a pair, with columns ``cell`` and ``drug``; all others are genes. The separator may
      be a comma, tab, semicolon or bar; empty cells and NA are missing; numbers of the rows in front, as pandas writes
      them, are left out.

    Replicates of a pair are averaged, each gene over those in which it was measured.

    Args:
        path: of the file.

    Returns:
        the profiles, drugs and cell types in the order in which they first appear.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of no such format.
    """
    path = Path(path)
    readers = {".mat": _read_mat, ".npz": _read_npz, ".csv": _read_table, ".tsv": _read_table}
    if path.suffix.lower() not in readers:
        raise ValueError(f"expected a file of {', '.join(readers)}, got {path.name}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return readers[path.suffix.lower()](path)


def _read_mat(path: Path) -> DrugResponse:
    try:
        content = scipy.io.loadmat(path)
    except (NotImplementedError, ValueError, OSError) as error:
        raise ValueError(
            f"{path} is no MATLAB file that scipy can read ({error}); files of version 7.3 have to be saved anew, as "
            "save(..., '-v7')"
        ) from error
    names = ("T", "pertIds", "geneIds", "cellIds")
    missing = [name for name in names if name not in content]
    if missing:
        raise ValueError(f"expected the variables {', '.join(names)} in {path}, got no {', '.join(missing)}")
    drugs, genes, cells = (_strings(content[name]) for name in names[1:])
    tensor = torch.from_numpy(np.asarray(content["T"], dtype=np.float64))
    if tuple(tensor.shape) != (len(drugs), len(genes), len(cells)):
        raise ValueError(
            f"expected T of {len(drugs)} drugs x {len(genes)} genes x {len(cells)} cells, got {tuple(tensor.shape)}"
        )
    return DrugResponse(tensor.permute(0, 2, 1).contiguous(), drugs, cells, genes)


def _strings(labels: Any) -> tuple[str, ...]:
    """A cell array of strings, or a matrix of characters."""
    return tuple(str(entry.ravel()[0] if isinstance(entry, np.ndarray) else entry).strip() for entry in labels.ravel())


def _read_npz(path: Path) -> DrugResponse:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    genes = next((arrays[name] for name in ("gene", "gene_entrez", "genes", "feature") if name in arrays), None)
    if not {"drug", "cell"} <= arrays.keys() or genes is None or not {"T", "X"} & arrays.keys():
        raise ValueError(f"expected T or X with drug, cell and gene in {path}, got {', '.join(sorted(arrays))}")
    drug, cell, names = (tuple(str(label) for label in labels) for labels in (arrays["drug"], arrays["cell"], genes))
    if "T" in arrays:
        tensor = torch.from_numpy(arrays["T"].astype(np.float64))
        return DrugResponse(tensor, drug, cell, names)
    data = _from_lines(drug, cell, torch.from_numpy(arrays["X"].astype(np.float64)), names)
    if "ctrl" not in arrays:
        return data
    places = {str(label): place for place, label in enumerate(arrays["ctrl_cell"])}
    lost = [name for name in data.cells if name not in places]
    if lost:
        raise ValueError(f"expected a control for each cell type in {path}, got none for {', '.join(lost)}")
    controls = torch.from_numpy(arrays["ctrl"].astype(np.float64))[[places[name] for name in data.cells]]
    return replace(data, controls=controls)


_NOT_MEASURED = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none", "<na>"})
"""What programs write where a number is missing, in small letters."""


def _read_table(path: Path) -> DrugResponse:
    table = read_cells(path)
    if not {"cell", "drug"} <= set(table.header) or len(table.header) < 3:
        raise ValueError(f"expected columns cell, drug and genes, and lines, in {path}, got {table.header[:5]}")
    cell, drug = table.column("cell"), table.column("drug")
    genes = [
        place for place in range(len(table.header)) if place not in (cell, drug) and not _row_numbers(table, place)
    ]
    if not genes or not all(table.header[place] for place in genes):
        raise ValueError(f"expected the name of a gene above each column of numbers in {path}, got {table.header[:5]}")
    values = [
        [_measured(cells[place], path, line, table.header[place]) for place in genes]
        for cells, line in zip(table.rows, table.lines, strict=True)
    ]
    return _from_lines(
        [cells[drug] for cells in table.rows],
        [cells[cell] for cells in table.rows],
        torch.tensor(values, dtype=torch.float64),
        tuple(table.header[place] for place in genes),
    )


def _row_numbers(table: Cells, place: int) -> bool:
    """Whether a column holds the numbers of the rows, which pandas writes in front: without a name, from 0 or 1."""
    if place or not re.fullmatch(r"(Unnamed: 0)?", table.header[0]):
        return False
    found = [cells[0] for cells in table.rows]
    return any(found == [str(number + first) for number in range(len(found))] for first in (0, 1))


def _measured(text: str, path: Path, line: int, gene: str) -> float:
    """A number, or NaN where none was measured.

    Raises:
        ValueError: it is something else.
    """
    if text.strip().lower() in _NOT_MEASURED:
        return math.nan
    try:
        number = float(text) if "_" not in text else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected numbers under each gene in {path}, got {text!r} under {gene} in line {line}")
    return number


def _from_lines(drug: Sequence[str], cell: Sequence[str], values: Tensor, genes: tuple[str, ...]) -> DrugResponse:
    """A tensor of a table with a line for each pair."""
    drug_places = {name: place for place, name in enumerate(dict.fromkeys(drug))}
    cell_places = {name: place for place, name in enumerate(dict.fromkeys(cell))}
    first = torch.tensor([drug_places[name] for name in drug])
    second = torch.tensor([cell_places[name] for name in cell])
    shape = (len(drug_places), len(cell_places), len(genes))
    seen = ~torch.isnan(values)
    tensor = torch.zeros(shape, dtype=torch.float64)
    tensor.index_put_((first, second), torch.where(seen, values, 0), accumulate=True)
    counts = torch.zeros(shape, dtype=torch.float64)
    counts.index_put_((first, second), seen.double(), accumulate=True)
    # 0 / 0 where a gene of a pair was not measured: NaN.
    return DrugResponse(tensor / counts, tuple(drug_places), tuple(cell_places), genes)
