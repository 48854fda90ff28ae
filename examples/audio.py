"""Fill gaps and scattered missing samples of audio with 1-D kernels, beside linear and cubic interpolation.

    python examples/audio.py -o audio
    python examples/audio.py speech.wav --gaps 2 10 --missing 0.5 -o speech

Without a file, the signal is made up: plucked strings (Karplus and Strong) and a sung vowel with vibrato. Writes into a
folder ``audio.csv``, the signal-to-noise ratio over the missing samples; ``audio.png``; and for each mask the signal
with zeros where samples are missing, and filled, as WAV files.

Kernels: the default one, which knows nothing of the signal; guided passes, as many as leaving out observed samples asks
for; and the autocorrelation of the last estimate as the feature prior, around each gap, with the slope of the
network's LeakyReLU that fills left-out copies of the gaps best; a slope of 1, which is Wiener's linear filter, stands
beside it.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.interpolate
import scipy.io.wavfile
import scipy.signal
import torch
from torch import Tensor
from tqdm import tqdm

import torch_cntk as tc
from torch_cntk._internal.files import writing
from torch_cntk.images import GroupFlow, Observed

SLOPES = (0.3, 0.6, 1.0)
MOST_TRIALS = 6
"""Groups of left-out samples on which slopes are tried."""


def made_up(rate: int, seconds: float, seed: int) -> Tensor:
    """Six plucked strings and a vowel, [1, T], made at 48 kHz and reduced to a rate that divides it."""
    generator, fine = np.random.default_rng(seed), 48_000
    total = round(fine * seconds)
    signal = np.zeros(total)
    for k, pitch in enumerate((110.0, 164.8, 220.0, 277.2, 196.0, 146.8)):
        start, delay = round(k * 0.16 * total), round(fine / pitch - 0.5)
        burst = np.zeros(total - start)
        burst[:delay] = generator.uniform(-1, 1, delay)
        loop = np.zeros(delay + 2)
        loop[0], loop[delay], loop[delay + 1] = 1, -0.4985, -0.4985
        # A soft pick, then a delay line that loses its high overtones first.
        signal[start:] += scipy.signal.lfilter([0.14], loop, scipy.signal.lfilter([1], [1, -0.85], burst))
    times = np.arange(total) / fine
    phase = 2 * np.pi * np.cumsum(180 * (1 + 0.02 * np.sin(2 * np.pi * 5.5 * times))) / fine
    for overtone in range(1, 25):
        distance = (overtone * 180 - np.array([700, 1200, 2600])) / np.array([120, 150, 250])
        loudness = float(np.exp(-0.5 * distance**2) @ np.array([0.3, 0.18, 0.09]))
        signal += loudness * np.sin(overtone * phase + overtone) * np.clip(10 * (times - 0.1 * seconds), 0, 1)
    signal = scipy.signal.resample_poly(signal, 1, fine // rate)
    return torch.from_numpy(0.9 * signal / np.abs(signal).max())[None]


def read_wav(path: Path) -> tuple[Tensor, int]:
    """[channels, T] in [-1, 1], and the sampling rate."""
    rate, samples = scipy.io.wavfile.read(path)
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float64) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        samples = samples / float(np.iinfo(samples.dtype).max)
    return torch.from_numpy(np.array(samples, np.float64).reshape(len(samples), -1).T.copy()), rate


def write_wav(path: Path, signal: Tensor, rate: int) -> None:
    samples = (signal.clamp(-1, 1) * 32767).round().to(torch.int16).T.numpy()
    with writing(path) as temporary:
        scipy.io.wavfile.write(temporary, rate, samples)


def gaps(total: int, length: int, count: int, seed: int) -> Tensor:
    """A mask with so many gaps, one in the middle half of each equal part of the signal."""
    generator = np.random.default_rng(seed)
    observed, part = torch.ones(total, dtype=torch.bool), total // count
    for k in range(count):
        start = k * part + part // 4 + int(generator.integers(max(part // 2 - length, 1)))
        observed[start : start + length] = False
    return observed


def clicks(total: int, most: int, every: int, seed: int) -> Tensor:
    """A mask with one run of 1 to ``most`` missing samples in each part of ``every``."""
    generator, observed = np.random.default_rng(seed), torch.ones(total, dtype=torch.bool)
    for part in range(0, total - every, every):
        start, length = part + int(generator.integers(every - most)), int(generator.integers(1, most + 1))
        observed[start : start + length] = False
    return observed


def masks(total: int, rate: int, options: argparse.Namespace) -> dict[str, Tensor]:
    """Name to a mask, True = known."""
    found = {}
    for share in options.missing:
        scattered = np.random.default_rng(options.seed).random(total) >= share
        found[f"{share:.0%} scattered"] = torch.from_numpy(scattered)
    for length in options.gaps:
        found[f"gaps of {length:g} ms"] = gaps(total, round(length * rate / 1000), options.count, options.seed)
    if options.clicks:
        found[f"clicks up to {options.clicks}"] = clicks(total, options.clicks, 5 * options.clicks, options.seed)
    return found


def flowing(signal: Tensor, observed: Tensor, estimate: Tensor) -> Tensor:
    """A group flow behind an estimate."""
    flow = GroupFlow.for_share(float(observed.double().mean()), ndim=1)
    return torch.where(observed, signal, flow.refine(Observed.of(signal, observed, 1), estimate[None])[0])


def interpolated(signal: Tensor, observed: Tensor, kind: str) -> Tensor:
    known = observed.nonzero()[:, 0].numpy()
    if kind == "linear":
        lines = [np.interp(np.arange(len(observed)), known, channel[known]) for channel in signal.numpy()]
        filled = torch.from_numpy(np.stack(lines))
    else:
        spline = scipy.interpolate.CubicSpline(known, signal[:, observed].numpy(), axis=1)
        filled = torch.from_numpy(spline(np.arange(len(observed))))
    return torch.where(observed, signal, filled)


def groups(wanted: Tensor, longest: int) -> list[slice]:
    """Parts of the signal that hold all wanted samples; gaps that are near each other share one."""
    places = wanted.nonzero()[:, 0].tolist()
    found: list[list[int]] = []
    for place in places:
        adjacent = bool(found) and place == found[-1][1] + 1
        if found and (adjacent or place - found[-1][0] < longest):
            found[-1][1] = place
        else:
            found.append([place, place])
    return [slice(first, last + 1) for first, last in found]


def by_autocorrelation(
    signal: Tensor, observed: Tensor, first: Tensor, slope: float, around: int, passes: int, parts: list[slice]
) -> Tensor:
    """Fill parts of a signal, each by the autocorrelation of what is within ``around`` samples of it."""
    filled = first.clone()
    network = tc.autocorrelation_network(1, slope)
    for part in parts:
        near = slice(max(part.start - around, 0), min(part.stop + around, len(observed)))
        estimate = tc.autocorrelation_passes(signal[:, near], observed[near], first[:, near], passes, network=network)
        filled[:, part] = estimate[:, part.start - near.start : part.stop - near.start]
    return torch.where(observed, signal, filled)


def chosen_slope(signal: Tensor, observed: Tensor, around: int, passes: int, seed: int) -> float:
    """The slope that fills copies of the gaps best, in places where all is observed; a few of them stand for all."""
    shift = int(np.random.default_rng(seed).integers(len(observed) // 8, len(observed) // 4))
    left_out = observed & ~observed.roll(shift)
    seen = observed & ~left_out
    if not bool(left_out.any()) or not bool(seen.any()):
        return SLOPES[0]
    parts = groups(left_out, around)
    parts = parts[:: math.ceil(len(parts) / MOST_TRIALS)]
    judged = torch.zeros_like(left_out)
    for part in parts:
        judged[part] = left_out[part]
    first = tc.inpaint(torch.where(seen, signal, 0), seen).image
    return max(
        SLOPES,
        key=lambda slope: snr(by_autocorrelation(signal, seen, first, slope, around, passes, parts), signal, ~judged),
    )


def snr(filled: Tensor, signal: Tensor, observed: Tensor) -> float:
    """Signal-to-noise ratio over the missing samples in dB."""
    noise = (filled - signal)[:, ~observed].square().sum()
    return 10 * math.log10(float(signal[:, ~observed].square().sum() / noise))


def methods(signal: Tensor, observed: Tensor, rate: int, options: argparse.Namespace) -> dict[str, Callable]:
    """Name to what gives (the filled signal, what it chose)."""
    hidden = torch.where(observed, signal, 0)
    around = round(options.around * rate / 1000)
    parts = groups(~observed, around)

    def guided() -> tuple[Tensor, str]:
        result = tc.inpaint(hidden, observed, passes="auto")
        return result.image, f"{result.passes} passes"

    def autocorrelation(slope: float | None) -> tuple[Tensor, str]:
        slope = slope or chosen_slope(hidden, observed, around, options.passes, options.seed)
        first = tc.inpaint(hidden, observed).image
        return by_autocorrelation(hidden, observed, first, slope, around, options.passes, parts), f"slope {slope:g}"

    found: dict[str, Callable] = {
        "linear": lambda: (interpolated(hidden, observed, "linear"), ""),
        "cubic": lambda: (interpolated(hidden, observed, "cubic"), ""),
        "CNTK": lambda: (tc.inpaint(hidden, observed).image, ""),
        "CNTK, guided": guided,
        "Wiener": lambda: autocorrelation(1.0),
        "CNTK, autocorrelation": lambda: autocorrelation(None),
    }
    if options.flow:
        found["CNTK, quick"] = lambda: (tc.inpaint(hidden, observed, passes="quick").image, "no trials")
        found["CNTK, autocorrelation, flow"] = lambda: (flowing(hidden, observed, autocorrelation(None)[0]), "")
    return found


def picture(path: Path, signal: Tensor, shown: dict[str, tuple[Tensor, dict[str, Tensor]]], rate: int) -> None:
    """One gap of each mask: the truth, and what was filled in."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.8 * len(shown)), layout="constrained")
    for axes, (name, (observed, filled)) in zip(
        figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown.items(), strict=True
    ):
        missing = (~observed).nonzero()[:, 0]
        middle = int(missing[len(missing) // 2])
        part = slice(max(middle - rate // 50, 0), middle + rate // 50)
        times = np.arange(part.start, min(part.stop, len(observed))) / rate * 1000
        axes.plot(times, torch.where(observed, signal[0], torch.nan)[part], color="black", lw=1.5, label="observed")
        axes.plot(times, signal[0, part], color="black", lw=0.8, ls=":", label="truth")
        for method, colour in (("cubic", "tab:orange"), ("CNTK", "tab:green"), ("CNTK, autocorrelation", "tab:blue")):
            missing = torch.where(observed, torch.nan, filled[method][0])
            axes.plot(times, missing[part], ".-", ms=2, color=colour, lw=0.8, label=method)
        axes.set_ylim(*(1.5 * float(v) for v in signal[0, part].aminmax()))
        axes.set_title(name, fontsize=9)
    axes.set_xlabel("ms")
    figure.axes[0].legend(fontsize=7, ncols=5, loc="upper right")
    with writing(path) as temporary:
        figure.savefig(temporary, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="WAV file; a made-up signal by default")
    parser.add_argument("-o", "--output", type=Path, default=Path("audio"), help="folder of what is written")
    parser.add_argument("--rates", type=int, nargs="+", help="samples a second of the made-up signal")
    parser.add_argument("--seconds", type=float, default=2.0, help="of the made-up signal")
    parser.add_argument("--gaps", type=float, nargs="*", default=[1, 2, 5, 10, 20], help="lengths in ms")
    parser.add_argument("--missing", type=float, nargs="*", default=[0.5, 0.8], help="shares of scattered samples")
    parser.add_argument("--count", type=int, default=20, help="gaps of each length")
    parser.add_argument("--around", type=float, default=60.0, help="ms at either side of a gap that are looked at")
    parser.add_argument("--passes", type=int, default=4, help="each with the autocorrelation of the last estimate")
    parser.add_argument("--clicks", type=int, default=0, help="longest runs of missing samples in a mask of clicks")
    parser.add_argument("--flow", action="store_true", help='also passes="quick", and a group flow behind the last')
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fast", action="store_true", help="short: to see that it works")
    options = parser.parse_args()
    if options.fast:
        options.seconds, options.gaps, options.missing, options.count, options.passes = 0.4, [2], [0.5], 3, 2
        options.rates = options.rates or [8000]

    options.output.mkdir(parents=True, exist_ok=True)
    if options.file is not None:
        signal, rate = read_wav(options.file)
        signals = {rate: signal}
    else:
        signals = {rate: made_up(rate, options.seconds, options.seed) for rate in options.rates or [8000, 16000]}
    table = [
        (rate, name, observed)
        for rate, signal in signals.items()
        for name, observed in masks(signal.shape[1], rate, options).items()
    ]
    rows, shown = [], {}
    with tqdm(total=(8 if options.flow else 6) * len(table), desc="filling", unit="signal") as bar:
        for rate, name, observed in table:
            signal, filled = signals[rate], {}
            for method, fill in methods(signal, observed, rate, options).items():
                start = time.perf_counter()
                filled[method], chose = fill()
                seconds = time.perf_counter() - start
                rows.append([rate, name, method, snr(filled[method], signal, observed), seconds, chose])
                bar.update()
            stem = f"{rate}-{name.replace(' ', '-').replace('%', '')}"
            write_wav(options.output / f"{stem}-missing.wav", torch.where(observed, signal, 0), rate)
            write_wav(options.output / f"{stem}-filled.wav", filled["CNTK, autocorrelation"], rate)
            if rate == max(signals):
                shown[name] = observed, filled
    picture(options.output / "audio.png", signals[max(signals)], shown, max(signals))
    with writing(options.output / "audio.csv") as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([["rate", "missing", "method", "snr_db", "seconds", "chose"], *rows])
    print("signal-to-noise ratio over the missing samples, dB")
    for rate, name, _ in table:
        scores = {row[2]: row[3] for row in rows if row[:2] == [rate, name]}
        print(f"{rate:6d} Hz  {name:15s}  " + "  ".join(f"{method} {score:.2f}" for method, score in scores.items()))


if __name__ == "__main__":
    main()
