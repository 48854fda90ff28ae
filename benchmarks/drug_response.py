"""Virtual drug screening: ``python -m benchmarks.drug_response``.

Cross-validation within cell types, with MCF7 in training only: L1000 profiles of the Connectivity Map (20 drugs x 24
cell types, as log2 fold change over the control and as raw intensities; 5 folds, as few cell types have 10 drugs) and
proteomic signatures of LINCS (104 drugs x 7 cell types; 10 folds). The kernel's depth, weights and ridge are chosen in
the training folds; its design and the candidates were settled on a first round of the same data, of another seed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks.timing import print_table
from torch_cntk import baselines
from torch_cntk.images.plotting import boxplots
from torch_cntk.matrices.drug_response import (
    Comparison,
    DrugResponse,
    MixedNTK,
    PaperNTK,
    ResidualNTK,
    compare,
    read_drug_response,
)

CHOSEN = "NTK on FaLRTC's residual"
MOST_FOLDS = 10


def methods(data: DrugResponse, count: int, threshold: int) -> dict:
    """By name; the reference's place is that among the cell types with enough drugs."""
    enough = [place for place, drugs in enumerate(data.observed.sum(0).tolist()) if drugs >= count]
    reference = data.select_cells(enough).cell("MCF7")
    sparse, dense = PaperNTK(reference), PaperNTK(reference, baselines.falrtc)
    return {
        "mean over cell type": baselines.cell_mean,
        "mean over drug": baselines.drug_mean,
        "additive": baselines.additive,
        "DNPP": baselines.dnpp,
        "FaLRTC": baselines.falrtc,
        "NTK, one-hot prior": PaperNTK(reference, "one-hot"),
        "NTK, paper's sparse prior": sparse,
        "NTK, FaLRTC as prior": dense,
        "NTK, mixed prior": MixedNTK(sparse, dense, threshold),
        CHOSEN: ResidualNTK(reference),
    }


def measure(data: DrugResponse, count: int, options: argparse.Namespace, threshold: int) -> Comparison:
    return compare(
        data,
        methods(data, count, threshold),
        count=count,
        rounds=options.rounds,
        seed=options.seed,
        progress=options.progress,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/drug"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=2022)
    parser.add_argument("--only", choices=("cmap", "raw", "lincs"), nargs="+", default=["cmap", "raw", "lincs"])
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="for box plots")
    parser.add_argument("--progress", action="store_true")
    options = parser.parse_args()
    cmap = read_drug_response(options.data / "cmap_l1000_20x24x978.npz")
    lincs = read_drug_response(options.data / "lincs_p100_gcp.npz")
    # The threshold of the mixed prior is the paper's 150 drugs in proportion: its data has some 2,000 drugs.
    cases = {
        "cmap": ("CMAP L1000, log2 fold change", cmap.fold_change(), 5, 14),
        "raw": ("CMAP L1000, raw intensities", cmap, 5, 14),
        "lincs": ("LINCS P100 and GCP", lincs, MOST_FOLDS, 60),
    }
    for key in options.only:
        title, data, count, threshold = cases[key]
        start = time.perf_counter()
        comparison = measure(data, count, options, threshold)
        print(f"\n{title}: {count} folds, {options.rounds} rounds, {time.perf_counter() - start:.0f} s")
        print(f"{torch.get_num_threads()} threads; p of paired t-tests of '{CHOSEN}' against each, then corrected")
        header, *rows = comparison.table(CHOSEN)
        print_table(header, rows)
        if options.plot is not None:
            figure = boxplots(comparison)[0].get_figure(root=True)
            assert figure is not None
            figure.savefig(options.plot / f"{key}.png", dpi=150)


if __name__ == "__main__":
    main()
