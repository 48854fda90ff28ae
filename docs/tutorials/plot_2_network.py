"""
One network, read two ways
==========================

A network of ``torch_cntk`` is a ``torch.nn.Module``. Run forward, it is a network of finite width that you can train.
The same object also computes the *exact* kernel of the network whose layers are infinitely wide. This page defines a
network once and compares the two.
"""

# %%
# Define it once
# --------------
# The layers have the names of ``torch.nn``. Convolutions are circular unless you say otherwise.
import matplotlib.pyplot as plt
import skimage.data
import torch

import torch_cntk as tc

net = tc.Sequential(
    tc.StridedConv2d(8, 32, 3),
    tc.LeakyReLU(0.1),
    tc.Conv2d(32, 32, 3),
    tc.LeakyReLU(0.1),
    tc.BilinearUp(2),
    tc.Conv2d(32, 32, 3),
    tc.LeakyReLU(0.1),
    tc.Conv2d(32, 1, 1),
)
print(net)

# %%
# The input of such a network is noise, as in the deep image prior. A *feature prior* says what its covariance is; it
# also draws the noise.
prior = tc.priors.Uniform(0, 0.1)
noise = prior.sample(8, size=(64, 64), generator=torch.Generator().manual_seed(0))
print(net(noise[None]).shape)

# %%
# The finite network, trained
# ---------------------------
# We keep a third of the pixels of a photograph and fit the network to them with Adam.
photograph = torch.from_numpy(skimage.data.camera()[64:128, 192:256].copy())[None] / 255
observed = torch.rand(64, 64, generator=torch.Generator().manual_seed(1)) < 1 / 3
trained = tc.train(net, photograph, observed, prior=prior, steps=200, lr=0.01, seed=2)
print(f"loss after {len(trained.losses)} steps: {float(trained.losses[-1]):.5f}")

# %%
# The infinite network, solved
# ----------------------------
# The neural tangent kernel (NTK) between two pixels of the output is the limit of the inner product of their gradients
# with respect to all parameters. Training an infinitely wide network to the end is kernel regression with it.
kernel = net.kernel(prior)
solved = tc.inpaint(photograph, observed, kernel)
print(f"period {kernel.period}, radius {kernel.radius}, {kernel.nbytes} bytes, whatever the size of the image")


def psnr(estimate: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of the missing pixels, in dB."""
    return float(-10 * torch.log10((estimate - photograph)[:, ~observed].square().mean()))


pictures = {
    "observed": torch.where(observed, photograph, torch.ones(())),
    f"trained: {psnr(trained.image):.1f} dB": trained.image,
    f"infinitely wide: {psnr(solved.image):.1f} dB": solved.image,
    "the truth": photograph,
}
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    axis.imshow(picture[0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(title)
    axis.axis("off")

# %%
# Do they agree?
# --------------
# The kernel of finite networks is random; its mean approaches the exact one as the width grows. ``empirical_ntk`` is
# the kernel of one finite network, by autograd, for one input ``z``.
z = prior.sample(8, size=(8, 8), generator=torch.Generator().manual_seed(3))
exact = net.kernel(tc.priors.Tensor(z)).dense(size=(8, 8)).flatten(2).flatten(0, 1)
widths = (8, 32, 128)
distances = []
for width in widths:
    finite = tc.with_width(net, width)
    draws = []
    for seed in range(4):
        torch.manual_seed(seed)
        for layer in finite.modules():
            if isinstance(layer, tc.Conv2d):
                layer.reset_parameters()
        draws.append(tc.empirical_ntk(finite, z).flatten(2).flatten(0, 1))
    difference = torch.stack(draws).mean(0) - exact
    distances.append(float(difference.norm() / exact.norm()))
figure, axis = plt.subplots(figsize=(4.5, 3.2), layout="constrained")
axis.loglog(widths, distances, "o-")
axis.set(xlabel="channels", ylabel="relative distance to the exact kernel")

# %%
# Models of your own
# ------------------
# A model that is written in ``torch.nn`` is brought in with its weights by :func:`torch_cntk.from_torch`, and refused
# by name and place where the kernel would not be exact. See :doc:`/conversion`.
