"""Predict what drugs do to cell types in which they were not measured.

    python examples/drug_response.py large.mat --reference MCF7
    python examples/drug_response.py profiles.csv --reference MCF7 --predict aspirin PC3 -o aspirin-PC3.csv

The file is a tensor of Hodos et al. (.mat), an .npz, or a table with the columns cell and drug and one for each gene.
Without a file, made-up profiles are taken. Prints how well whole profiles are predicted that were held out
(cross-validation within cell types, the reference in training only); with --predict, writes the profile of one pair.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch

from torch_cntk import baselines
from torch_cntk.matrices.drug_response import DrugResponse, Method, ResidualNTK, compare, read_drug_response


def made_up(drugs: int = 12, cells: int = 5, genes: int = 60) -> DrugResponse:
    """Drugs of a few kinds, to which cell types respond in their own ways."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    kinds, responses = normal(drugs, 3), normal(cells, 3, genes)
    tensor = torch.einsum("dk,ckg->dcg", kinds, responses + 2 * normal(1, 3, genes)) + normal(1, cells, genes)
    tensor += 0.5 * normal(drugs, cells, genes)
    tensor[torch.rand(drugs, cells, generator=generator) < 0.2] = torch.nan
    names = ("MCF7", *(f"cell {k}" for k in range(1, cells)))
    return DrugResponse(
        tensor, tuple(f"drug {k}" for k in range(drugs)), names, tuple(f"gene {k}" for k in range(genes))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="of profiles; made-up ones by default")
    parser.add_argument("--reference", default="MCF7", help="cell type in which drugs are described")
    parser.add_argument("--fold-change", action="store_true", help="take log2 over the controls in the file")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--predict", nargs=2, metavar=("DRUG", "CELL"), help="a pair to predict instead")
    parser.add_argument("-o", "--output", type=Path, default=Path("profile.csv"), help="where to write it")
    options = parser.parse_args()

    data = made_up() if options.file is None else read_drug_response(options.file)
    if options.fold_change:
        data = data.fold_change()
    print(f"{len(data.drugs)} drugs, {len(data.cells)} cell types, {int(data.observed.sum())} pairs measured")
    if options.predict:
        write_profile(data, options.predict, options.reference, options.output)
        return
    # The places of cell types among those that take part: the ones with a drug for each fold.
    enough = [place for place, drugs in enumerate(data.observed.sum(0).tolist()) if drugs >= options.folds]
    reference = data.select_cells(enough).cell(options.reference)
    methods: dict[str, Method] = {
        "mean over cell type": baselines.cell_mean,
        "DNPP": baselines.dnpp,
        "FaLRTC": baselines.falrtc,
        "NTK": ResidualNTK(reference),
    }
    comparison = compare(
        data, methods, reference=options.reference, count=options.folds, rounds=options.rounds, progress=True
    )
    for row in comparison.table():
        print("  ".join(cell.ljust(22) for cell in row).rstrip())


def write_profile(data: DrugResponse, pair: list[str], reference: str, output: Path) -> None:
    drug, cell = data.drugs.index(pair[0]), data.cell(pair[1])
    filled = ResidualNTK(data.cell(reference))(data.tensor, data.observed)
    with output.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cell", "drug", *data.genes])
        writer.writerow([pair[1], pair[0], *map(float, filled[drug, cell])])
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
