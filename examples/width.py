"""Finite networks approach the exact kernel: ``python examples/width.py -o width.png``.

Left: the distance of the NTK of networks of finite width to the exact one, against width, with the line 1/sqrt(width).
Right: the loss of a wide network trained by gradient descent, with that of the exact kernel's closed form on top.
Needs matplotlib: pip install 'torch-cntk[examples]'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import torch_cntk as tc


def network(width: int) -> tc.Sequential:
    """Down, up, and a skip connection around."""
    deep = [tc.StridedConv2d(width, width, 3), tc.ReLU(), tc.NearestUp(2), tc.Conv2d(width, width, 3), tc.ReLU()]
    return tc.Sequential(
        tc.Conv2d(2, width, 3),
        tc.ReLU(),
        tc.Concat(tc.Sequential(tc.Conv2d(width, width, 1), tc.ReLU()), tc.Sequential(*deep)),
        tc.Conv2d(2 * width, width, 3),
        tc.ReLU(),
        tc.Conv2d(width, 1, 1),
    ).double()


def drawn(net: tc.Sequential, generator: torch.Generator) -> tc.Sequential:
    """The same network with new weights."""
    for module in net.modules():
        if isinstance(module, tc.Conv2d | tc.StridedConv2d):
            module.reset_parameters(generator)
    return net


def distances(z: Tensor, widths: list[int], draws: int, generator: torch.Generator) -> list[float]:
    """Root of the mean squared relative distance to the exact kernel, for each width; more draws of narrow networks."""
    exact = network(1).kernel(tc.priors.Tensor(z)).dense()
    found = []
    for width in widths:
        net = network(width)
        count = draws * max(1, 128 // width)
        errors = [tc.empirical_ntk(drawn(net, generator), z) - exact for _ in range(count)]
        found.append(float(torch.stack(errors).square().sum((1, 2, 3, 4)).mean().sqrt() / exact.norm()))
        print(f"width {width:5d}: off by {found[-1]:.4f}, times sqrt(width) {found[-1] * width**0.5:.3f}")
    return found


def curves(z: Tensor, width: int, steps: int, generator: torch.Generator) -> tuple[list[float], list[float], float]:
    """Losses of a trained network and of the exact kernel, and their largest difference over the first loss."""
    net = drawn(network(width), generator)
    image = torch.rand(1, *z.shape[1:], generator=generator, dtype=z.dtype)
    observed = torch.rand(z.shape[1:], generator=generator) < 0.6
    start = net(z[None])[0].detach()
    flow = tc.LinearisedTraining(net.kernel(tc.priors.Tensor(z)), image, observed, start)
    rate = 0.05 * flow.largest_rate
    losses = []
    for _ in range(steps):
        net.zero_grad()
        loss = 0.5 * (net(z[None])[0] - image)[:, observed].square().sum()
        loss.backward()
        losses.append(float(loss.detach()))
        with torch.no_grad():
            for parameter in net.parameters():
                assert parameter.grad is not None
                parameter.sub_(rate * parameter.grad)
    exact = [flow.loss(rate * step) for step in range(steps)]
    apart = max(abs(a - b) for a, b in zip(losses, exact, strict=True)) / losses[0]
    trained, predicted = net(z[None])[0].detach(), flow.predict(rate * steps)
    off = float((trained - predicted).norm() / (trained - start).norm())
    print(f"width {width}, {steps} steps: losses differ by at most {apart:.3f} of the first one")
    print(f"the trained network's image is off by {off:.3f} of what training has changed")
    return losses, exact, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("width.png"), help="the plot")
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32, 64, 128, 256])
    parser.add_argument("--draws", type=int, default=8, help="networks of the widest kinds")
    parser.add_argument("--steps", type=int, default=100, help="of gradient descent")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    generator = torch.Generator().manual_seed(arguments.seed)
    z = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    found = distances(z, arguments.widths, arguments.draws, generator)
    losses, exact, rate = curves(z, arguments.widths[-1], arguments.steps, generator)

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    line = [found[-1] * (arguments.widths[-1] / width) ** 0.5 for width in arguments.widths]
    left.loglog(arguments.widths, found, "o-", label="networks, root mean square")
    left.loglog(arguments.widths, line, "--", label="1 / sqrt(width)")
    left.set(xlabel="width", ylabel="relative distance to the exact kernel")
    times = [rate * step for step in range(arguments.steps)]
    right.semilogy(times, losses, label=f"gradient descent, width {arguments.widths[-1]}")
    right.semilogy(times, exact, "--", label="exact kernel, closed form")
    right.set(xlabel="learning rate times steps", ylabel="loss on the observed pixels")
    for axes in (left, right):
        axes.legend()
    figure.savefig(arguments.output, dpi=100)
    print(f"the plot: {arguments.output}")


if __name__ == "__main__":
    main()
