"""Content-aware passes against biharmonic inpainting and others. ``python -m benchmarks.guided``.

Set TORCH_CNTK_DATA to a folder with ``images/`` for the eleven images of the deep image prior's table; without it two
sample photographs are used. PSNR (dB) and SSIM over the whole image with the observed pixels restored; the periodic
kernel is ``tc.inpaint`` without passes. One table of:

    grey        images and seeds, for each share of missing pixels
    colour      sample photographs, with OpenCV's Telea and Navier-Stokes as well, where it is installed
    holes       kate, library and vase, with passes and without
    ablation    one setting at a time changed, three passes
    flow        one setting of the group flow behind three passes changed, four crops of 96 x 96
    taper       a small image by the dense kernel, with and without the taper
    finite      one pass by the kernel, with and without the taper, and by training the same network of finite width
    stencil     K @ w against a plain copy of its numbers
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import partial

import numpy as np
import skimage.data
import torch
from torch import Tensor

import torch_cntk as tc
from benchmarks.images import grey_images, large_holes, photographs, psnr, ssim
from benchmarks.methods import radius_of
from benchmarks.others import Fill, biharmonic, opencv
from benchmarks.timing import medians, print_table
from torch_cntk.images import Averaged, GroupFlow, guided, random_mask
from torch_cntk.images.filler import Pass
from torch_cntk.images.seen import Whole, local_mean


def grey(options: argparse.Namespace) -> None:
    for missing in options.missing:
        rows, means = [], []
        for name, image in grey_images().items():
            if options.images and name not in options.images:
                continue
            for seed in options.seeds:
                observed = random_mask(tuple(image.shape[1:]), missing, seed)
                start = time.process_time()
                result = tc.inpaint(torch.where(observed, image, 0), observed, passes=options.passes)
                seconds = time.process_time() - start
                others = biharmonic(image, observed), tc.inpaint(image, observed).image
                numbers = [measure(o, image) for measure in (psnr, ssim) for o in (*others, result.image)]
                means.append([*numbers, seconds])
                radius = radius_of(result)
                rows.append((name, seed, *map("{:.2f}".format, numbers[:3]), *map("{:.4f}".format, numbers[3:])))
                rows[-1] += (result.passes, radius, f"{seconds:.1f}")
                print(f"{missing:.0%}", *rows[-1], flush=True)
        mean = np.mean(means, 0)
        rows.append(("mean", "", *map("{:.2f}".format, mean[:3]), *map("{:.4f}".format, mean[3:6]), "", "", ""))
        rows[-1] = (*rows[-1][:-1], f"{mean[6]:.1f}")
        print(f"\n{missing:.0%} of the pixels missing, {torch.get_num_threads()} threads, torch {torch.__version__}")
        header = ("image", "seed", "biharmonic", "periodic", "guided", "SSIM", "periodic", "guided")
        print_table((*header, "passes", "radius", "processor seconds"), rows)


def colour(options: argparse.Namespace) -> None:
    methods: dict[str, Fill] = {"biharmonic": biharmonic}
    for name, method in (("Telea", "INPAINT_TELEA"), ("Navier-Stokes", "INPAINT_NS")):
        fill = opencv(method)
        if fill is not None:
            methods[name] = fill
    methods["periodic"] = lambda image, observed: tc.inpaint(image, observed).image
    methods["guided"] = lambda image, observed: tc.inpaint(image, observed, passes=options.passes).image
    for missing in options.missing:
        rows = []
        for name, image in photographs().items():
            if options.images and name not in options.images:
                continue
            observed = random_mask(tuple(image.shape[1:]), missing, 0)
            found = [fill(torch.where(observed, image, 0), observed) for fill in methods.values()]
            rows.append((name, *(f"{psnr(filled, image):.2f} / {ssim(filled, image):.3f}" for filled in found)))
            print(*rows[-1], flush=True)
        print(f"\n{missing:.0%} of the pixels missing: PSNR / SSIM")
        print_table(("photograph", *methods), rows)


def holes(options: argparse.Namespace) -> None:
    rows = []
    for name, (image, observed) in large_holes().items():
        if options.images and name not in options.images:
            continue
        known = torch.where(observed, image, 0)
        periodic = tc.inpaint(known, observed).image
        start = time.perf_counter()
        result = tc.inpaint(known, observed, passes=options.passes)
        seconds = time.perf_counter() - start
        row = [f"{psnr(filled, image):.2f}" for filled in (biharmonic(image, observed), periodic, result.image)]
        rows.append((name, *row, result.passes, radius_of(result), f"{seconds:.1f}"))
        print(*rows[-1], flush=True)
    print_table(("image", "biharmonic", "periodic", "guided", "passes", "radius", "seconds"), rows)


def ablation(options: argparse.Namespace) -> None:
    usual = tc.Guidance()
    shallow = tc.Sequential(tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1), tc.Conv2d(1, 1, 3))
    three = tc.Sequential(
        tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1), tc.Conv2d(1, 1, 3), tc.LeakyReLU(0.1), tc.Conv2d(1, 1, 3)
    )
    variants: dict[str, tuple[tc.Guidance, tc.Layer | None, int]] = {
        "default": (usual, None, 3),
        "no coordinates": (replace(usual, coordinates=0), None, 3),
        "no estimate": (replace(usual, detail=0, level=0), None, 3),
        "no local mean in the regression": (replace(usual, smoothing=1e3), None, 3),
        "radius 6": (replace(usual, radius=6), None, 3),
        "radius 9": (replace(usual, radius=9), None, 3),
        "radius 16": (replace(usual, radius=16), None, 3),
        "3x3, 3x3": (usual, shallow, 3),
        "3x3, 3x3, 3x3": (usual, three, 3),
        "detail x 1/10": (replace(usual, detail=0.3), None, 3),
        "detail x 10": (replace(usual, detail=30), None, 3),
        "ridge 1e-2": (replace(usual, ridge=1e-2), None, 3),
        "ridge 1e-4": (replace(usual, ridge=1e-4), None, 3),
        "1 pass": (usual, None, 1),
        "5 passes": (usual, None, 5),
    }
    photographs = {
        "astronaut": torch.from_numpy(skimage.data.astronaut()[:160, 140:300].mean(2) / 255).float()[None],
        "coins": torch.from_numpy(skimage.data.coins()[60:220, 100:260] / 255).float()[None],
        "brick": torch.from_numpy(skimage.data.brick()[:160, :160] / 255).float()[None],
    }
    rows = []
    for name, (settings, network, passes) in variants.items():
        if options.variants and name not in options.variants:
            continue
        numbers = []
        for image in photographs.values():
            observed = random_mask(tuple(image.shape[1:]), 0.5, 0)
            known = torch.where(observed, image, 0)
            result = tc.inpaint(known, observed, passes=passes, guidance=replace(settings, network=network))
            numbers.append(psnr(result.image, image))
        rows.append((name, *map("{:.2f}".format, numbers), f"{np.mean(numbers):.2f}"))
        print(*rows[-1], flush=True)
    print("\n50% of the pixels missing, crops of 160 x 160")
    print_table(("variant", *photographs, "mean"), rows)


def flow_variants() -> dict[str, list[Pass]]:
    """What follows the first fill, by name: passes, a group flow, and changes of it."""
    flow, three = GroupFlow(), [tc.Guidance().at(number) for number in range(3)]
    seven = replace(flow, side=7)
    deep = tc.Sequential(tc.Linear(49, 1), tc.LeakyReLU(0.1), tc.Linear(1, 1))
    changed = {
        "guided, flow": flow,
        "nothing added back": replace(flow, noise=1e6),
        "groups of 16": replace(flow, members=16),
        "groups of 32": replace(flow, members=32),
        "groups of 64": replace(flow, members=64),
        "reach 8": replace(flow, reach=8),
        "reach 15": replace(flow, reach=15),
        "reach 60": replace(flow, reach=60),
        "side 5": replace(flow, side=5),
        "side 7": seven,
        "side 9": replace(flow, side=9),
        "side 7, NTK of LeakyReLU(0.1)": replace(seven, network=deep),
        "level 0.15 throughout": replace(flow, first=0.15),
        "level 0.3 throughout": replace(flow, first=0.3, last=0.3),
        "levels 0.4 to 0.1": replace(flow, first=0.4, last=0.1),
        "levels 0.9 to 0.225": replace(flow, first=0.9, last=0.225),
        "9 iterations": replace(flow, iterations=9),
        "24 iterations": replace(flow, iterations=24),
        "no relaxation": replace(flow, relaxation=0),
    }
    orders: dict[str, list[Pass]] = {
        "guided": [*three],
        "flow": [flow],
        "flow, guided": [flow, *three],
        "guided, flow, mean with guided": [*three, flow, Averaged(three[2])],
        "the same of radius 13": [*three, flow, Averaged(tc.Guidance(radius=13).at(2))],
        "guided, flow, guided": [*three, flow, three[2]],
    }
    return {**orders, **{name: [*three, one] for name, one in changed.items()}}


def flow_ablation(options: argparse.Namespace) -> None:
    """Photographs of scikit-image, none of those crops that settings were chosen on."""
    crops = {
        "astronaut": skimage.data.astronaut()[200:296, 200:296].mean(2),
        "coffee": skimage.data.coffee()[20:116, 380:476].mean(2),
        "camera": skimage.data.camera()[300:396, 300:396],
        "brick": skimage.data.brick()[300:396, 300:396],
    }
    rows = []
    for name, passes in flow_variants().items():
        if options.variants and name not in options.variants:
            continue
        numbers, start = [], time.process_time()
        for pixels in crops.values():
            image = torch.from_numpy(pixels / 255).float()[None]
            observed = random_mask((96, 96), 0.5, 0)
            numbers.append(psnr(tc.inpaint(torch.where(observed, image, 0), observed, passes=passes).image, image))
        seconds = (time.process_time() - start) / len(crops)
        rows.append((name, *map("{:.2f}".format, numbers), f"{np.mean(numbers):.2f}", f"{seconds:.1f}"))
        print(*rows[-1], flush=True)
    print("\n50% of the pixels missing, crops of 96 x 96")
    print_table(("variant", *crops, "mean", "processor seconds"), rows)


def seen_in(image: Tensor, observed: Tensor, estimate: Tensor) -> tuple[Tensor, tc.priors.Prior]:
    """The local mean of an estimate, and the feature prior that a guided pass makes of it."""
    usual = tc.Guidance()
    mean = local_mean(estimate, usual.smoothing)
    whole = Whole.of(tc.images.Observed.of(image, observed), estimate[None], usual)
    return mean, guided._prior(estimate, mean, whole, usual)


def taper(options: argparse.Namespace) -> None:
    """One pass on 40 x 40 pixels by the whole kernel, with and without the taper."""
    size, usual = (40, 40), tc.Guidance()
    rows = []
    for name, full in (
        ("astronaut", skimage.data.astronaut()[20:60, 200:240].mean(2)),
        ("coins", skimage.data.coins()),
    ):
        image = torch.from_numpy(full[:40, :40] / 255)[None]
        observed = random_mask(tuple(image.shape[1:]), 0.5, 0)
        start = tc.inpaint(torch.where(observed, image, 0), observed).image
        mean, prior = seen_in(image, observed, start)
        targets = torch.where(observed, image - mean, 0)
        row = [f"{psnr(start, image):.2f}"]
        for radius in (None, 20, 12):
            operator = tc.guided_network().kernel(prior, size, radius=radius).operator()
            solution = tc.Direct().solve(tc.Regression(operator, observed, usual.ridge), targets)
            row.append(f"{psnr(torch.where(observed, image, operator @ solution.weights + mean), image):.2f}")
        rows.append((name, *row))
    print_table(("40 x 40", "first estimate", "dense, no taper", "radius 20", "radius 12"), rows)


def finite(options: argparse.Namespace) -> None:
    """The same network and prior: its kernel, and the network with 64 channels, trained by Adam."""
    size, usual = (64, 64), tc.Guidance()
    photographs = {"astronaut": skimage.data.astronaut()[40:104, 180:244].mean(2), "coins": skimage.data.coins()}
    rows = []
    for name, full in photographs.items():
        image = torch.from_numpy(full[:64, :64] / 255).float()[None]
        observed = random_mask(tuple(image.shape[1:]), 0.5, 0)
        start = tc.inpaint(torch.where(observed, image, 0), observed).image
        mean, prior = seen_in(image, observed, start)
        targets = torch.where(observed, image - mean, 0)
        row = [f"{psnr(start, image):.2f}"]
        for radius in (None, usual.radius):
            operator = tc.guided_network().kernel(prior, size, radius=radius).operator()
            weights = tc.Direct().solve(tc.Regression(operator, observed, usual.ridge), targets).weights
            row.append(f"{psnr(torch.where(observed, image, operator @ weights + mean), image):.2f}")
        torch.manual_seed(0)
        net = tc.Sequential(tc.Conv2d(64, 64, 5), tc.LeakyReLU(0.1), tc.Conv2d(64, 1, 3))
        # The kernel begins at 0; so must the network, whose random function would outweigh the small targets.
        last = net.layers[-1]
        assert isinstance(last, tc.Conv2d)
        torch.nn.init.zeros_(last.weight)
        how = tc.Training(steps=options.steps, lr=0.01, head="none", holdout=0.05, iterate="best")
        trained = tc.train(net, targets, observed, prior=prior, training=how)
        row.append(f"{psnr(torch.where(observed, image, trained.image + mean), image):.2f}")
        rows.append((name, *row))
        print(*rows[-1], flush=True)
    print(f"\n64 x 64, 50% of the pixels missing, {options.steps} steps")
    print_table(("image", "first estimate", "kernel", "kernel, radius 12", "trained network"), rows)


def stencil(options: argparse.Namespace) -> None:
    rows = []
    for channels in (1, 3):
        prior = tc.priors.White(1e-3) + tc.priors.Tensor(torch.rand(channels, 512, 512))
        kernel = tc.guided_network().kernel(prior, radius=12)
        operator, weights = kernel.operator(), torch.randn(channels, 512, 512, dtype=torch.float64)
        values = kernel.near.values
        copy = partial(torch.empty_like(values).copy_, values)
        multiply, copied = medians([partial(operator.__matmul__, weights), copy], options.repeats)
        size = kernel.nbytes / 1e9
        numbers = f"{multiply * 1e3:.1f} ms", f"{size / multiply:.1f}", f"{2 * size / copied:.1f}"
        rows.append((channels, f"{size:.2f} GB", *numbers))
    print(f"{torch.get_num_threads()} threads; 512 x 512, radius 12, float32; a copy reads and writes each number")
    print_table(("right-hand sides", "stencil", "K @ w", "GB/s read", "copy, GB/s read and written"), rows)


TABLES = {
    "grey": grey,
    "colour": colour,
    "holes": holes,
    "ablation": ablation,
    "flow": flow_ablation,
    "taper": taper,
    "finite": finite,
    "stencil": stencil,
}


def passes(text: str) -> int | str:
    return text if text == "auto" else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="all by default")
    parser.add_argument("--missing", type=float, nargs="*", default=[0.5, 0.75, 0.9], help="shares of the pixels")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of the masks")
    parser.add_argument("--passes", type=passes, default="auto", help="default: auto")
    parser.add_argument("--images", nargs="*", help="names (default: all)")
    parser.add_argument("--variants", nargs="*", help="of the ablation (default: all)")
    parser.add_argument("--steps", type=int, default=1000, help="of training")
    parser.add_argument("--repeats", type=int, default=7, help="of timings")
    options = parser.parse_args()
    unknown = set(options.tables) - set(TABLES)
    if unknown:
        parser.error(f"expected tables among {', '.join(TABLES)}, got {', '.join(unknown)}")
    for name in options.tables or TABLES:
        TABLES[name](options)


if __name__ == "__main__":
    main()
