"""Draw the figures of the concepts, with the package itself: `python docs/figures.py [FOLDER]`.

`docs/conf.py` calls it when the site is built, into `docs/_figures`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

import torch_cntk as tc

FIGURES: dict[str, Callable[[], Figure]] = {}
mpl.rcParams["svg.hashsalt"] = "torch_cntk"  # the same figure is the same file


def figure(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    """Enter a figure under its function's name."""
    FIGURES[draw.__name__] = draw
    return draw


@figure
def two_readings() -> Figure:
    """Kernels of finite networks scatter about the exact one, the less the wider they are."""
    widths, draws = [8, 32, 128], 8
    z = tc.priors.Uniform(0, 1).sample(3, size=(6,), generator=torch.Generator().manual_seed(0)).double()
    drawing = Figure(figsize=(7, 2.9), layout="constrained")
    axis = drawing.subplots()
    for place, width in enumerate(widths):
        seen = []
        for seed in range(draws):
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                layers = [tc.Conv1d(3, width, 3), tc.ReLU(), tc.Conv1d(width, width, 3), tc.ReLU()]
                net = tc.Sequential(*layers, tc.Conv1d(width, 1, 3)).double()
            seen.append(tc.empirical_ntk(net, z).reshape(6, 6)[0])
        exact = net.kernel(tc.priors.Tensor(z), dtype=torch.float64).dense().reshape(6, 6)
        places = torch.arange(6) + (place - 1) * 0.2
        for row in seen:
            axis.plot(places, row, "o", markersize=3, color=f"C{place}", alpha=0.6)
        axis.plot([], [], "o", color=f"C{place}", label=f"{width} channels, {draws} networks")
    axis.hlines(exact[0], torch.arange(6) - 0.35, torch.arange(6) + 0.35, color="black", label="infinitely many, exact")
    axis.set(xlabel="pixel x", ylabel="K(0, x)", ylim=(0, 2.2))
    axis.legend(fontsize=8)
    return drawing


@figure
def periodic_kernel() -> Figure:
    """K(x, x + u) around four pixels of one period: four pictures, and no others at any size of image."""
    net = tc.Sequential(tc.Conv2d(4, 16, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(16, 16, 3), tc.ReLU())
    kernel = net.kernel(tc.priors.Uniform(0, 1))
    drawing = Figure(figsize=(9, 2.6), layout="constrained")
    pixels = [(8, 8), (8, 9), (9, 8), (9, 9)]
    for axis, pixel in zip(drawing.subplots(1, 4), pixels, strict=True):
        row = kernel.row(pixel, (18, 18)).reshape(18, 18)
        image = axis.imshow(row[2:16, 2:16], cmap="viridis", extent=(1.5, 15.5, 15.5, 1.5))
        axis.plot(pixel[1], pixel[0], "r+")
        axis.set_title(f"x = {pixel}", fontsize=9)
    drawing.colorbar(image, ax=drawing.axes, label="K(x, x')")
    return drawing


@figure
def ntk_and_nngp() -> Figure:
    """Both kernels of fully connected networks against the angle between two inputs, divided by that of equal ones."""
    angles = torch.linspace(0, math.pi, 181, dtype=torch.float64)
    circle = torch.stack([torch.cos(angles), torch.sin(angles)], 1)
    drawing = Figure(figsize=(8, 2.8), layout="constrained")
    for axis, kind in zip(drawing.subplots(1, 2, sharey=True), ("nngp", "ntk"), strict=True):
        for depth in (1, 3, 8):
            hidden = [layer for _ in range(depth) for layer in (tc.Linear(2, 2, bias=False), tc.ReLU())]
            net = tc.Sequential(*hidden, tc.Linear(2, 1, bias=False))
            row = net.gram(circle[:1], circle, kind=kind)[0]
            axis.plot(angles.rad2deg(), row / row[0], label=f"{depth} hidden layers")
        axis.set(title=kind.upper(), xlabel="angle, degrees", xticks=[0, 45, 90, 135, 180])
        axis.legend(fontsize=8)
    return drawing


@figure
def singular_kernel() -> Figure:
    """Eigenvalues of a kernel that tells all pixels apart, and of one that does not."""
    prior, size = tc.priors.Uniform(0, 0.1), (12, 12)
    start = (tc.StridedConv2d(4, 8, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(8, 8, 1))
    nets = {"... upsample, convolution": start, "... upsample, convolution, ReLU": (*start, tc.ReLU())}
    nets["... upsample, convolution 3 x 3, ReLU"] = (*start[:3], tc.Conv2d(8, 8, 3), tc.ReLU())
    drawing = Figure(figsize=(7, 2.8), layout="constrained")
    axis = drawing.subplots()
    for mark, (title, layers) in zip(("o", "x", "."), nets.items(), strict=True):
        matrix = tc.Sequential(*layers).kernel(prior, dtype=torch.float64).dense(size).reshape(144, 144)
        values = torch.linalg.eigvalsh(matrix).flip(0)
        axis.semilogy((values / values[0]).clamp_min(1e-17), mark, markersize=4, label=title)
    axis.set(xlabel="number", ylabel="eigenvalue / largest", ylim=(1e-18, 2))
    axis.legend(fontsize=8)
    return drawing


@figure
def passes() -> Figure:
    """What predicts one missing pixel beside an edge: the first fill, and a guided one."""
    image = torch.zeros(1, 32, 32, dtype=torch.float64)
    image[..., 17:] = 1.0
    image += 0.02 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    observed = torch.ones(32, 32, dtype=torch.bool)
    observed[13:20, 13:20] = False
    pixel = torch.tensor([16 * 32 + 15])
    drawing = Figure(figsize=(8.5, 2.8), layout="constrained")
    axes = drawing.subplots(1, 3)
    axes[0].imshow(torch.where(observed, image[0], torch.full_like(image[0], 0.5)), cmap="gray")
    axes[0].set_title("an edge and a hole", fontsize=9)
    net = tc.Sequential(tc.Conv2d(1, 8, 3), tc.ReLU(), tc.Conv2d(8, 8, 3), tc.ReLU())
    kernels = {
        "the first fill": tc.load_kernel("uniform-fine-3x128-leaky0.3"),
        "a guided pass": net.kernel(tc.priors.Tensor(image - image.mean())),
    }
    known = torch.nonzero(observed.flatten())[:, 0]
    for axis, (title, kernel) in zip(axes[1:], kernels.items(), strict=True):
        matrix = kernel.dense((32, 32)).double().reshape(32 * 32, -1)
        system = matrix[known][:, known] + 1e-3 * matrix.diagonal().mean() * torch.eye(len(known))
        weights = torch.zeros(32 * 32, dtype=torch.float64)
        weights[known] = torch.linalg.solve(system, matrix[known][:, pixel])[:, 0]
        weights = weights.reshape(32, 32)[6:27, 6:27]
        most = float(weights.abs().max())
        axis.imshow(weights, cmap="RdBu_r", vmin=-most, vmax=most, extent=(5.5, 26.5, 26.5, 5.5))
        axis.axvline(16.5, color="black", linewidth=0.7)
        axis.plot(15, 16, "k+")
        axis.set_title(f"weights of {title}", fontsize=9)
    return drawing


def draw(folder: Path) -> list[Path]:
    """Draw all figures into a folder, as SVG files that need no other one."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, make in FIGURES.items():
        written.append(folder / f"{name}.svg")
        make().savefig(written[-1], metadata={"Date": None})
    return written


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "_figures")
