"""
A damaged photograph
====================

Somebody has scratched a photograph and stamped a word on it. We mark what is damaged, fill it, and look at how sure we
can be of the result. You need no neural network of your own and no training data.
"""

# %%
# The photograph and the damage
# -----------------------------
# An image is a float tensor ``[channels, height, width]``, here with values in [0, 1]. Any scale of values works.
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import PIL.ImageDraw
import skimage.data
import torch

import torch_cntk as tc

photograph = torch.from_numpy(skimage.data.astronaut()[0:128, 160:288].copy()).permute(2, 0, 1) / 255

# %%
# We make the damage, so that we can compare with the truth: three scratches and a word. In your own picture you would
# paint over what is damaged, in any image editor (see :doc:`/howto/photographs`).
drawing = PIL.Image.new("L", (128, 128), 0)
pen = PIL.ImageDraw.Draw(drawing)
pen.line([(10, 5), (60, 120)], fill=255, width=3)
pen.line([(120, 15), (48, 80), (14, 126)], fill=255, width=2)
pen.arc([28, 20, 120, 112], 200, 330, fill=255, width=2)
pen.text((40, 100), "SAMPLE", fill=255)
damaged = torch.from_numpy(np.array(drawing)) > 0

# %%
# The mask is called ``observed``: boolean, **True = known**.
observed = ~damaged
scratched = torch.where(observed, photograph, torch.ones(()))
print(f"{int(damaged.sum())} of {damaged.numel()} pixels are damaged")

# %%
# Fill it
# -------
# One call. A kernel that suits the size of the holes is chosen for you.
result = tc.inpaint(scratched, observed)
print(result.status.value, "after", result.iterations, "iterations")

# %%
# The first fill knows nothing of this picture: every image gets the same kernel. *Guided passes* compare what surrounds
# two pixels in the last result and fill again. They cost more and are nearly always better.
guided = tc.inpaint(scratched, observed, passes=3)


def psnr(estimate: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of the damaged pixels, in dB: higher is better."""
    error = (estimate - photograph)[:, damaged].square().mean()
    return float(-10 * torch.log10(error))


pictures = {
    "scratched": scratched,
    f"filled: {psnr(result.image):.1f} dB": result.image,
    f"guided: {psnr(guided.image):.1f} dB": guided.image,
    "the truth": photograph,
}
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
    axis.imshow(picture.clamp(0, 1).permute(1, 2, 0))
    axis.set_title(title)
    axis.axis("off")

# %%
# Pixels that were observed come back untouched, to the bit:
assert torch.equal(guided.image[:, observed], scratched[:, observed])

# %%
# How good is it?
# ---------------
# You do not have the truth. So leave some of the observed pixels out, in holes like yours, and fill those too:
# ``leave_out_error`` is the mean squared error there.
kernel = tc.default_kernel(observed)
error = tc.leave_out_error(scratched, observed, lambda image, known: tc.inpaint(image, known, kernel).image)
print(f"expected error of a pixel: {error**0.5:.3f}, where the range of values is 1")

# %%
# Which observed pixels fill a given one? A row of the kernel says how much the network thinks that two pixels have in
# common.
figure, axis = plt.subplots(figsize=(4, 3.4), layout="constrained")
drawn = axis.imshow(kernel.row((32, 32), size=(64, 64)))
axis.set_title("kernel of pixel (32, 32)")
figure.colorbar(drawn)

# %%
# From the command line
# ---------------------
# The same without Python, with the file's metadata, colour profile and bit depth kept::
#
#     torch-cntk inpaint photo.jpg --mask mask.png --passes 3 -o filled.png
