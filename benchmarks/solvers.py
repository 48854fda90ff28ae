"""Solvers on large holes, masks of every kind, and growing images. ``python -m benchmarks.solvers [TABLE ...]``.

Set TORCH_CNTK_DATA to a folder with ``images/`` for kate, library and vase with their masks and for barbara; without it
sample photographs take their place. Times are medians of runs that take turns; ratios are of one run.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import skimage.data
import torch
from torch import Tensor

import torch_cntk as tc
from benchmarks.images import folder, grey_images, large_holes, psnr
from benchmarks.others import biharmonic
from benchmarks.timing import medians, peak_bytes, print_table, seconds_text
from torch_cntk.images import random_mask
from torch_cntk.images.canvas import extend
from torch_cntk.images.periodic import canvas_for
from torch_cntk.operators.correlation import correlation
from torch_cntk.solvers import Regression
from torch_cntk.solvers.preconditioners import Name

RIDGE = 1e-3


def dip_kernel(levels: int) -> tc.Kernel:
    """Down: strided conv, act, conv, act; up: nearest, conv, act, 1x1 conv, act; LeakyReLU(0.1)."""
    return tc.load_kernel(f"uniform-{levels}x128-leaky0.1")


def filled(image: Tensor, observed: Tensor, levels: int, **options: object) -> tc.InpaintingResult:
    """Load the kernel and fill, end to end."""
    return tc.inpaint(image, observed, dip_kernel(levels), ridge=RIDGE, **options)  # type: ignore[arg-type]


def holes(repeats: int) -> None:
    """Large holes, end to end: kernel loaded, operator made, solved to 1e-4."""
    rows = []
    for name, (image, observed) in large_holes().items():
        start = time.perf_counter()
        theirs = biharmonic(image, observed)
        seconds_theirs = time.perf_counter() - start
        for levels in (5, 6):
            work = partial(filled, image, observed, levels, solver=tc.ConjugateGradient())
            result = work()
            (seconds,) = medians([work], repeats)
            print(".", end="", flush=True)
            rows.append(
                (
                    name,
                    levels,
                    result.iterations,
                    f"{result.residual:.1e}",
                    seconds_text(seconds),
                    f"{peak_bytes(work) / 1e9:.2f} GB",
                    f"{psnr(result.image, image):.2f}",
                    f"{psnr(theirs, image):.2f}",
                    seconds_text(seconds_theirs),
                )
            )
    print("\n")
    header = (
        "image",
        "levels",
        "outer iterations",
        "residual",
        "end to end",
        "peak memory",
        "PSNR",
        "biharmonic",
        "its time",
    )
    print_table(header, rows)


def masked_camera() -> tuple[Tensor, dict[str, Tensor]]:
    """256 x 256 grey, and masks for it by their names."""
    image = torch.from_numpy(skimage.data.camera()[::2, ::2].copy())[None] / 255
    size = tuple(image.shape[1:])
    small, large = (torch.ones(size, dtype=torch.bool) for _ in range(2))
    small[120:136, 100:116] = False
    large[60:160, 80:190] = False
    return image, {
        "no hole": torch.ones(size, dtype=torch.bool),
        "hole of 16 x 16": small,
        "hole of 100 x 110": large,
        "50 % missing": random_mask(size, 0.5),
        "90 % missing": random_mask(size, 0.9),
    }


def masks(repeats: int) -> None:
    """Outer iterations by mask and number of levels, 256 x 256 grey, ridge 1e-3, residual 1e-4."""
    image, kinds = masked_camera()
    solver = tc.ConjugateGradient(preconditioner="nested")
    rows = []
    for levels in range(3, 7):
        kernel = dip_kernel(levels)
        canvas = canvas_for(tuple(image.shape[1:]), kernel)
        operator = kernel.operator(canvas, dtype=torch.float32)
        counts = []
        for observed in kinds.values():
            known = extend(observed, canvas)
            targets = extend(torch.where(observed, image, 0), canvas)
            counts.append(solver.solve(Regression(operator, known, RIDGE), targets).iterations)
        rows.append((levels, *counts, max(counts) - min(counts)))
    print_table(("levels", *kinds, "spread"), rows)


def exact(repeats: int) -> None:
    """512 x 512 grey, half of the pixels missing, 3 levels, ridge 1e-4, residual 1e-6, against biharmonic."""
    kernel = tc.default_network(3, width=1).kernel(tc.priors.Uniform(0, 0.1), dtype=torch.float32)
    solver = tc.ConjugateGradient(1e-6)
    rows = []
    for name, image in grey_images().items():
        if min(image.shape[1:]) < 512:
            continue
        observed = random_mask(tuple(image.shape[1:]), 0.5)
        ours = partial(tc.inpaint, image, observed, kernel, solver=solver)
        seconds, theirs = medians([ours, partial(biharmonic, image, observed)], repeats)
        result = ours()
        rows.append(
            (
                name,
                seconds_text(seconds),
                seconds_text(theirs),
                f"{seconds / theirs:.2f}",
                result.iterations,
                f"{result.residual:.1e}",
            )
        )
    print_table(("image", "ours", "biharmonic", "ours / biharmonic", "outer iterations", "residual"), rows)


def sizes(repeats: int) -> None:
    """Cost against pixels: grey, half missing, 3 levels, residual 1e-4."""
    camera = torch.from_numpy(skimage.data.camera().copy())[None] / 255
    rows = []
    for side in (256, 512, 1024, 2048):
        image = camera.repeat(1, 4, 4)[:, :side, :side]
        observed = random_mask((side, side), 0.5)
        work = partial(filled, image, observed, 3)
        (seconds,) = medians([work], repeats if side < 1024 else 1)
        per_pixel = seconds / side**2 * 1e6
        rows.append((f"{side} x {side}", seconds_text(seconds), f"{per_pixel:.2f}", f"{peak_bytes(work) / 1e9:.2f} GB"))
    print_table(("image", "end to end", "microseconds a pixel", "peak memory"), rows)


def operators(repeats: int) -> None:
    """K @ w, near part, on 512 x 512 and the canvas around it: GFLOP/s that pairs within the radius would take."""
    matrices = torch.rand(2, 2048, 2048)
    rows = []
    for levels in range(2, 7):
        kernel = dip_kernel(levels)
        canvas = canvas_for((512, 512), kernel)
        near = correlation(kernel.near, kernel.radius, torch.float32)
        for channels in (1, 3):
            images = torch.rand(channels, *canvas)
            seconds, product = medians([partial(near, images), partial(torch.mm, *matrices)], repeats)
            pairs = 2 * (2 * kernel.radius[0] + 1) ** 2 * images.numel()
            done = near.operations * images.numel()
            rows.append(
                (
                    levels,
                    channels,
                    seconds_text(seconds),
                    f"{pairs / seconds / 1e9:.0f}",
                    f"{done / seconds / 1e9:.0f}",
                    f"{2 * 2048**3 / product / 1e9:.0f}",
                    f"{near.nbytes / 1e6:.1f} MB",
                )
            )
    header = ("levels", "channels", "K @ w", "GFLOP/s by pairs", "GFLOP/s done", "GFLOP/s of torch.mm", "weights")
    print_table(header, rows)


def eigenpro(repeats: int) -> None:
    """128 x 128 RGB, n = 8,201 observed, paper's net of 3 levels; the paper's code: 20 epochs in 0.67 s (a GPU)."""
    image = torch.from_numpy(skimage.data.astronaut()[::4, ::4].copy()).permute(2, 0, 1) / 255
    order = torch.randperm(128 * 128, generator=torch.Generator().manual_seed(0))
    observed = torch.zeros(128 * 128, dtype=torch.bool)
    observed[order[:8201]] = True
    observed = observed.reshape(128, 128)
    operator = tc.load_kernel("uniform-plain-3x128-leaky0.1").operator((128, 128), dtype=torch.float32)
    targets = image.double() * observed
    regression = Regression(operator, observed, 0)
    rows = []
    for solver in (
        *(tc.EigenPro(epochs, 0) for epochs in (2, 5, 10, 20, 100)),
        tc.ConjugateGradient(1e-5),
        tc.Direct(),
    ):
        start = time.perf_counter()
        solution = solver.solve(regression, targets)
        seconds = time.perf_counter() - start
        error = ((operator @ solution.weights) - targets)[:, observed].square().mean()
        rows.append((solution.solver, solution.iterations, seconds_text(seconds), f"{float(error):.1e}"))
    print_table(("solver", "epochs or iterations", "seconds", "mean squared training error"), rows)


def singular(repeats: int) -> None:
    """A net that ends in upsample, conv: 5 % missing, no ridge, both precisions."""
    layers: list[tc.Layer] = []
    for _ in range(2):
        layers += [tc.StridedConv2d(1, 1, 3), tc.LeakyReLU(0.1)]
    layers += [tc.NearestUp(2), tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1), tc.NearestUp(2), tc.Conv2d(1, 1, 3)]
    kernel = tc.Sequential(*layers).kernel(tc.priors.Uniform(0, 0.1))
    image = torch.from_numpy(skimage.data.camera()[::4, ::4].copy())[None].double() / 255
    observed = random_mask((128, 128), 0.05)
    rows, images = [], []
    for dtype in (torch.float32, torch.float64):
        for ridge in (0.0, 1e-4):
            result = tc.inpaint(image.to(dtype), observed, kernel.to(dtype), solver=tc.ConjugateGradient(), ridge=ridge)
            images.append(result.image.double())
            rows.append(
                (
                    str(dtype)[6:],
                    f"{ridge:g}",
                    result.status.name,
                    result.iterations,
                    seconds_text(result.seconds),
                    f"{psnr(result.image, image.to(dtype)):.2f}",
                )
            )
    print_table(("precision", "ridge", "status", "iterations", "seconds", "PSNR"), rows)
    difference = [float((images[k] - images[k + 2]).abs().max()) for k in (0, 1)]
    print(f"largest difference between precisions: {difference[0]:.1e} without a ridge, {difference[1]:.1e} with")


def preconditioners(repeats: int) -> None:
    """Iterations, and time, for 256 x 256 grey, 3 levels, ridge 1e-3, residual 1e-5; C: the stationary average of K."""
    image, kinds = masked_camera()
    kernel = dip_kernel(3)
    canvas = canvas_for(tuple(image.shape[1:]), kernel)
    names: tuple[Name, ...] = ("none", "laplacian", "circulant", "nested")
    rows: list[tuple[object, ...]] = []
    for of, by in {"K": kernel, "C": kernel.stationary_average()}.items():
        operator = by.operator(canvas, dtype=torch.float32)
        for mask in ("50 % missing", "90 % missing", "hole of 100 x 110"):
            observed = kinds[mask]
            regression = Regression(operator, extend(observed, canvas), RIDGE)
            targets = extend(torch.where(observed, image, 0), canvas)
            solvers = [tc.ConjugateGradient(1e-5, preconditioner=name) for name in names]
            seconds = medians([partial(solver.solve, regression, targets) for solver in solvers], repeats)
            counts = [solver.solve(regression, targets).iterations for solver in solvers]
            rows.append((of, mask, *(f"{n}, {seconds_text(t)}" for n, t in zip(counts, seconds, strict=True))))
    print_table(("matrix", "mask", *names), rows)


TABLES = {
    function.__name__: function
    for function in (holes, masks, exact, sizes, operators, preconditioners, eigenpro, singular)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)} (default: all)")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if unknown := set(options.tables) - set(TABLES):
        parser.error(f"expected tables among {', '.join(TABLES)}, got {', '.join(sorted(unknown))}")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, images of {folder() or 'scikit-image'}")
    for name in options.tables or TABLES:
        print(f"\n{name}: {TABLES[name].__doc__}\n", flush=True)
        TABLES[name](options.repeats)


if __name__ == "__main__":
    main()
