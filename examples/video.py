"""Fill a moving hole in a short video with 3-D kernels, beside biharmonic inpainting frame by frame.

    python examples/video.py -o video
    python examples/video.py clip.gif --hole 14 -o clip
    python examples/video.py frames/ --masks masks/ -o clip

Without a video, a camera pans, and zooms in, across a sample photograph (steps are no whole pixels), and a square hole
moves on its own. Writes into a folder ``video.csv``, PSNR and SSIM of each method; ``video.png``, some frames of each;
and a GIF with the video, what is missing, and what was filled, side by side.

Beside the default 3-D kernel, which knows nothing of the video, and guided passes, there are passes whose prior is the
autocorrelation of the last estimate: the motion stands in it. Of some slopes of their LeakyReLU the one is taken that
fills a left-out copy of the hole best; slope 1 is Wiener's linear filter. The simple thing to do with a moving camera,
to register the frames and to take the mean of those that see what is missing, is there as well. Needs scikit-image and
matplotlib.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageSequence
import scipy.ndimage
import scipy.optimize
import skimage.metrics
import skimage.registration
import skimage.restoration
import torch
from torch import Tensor
from tqdm import tqdm

import torch_cntk as tc
from torch_cntk._internal.files import writing
from torch_cntk.images import GroupFlow, Observed
from torch_cntk.images.files import read_image, read_mask

SLOPES = (0.3, 0.6, 1.0)


def camera(frames: int, size: int, zoom: float, photograph: Path | None) -> Tensor:
    """[3, frames, size, size]: 0.6 pixels down and 1.7 to the right a frame, closer by the factor 1 - zoom each."""
    import skimage.data

    if photograph is None:
        pixels = torch.from_numpy(skimage.data.coffee().copy()).permute(2, 0, 1) / 255
    else:
        pixels = read_image(photograph).pixels.expand(3, -1, -1)
    scene = torch.nn.functional.avg_pool2d(pixels[None], 2)
    height, width = scene.shape[2:]
    taken = []
    for t in range(frames):
        place = (torch.arange(size) - (size - 1) / 2) * (1 - zoom) ** t
        rows, columns = torch.meshgrid(
            place + height / 2 + 0.6 * (t - frames / 2), place + width / 2 + 1.7 * (t - frames / 2), indexing="ij"
        )
        grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)[None]
        taken.append(torch.nn.functional.grid_sample(scene, grid, mode="bicubic", align_corners=False)[0])
    return torch.stack(taken, 1).clamp(0, 1)


def read_video(path: Path) -> Tensor:
    """[3, T, H, W] of a GIF, or of the PNG and JPEG files of a folder in the order of their names."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
        return torch.stack([read_image(file).pixels.expand(3, -1, -1) for file in files], 1)
    with PIL.Image.open(path) as opened:
        frames = [np.asarray(frame.convert("RGB")) for frame in PIL.ImageSequence.Iterator(opened)]
    return torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2) / 255


def moving_hole(frames: int, height: int, width: int, side: int) -> Tensor:
    """A square that crosses the video from the upper left; True = known."""
    observed = torch.ones(frames, height, width, dtype=torch.bool)
    for t in range(frames):
        share = 0.25 + 0.4 * t / max(frames - 1, 1)
        top, left = round(share * (height - side)), round(1.1 * share * (width - side))
        observed[t, top : top + side, left : left + side] = False
    return observed


def frame_by_frame(fill: Callable[[Tensor, Tensor], Tensor], video: Tensor, observed: Tensor) -> Tensor:
    """``fill(image, observed)`` of each frame."""
    return torch.stack([fill(video[:, t], observed[t]) for t in range(len(observed))], 1)


def biharmonic(image: Tensor, observed: Tensor) -> Tensor:
    if bool(observed.all()):
        return image
    filled = skimage.restoration.inpaint_biharmonic(
        image.permute(1, 2, 0).double().numpy(), ~observed.numpy(), channel_axis=-1
    )
    return torch.from_numpy(filled).permute(2, 0, 1).to(image)


def registered(video: Tensor, observed: Tensor, reach: int = 4) -> Tensor:
    """Frames that are near in time, moved onto each other; what no frame sees is left to biharmonic inpainting."""
    grey, filled, known = video.mean(0).numpy(), video.clone(), observed.clone()
    for t in range(len(observed)):
        total, weight = torch.zeros_like(video[:, t]), torch.zeros(observed.shape[1:])
        for other in range(max(t - reach, 0), min(t + reach + 1, len(observed))):
            if other == t:
                continue
            # Whole pixels where masks are given; finer on what both see.
            masks = observed[t].numpy(), observed[other].numpy()
            coarse = skimage.registration.phase_cross_correlation(
                grey[t], grey[other], reference_mask=masks[0], moving_mask=masks[1]
            )[0]
            shift = refined(grey[t], grey[other], masks, coarse)
            frame = scipy.ndimage.shift(video[:, other].numpy(), (0, *shift), order=3, mode="constant", cval=np.nan)
            seen = scipy.ndimage.shift(masks[1].astype(float), shift, order=1, mode="constant") > 0.999
            usable = torch.from_numpy(seen & np.isfinite(frame).all(0))
            share = usable / (other - t) ** 2
            total += torch.where(usable, torch.from_numpy(frame), 0) * share
            weight += share
        new = (weight > 0) & ~observed[t]
        filled[:, t] = torch.where(new, total / weight.clamp_min(1e-9), filled[:, t])
        known[t] |= new
    return frame_by_frame(biharmonic, filled, known)


def refined(
    first: np.ndarray, second: np.ndarray, masks: tuple[np.ndarray, np.ndarray], start: np.ndarray
) -> np.ndarray:
    """The translation of the second frame that makes it most like the first, within a pixel of ``start``."""

    def difference(shift: np.ndarray) -> float:
        moved = scipy.ndimage.shift(second, shift, order=3, mode="nearest")
        seen = scipy.ndimage.shift(masks[1].astype(float), shift, order=1) > 0.999
        seen &= masks[0]
        return float(np.square(moved - first)[seen].mean())

    found = scipy.optimize.minimize(difference, start, method="Nelder-Mead", options={"xatol": 0.02, "maxiter": 60})
    return np.asarray(found.x)


def chosen_slope(video: Tensor, observed: Tensor, passes: int) -> float:
    """The slope that fills a copy of the hole best, half a frame away."""
    moved = observed.roll((observed.shape[1] // 2, observed.shape[2] // 2), (1, 2))
    left_out, seen = observed & ~moved, observed & moved
    first = tc.inpaint(torch.where(seen, video, 0), seen).image

    def error(slope: float) -> float:
        network = tc.autocorrelation_network(3, slope)
        filled = tc.autocorrelation_passes(video, seen, first, passes, network=network)
        return float((filled - video)[:, left_out].square().mean())

    return min(SLOPES, key=error)


def methods(video: Tensor, observed: Tensor, options: argparse.Namespace) -> dict[str, Callable[[], tuple]]:
    """Name to what gives (the filled video, what it chose)."""

    def autocorrelation(slope: float | None) -> tuple[Tensor, str]:
        slope = slope or chosen_slope(video, observed, min(options.passes, 2))
        first = tc.inpaint(video, observed).image
        network = tc.autocorrelation_network(3, slope)
        filled = tc.autocorrelation_passes(video, observed, first, options.passes, network=network)
        return filled, f"slope {slope:g}"

    def flowing() -> tuple[Tensor, str]:
        """A group flow behind the autocorrelation."""
        estimate, chose = autocorrelation(None)
        flow = GroupFlow.for_share(float(observed.double().mean()), ndim=3)
        return flow.refine(Observed.of(video, observed, 3), estimate[None])[0], chose

    def automatic() -> tuple[Tensor, str]:
        result = tc.inpaint(video, observed, passes="auto")
        return result.image, result.choice

    found: dict[str, Callable[[], tuple]] = {
        "biharmonic, 2-D": lambda: (frame_by_frame(biharmonic, video, observed), ""),
        "registered frames": lambda: (registered(video, observed), ""),
        "CNTK, 2-D": lambda: (frame_by_frame(lambda i, o: tc.inpaint(i, o).image, video, observed), ""),
        "CNTK, 3-D": lambda: (tc.inpaint(video, observed).image, ""),
        "CNTK, 3-D, guided": lambda: (tc.inpaint(video, observed, passes=options.guided).image, ""),
        "Wiener, 3-D": lambda: autocorrelation(1.0),
        "CNTK, 3-D, autocorrelation": lambda: autocorrelation(None),
    }
    if not options.flow:
        return found
    guided = {"CNTK, 3-D, guided": found["CNTK, 3-D, guided"], "registered frames": found["registered frames"]}
    after = {"CNTK, 3-D, auto": automatic, "CNTK, 3-D, autocorrelation, flow": flowing}
    return guided | {"CNTK, 3-D, autocorrelation": found["CNTK, 3-D, autocorrelation"]} | after


def psnr(filled: Tensor, truth: Tensor) -> float:
    return -10 * math.log10(float((filled - truth).square().mean()))


def ssim(filled: Tensor, truth: Tensor) -> float:
    """Mean over the frames."""
    return float(
        np.mean(
            [
                skimage.metrics.structural_similarity(
                    filled[:, t].numpy(), truth[:, t].numpy(), channel_axis=0, data_range=1.0
                )
                for t in range(truth.shape[1])
            ]
        )
    )


def strip(path: Path, videos: dict[str, Tensor]) -> None:
    """A line of frames for each video."""
    from matplotlib.figure import Figure

    frames = next(iter(videos.values())).shape[1]
    shown = sorted({round(k * (frames - 1) / 5) for k in range(6)})
    figure = Figure(figsize=(1.4 * len(shown), 1.5 * len(videos)), layout="constrained")
    lines = figure.subplots(len(videos), len(shown), squeeze=False)
    for line, (name, video) in zip(lines, videos.items(), strict=True):
        for axes, t in zip(line, shown, strict=True):
            axes.imshow(video[:, t].permute(1, 2, 0).numpy(), interpolation="nearest")
            axes.set_axis_off()
        line[0].set_title(name, fontsize=8, loc="left")
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=90)


def write_gif(path: Path, videos: list[Tensor]) -> None:
    """Videos side by side, twice as large."""
    together = torch.cat(videos, 3).repeat_interleave(2, 2).repeat_interleave(2, 3)
    frames = [PIL.Image.fromarray(frame) for frame in (together * 255).round().byte().permute(1, 2, 3, 0).numpy()]
    with writing(path) as temporary:
        frames[0].save(temporary, save_all=True, append_images=frames[1:], duration=150, loop=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?", help="GIF or folder of frames; a camera's pan by default")
    parser.add_argument("--masks", type=Path, help="folder of masks, one a frame, white = known; by default a square")
    parser.add_argument("-o", "--output", type=Path, default=Path("video"), help="folder of what is written")
    parser.add_argument("--photograph", type=Path, help="PNG or JPEG that the camera pans across")
    parser.add_argument("--frames", type=int, default=12, help="of the camera's pan")
    parser.add_argument("--size", type=int, default=64, help="of its frames")
    parser.add_argument("--zooms", type=float, nargs="+", default=[0.0, 0.01], help="of the camera, a frame")
    parser.add_argument("--hole", type=int, default=12, help="side of the moving square")
    parser.add_argument("--passes", type=int, default=3, help="each with the autocorrelation of the last estimate")
    parser.add_argument("--guided", type=int, default=3, help="guided passes")
    parser.add_argument(
        "--missing", type=float, default=0.0, help="share of scattered missing pixels, in place of a hole"
    )
    parser.add_argument(
        "--flow", action="store_true", help='fewer methods, and group flows: passes="auto" and the last'
    )
    parser.add_argument("--fast", action="store_true", help="small: to see that it works")
    options = parser.parse_args()
    if options.fast:
        options.frames, options.size, options.zooms, options.hole = 6, 24, [0.0], 5
        options.passes, options.guided = 1, 1

    options.output.mkdir(parents=True, exist_ok=True)
    if options.video is None:
        videos = {
            f"pan, zoom {zoom:.1%}": camera(options.frames, options.size, zoom, options.photograph)
            for zoom in options.zooms
        }
    else:
        videos = {options.video.stem: read_video(options.video)}
    rows = []
    with tqdm(total=(5 if options.flow else 7) * len(videos), desc="filling", unit="video") as bar:
        for name, truth in videos.items():
            frames, height, width = truth.shape[1:]
            observed = moving_hole(frames, height, width, options.hole)
            if options.missing:
                scattered = np.random.default_rng(0).random(tuple(observed.shape)) >= options.missing
                observed = torch.from_numpy(scattered)
            if options.masks is not None:
                files = sorted(options.masks.iterdir())
                observed = torch.stack([read_mask(file, (height, width)) for file in files])
            # What is missing is not there to be looked at.
            video = torch.where(observed, truth, 0)
            filled = {"missing": torch.where(observed, truth, 1)}
            for method, fill in methods(video, observed, options).items():
                start = time.perf_counter()
                result, chose = fill()
                seconds = time.perf_counter() - start
                filled[method] = torch.where(observed, truth, result.clamp(0, 1))
                hole = psnr(filled[method][:, ~observed], truth[:, ~observed])
                scores = [hole, psnr(filled[method], truth), ssim(filled[method], truth)]
                rows.append([name, method, *scores, seconds, chose])
                bar.update()
            filled["truth"] = truth
    strip(options.output / "video.png", filled)
    shown = ("missing", "biharmonic, 2-D", "CNTK, 3-D", "CNTK, 3-D, autocorrelation", "truth")
    write_gif(options.output / "video.gif", [filled[method] for method in shown if method in filled])
    with writing(options.output / "video.csv") as temporary, temporary.open("w", newline="") as file:
        header = ["video", "method", "psnr_hole_db", "psnr_db", "ssim", "seconds", "chose"]
        csv.writer(file).writerows([header, *rows])
    for name, method, hole, whole, alike, took, chose in rows:
        quality = f"hole {hole:5.2f} dB, all {whole:5.2f} dB, SSIM {alike:.4f}"
        print(f"{name:16s} {method:27s} {quality}, {took:.0f} s {chose}".rstrip())


if __name__ == "__main__":
    main()
