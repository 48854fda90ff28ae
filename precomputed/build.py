"""Rebuild the precomputed kernels and their index. ``python precomputed/build.py [NAME ...]``; all of them by default.

On the machine they were made on, files come out byte for byte. On another the last digit of some numbers may differ.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
from dataclasses import asdict
from pathlib import Path

import torch

from torch_cntk import catalogue
from torch_cntk._internal.files import writing
from torch_cntk.kernels import files

FOLDER = Path(__file__).parent
MOST_BYTES = 40_000_000
# The paper's network of 5 and 6 levels is computed in the time that it takes to read its file (.04 and .3 s), of up to
# 9 MB: it does not ship. Others of more than a hundred kilobytes are read in .2 to .5 of the time to compute them.
NAMES = [
    f"uniform-{net}{levels}x128-{activation}"
    for net, most in (("", 6), ("plain-", 4))
    for levels, activation in itertools.product(range(1, most + 1), ("relu", "leaky0.1"))
] + [f"{prior}-3x128-leaky0.1-{side}x{side}" for prior, side in itertools.product(("identity", "meshgrid"), (32, 64))]
NAMES += [f"uniform-fine-{levels}x128-leaky0.3" for levels in (3, 4, 5)] + ["uniform-wide-6x128-leaky0.1"]


def build(name: str, folder: Path = FOLDER) -> catalogue.Shipped:
    """Compute one kernel, write its file into ``folder`` and return its entry in the index.

    Raises:
        ValueError: there is no kernel of that name.
    """
    recipe = catalogue.recipe(name)
    if recipe is None:
        raise ValueError(f"expected the name of a kernel, got {name!r}")
    kernel = recipe.blank.kernel(recipe.prior, recipe.size, dtype=torch.float32)
    path = folder / f"{name}.safetensors"
    # Without a checksum of its own: the index has that of the whole file.
    files.write(path, kernel.storage, kernel.origin, compact=True, checksum=False)
    content = path.read_bytes()
    return catalogue.Shipped(
        name=name,
        network=recipe.summary,
        prior=repr(recipe.prior),
        size=recipe.size,
        period=kernel.period,
        dtype="float32",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    names = parser.parse_args().names or NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"expected names of precomputed kernels, got {', '.join(sorted(unknown))}")
    entries = dict(catalogue.index())
    for name in names:
        entries[name] = build(name)
        print(f"{name}: {entries[name].bytes:,} bytes")
    total = sum(entries[name].bytes for name in NAMES)
    print(f"{total:,} bytes in all")
    if total > MOST_BYTES:
        raise SystemExit(f"expected at most {MOST_BYTES:,} bytes")
    with writing(FOLDER / "index.json") as temporary:
        temporary.write_text(json.dumps([asdict(entries[name]) for name in NAMES], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
