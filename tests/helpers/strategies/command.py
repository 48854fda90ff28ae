"""Silly values of the command's options, and the small files on which it is tried."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

__all__ = ["COLOURS", "COMMANDS", "FILES", "INPUTS", "INTEGERS", "NAMES", "NUMBERS", "command_lines", "write_files"]

INTEGERS = ["-1", "0", "60", "1000000", "999999999999999999999999", "9" * 5000, "nan", "1e9", "", "x", "\u0661"]
NUMBERS = ["-1", "0", "nan", "inf", "-inf", "1e-320", "1e308", "1e400", "", "x", "0x10", "1,5"]
NAMES = [
    "",
    ".",
    "/",
    "x" * 300,
    "x" * 5000,
    "ü中",
    "\udcff",
    "-",
    "folder.png",
    "photo.png",
    "empty.png",
    "/dev/null",
    "uniform-0x1-relu",
    "uniform-16x1-relu",
    "uniform-60x1-relu",
    "uniform-100000x1-relu",
    f"uniform-{'9' * 6000}x1-relu",
    "uniform-2x999999999-relu",
    f"uniform-2x{'9' * 30}-relu",
    "uniform-skip-2x999999999-relu",
    "uniform-2x4-leaky" + "9" * 400,
    "uniform-2x4-leaky1.0000",
    "uniform-2x4-relu-24x24",
    "identity-2x4-relu",
    "identity-2x4-relu-1x1",
    "identity-2x4-relu-24x24",
    "identity-2x4-relu-999999x999999",
    "meshgrid-16x4-relu-24x24",
]
INPUTS = ["", "folder.png", "empty.png", "text.png", "/dev/null", "/dev/zero", "no.png", "photo.png/x.png", "x" * 300]
INPUTS += ["huge.png", "table.csv", "x" * 300 + ".png", "\udcff.png"]
COLOURS = ["", "red", "#12", "#ff0000", "rgb(300,0,0)", "hsl(0,100%,50%)", "x" * 5000, "\0"]

FILES = ["--mask", "mask.png", "-o", "out.png"]
COMMANDS = {
    "inpaint": ["inpaint", "photo.png", *FILES],
    "train": ["train", "photo.png", *FILES, "--levels=1", "--width=4", "--skip=1", "--steps=2"],
    "heatmap": ["heatmap", "-o", "map.png", "--pixel", "1", "2", "--size", "16", "16"],
    "demo": ["demo", "--image", "photo.png", "-o", "out"],
    "complete": ["complete", "table.csv", "--features", "features.csv", "-o", "out.csv"],
}
OPTIONS: dict[str, dict[str, list[str]]] = {
    "inpaint": {
        "--max-iterations": INTEGERS,
        "--passes": [value for value in INTEGERS if value not in ("60", "1000000")],
        "--grow": INTEGERS,
        "--ridge": [*NUMBERS, "cv"],
        "--mask-threshold": NUMBERS,
        "--tolerance": NUMBERS,
        "--solver": ["direct", "cg", "eigenpro", "auto", "", "fast"],
        "--kernel": NAMES,
        "--mask-color": COLOURS,
        "--mask": INPUTS,
        "--device": ["cpu", "cuda", "", "tpu"],
        "-o": ["out.png", "out.jpg", "out.tif", "out.bmp", "out", "", "folder.png", "/dev/null", "no/out.png"],
    },
    "train": {
        "--levels": INTEGERS,
        "--width": [value for value in INTEGERS if value != "1000000"],
        "--skip": [value for value in INTEGERS if value != "1000000"],
        "--steps": [value for value in INTEGERS if value not in ("60", "1000000")],
        "--patience": INTEGERS,
        "--seed": INTEGERS,
        "--lr": NUMBERS,
        "--jitter": NUMBERS,
        "--holdout": NUMBERS,
        "--checkpoint": INPUTS,
    },
    "heatmap": {"--levels": INTEGERS, "--kernel": NAMES, "--prior": ["uniform", "identity", "meshgrid", ""]},
    "complete": {
        "--hidden-layers": [value for value in INTEGERS if value != "60"],
        "--ridge": [*NUMBERS, "cv"],
        "--identity": NUMBERS,
        "--features": INPUTS,
        "-o": ["out.csv", "out.tsv", "out.txt", "out", "", "folder.png", "no/out.csv"],
    },
    "kernels": {},
}
"""Options of the subcommands, with values of which some are right."""


def huge() -> bytes:
    """A hundred bytes of PNG that claim to be an image of 2 * 10^9 by 2 * 10^9 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2 * 10**9, 2 * 10**9, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def write_files() -> None:
    """Put a photograph, its mask, tables and files that are none of them into the current folder."""
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save("photo.png")
    Image.fromarray(random.random((24, 24)) < 0.6).save("mask.png")
    Path("folder.png").mkdir()
    Path("empty.png").touch()
    Path("text.png").write_text("no picture" * 100)
    Path("huge.png").write_bytes(huge())
    Path("table.csv").write_text("x,a,b,c\nr1,1,2,\nr2,2,,3\nr3,,1,2\n")
    Path("features.csv").write_text("x,u,v\na,1,2\nb,2,3\nc,4,1\n")


@st.composite
def command_lines(draw: Any) -> list[str]:
    """Arguments of the command: a subcommand that works, with one or two options more."""
    name = draw(st.sampled_from(sorted(OPTIONS)))
    line = [*COMMANDS.get(name, [name])]
    options = OPTIONS[name]
    for option in draw(st.lists(st.sampled_from(sorted(options)), min_size=1, max_size=2)) if options else []:
        value = draw(st.sampled_from(options[option]))
        line += [option, value] if len(option) == 2 else [f"{option}={value}"]
    if draw(st.integers(0, 19)) == 0:
        line.insert(draw(st.integers(0, len(line))), draw(st.sampled_from(["--no-such", "-", "--", "extra", ""])))
    return line
