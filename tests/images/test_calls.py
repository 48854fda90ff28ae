"""The ways to call: files, names, arrays as scikit-image takes them, a module; and what results say of themselves."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.restoration
import torch
import torchvision.transforms
import torchvision.transforms.v2
from PIL import Image

import torch_cntk as tc
from torch_cntk._internal.brief import in_short
from torch_cntk.images import Inpaint, inpaint_array, read_image
from torch_cntk.priors import named_prior

NAME = "uniform-3x128-leaky0.1"
KERNEL = tc.load_kernel(NAME)
RANDOM = np.random.default_rng(18)
HEIGHT, WIDTH = 24, 26


def smooth(channels: int = 3) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    layers = [120 + 60 * np.sin(columns / 9), 128 + 60 * np.cos(rows / 11), 90.0 + columns]
    return np.stack(layers[:channels], -1)


def hole() -> np.ndarray:
    missing = np.zeros((HEIGHT, WIDTH), bool)
    row, column = RANDOM.integers(1, 15, 2)
    missing[row : row + 6, column : column + 6] = True
    return missing


def image_and_mask() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(smooth() / 255).permute(2, 0, 1).float(), torch.from_numpy(~hole())


def last(array: np.ndarray, axis: int | None) -> np.ndarray:
    """The channels behind the rows and columns."""
    return array if axis is None else np.moveaxis(array, axis, -1)


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64", ">u2", ">f4"]
)
@pytest.mark.parametrize("axis", [None, -1, 0, 1])
def test_arrays_keep_their_dtype_and_form(dtype: str, axis: int | None) -> None:
    image = smooth() if axis is not None else smooth()[..., 0]
    image = (image if axis is None else np.moveaxis(image, -1, axis)).astype(dtype)
    missing = hole()
    before = image.copy()
    damaged = np.moveaxis(image, axis, -1).copy() if axis is not None else image.copy()
    damaged[missing] = 0
    damaged = damaged if axis is None else np.moveaxis(damaged, -1, axis)
    filled = inpaint_array(damaged, missing, channel_axis=axis)
    assert (filled.dtype, filled.shape) == (image.dtype, image.shape)
    assert np.array_equal(image, before)
    assert np.array_equal(last(filled, axis)[~missing], last(image, axis)[~missing])
    assert np.abs(last(filled, axis).astype(float) - last(image, axis).astype(float)).max() < 20


def test_arrays_are_filled_as_inpaint_does() -> None:
    image, missing = smooth() / 255, hole()
    expected = tc.inpaint(torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(~missing), KERNEL).image
    found = inpaint_array(image, missing, channel_axis=-1, kernel=KERNEL)
    assert np.allclose(found, expected.permute(1, 2, 0).numpy(), rtol=0, atol=1e-9)  # sums in another order
    levels = inpaint_array((image * 255).astype(np.uint8), missing, channel_axis=2, kernel=NAME)
    assert np.abs(levels / 255 - found).max() < 2 / 255


def test_the_call_is_that_of_scikit_image() -> None:
    image, missing = smooth() / 255, hole()
    other = skimage.restoration.inpaint_biharmonic(image, missing, channel_axis=-1)
    found = inpaint_array(image, missing, channel_axis=-1)
    assert found.shape == other.shape
    assert np.abs(found - other).max() < 0.1  # of a smooth picture both give the same
    assert np.array_equal(inpaint_array(image, missing.astype(np.uint8), channel_axis=-1), found)


@pytest.mark.parametrize("shape", [(40,), (3, 40), (3, 3, 40), (3, 10, 12), (3, 3, 10, 12)])
def test_signals_and_videos_of_few_channels(shape: tuple[int, ...]) -> None:
    """Also where a mask would fit more than one number of dimensions."""
    axis = None if len(shape) == 1 or shape == (3, 10, 12) else 0
    image = RANDOM.random(shape)
    size = shape if axis is None else shape[1:]
    missing = RANDOM.random(size) < 0.2
    missing.flat[0], missing.flat[-1] = False, True
    found = inpaint_array(np.where(missing, np.nan, image), missing, channel_axis=axis)
    assert np.isfinite(found).all()
    assert np.array_equal(found[..., ~missing], image[..., ~missing])


@pytest.mark.parametrize(
    ("image", "mask", "axis", "error", "match"),
    [
        ([[1.0]], [[True]], None, TypeError, "expected the image as an array .*, got list"),
        (np.zeros((4, 4), bool), np.zeros((4, 4), bool), None, TypeError, "got one of bool"),
        (
            np.zeros((4, 4, 3)),
            np.zeros((4, 4), bool),
            None,
            ValueError,
            r"mask of shape \(4, 4, 3\), .*channel_axis says",
        ),
        (np.zeros((4, 4, 3)), np.zeros((4, 4), bool), 0, ValueError, r"mask of shape \(4, 3\)"),
        (
            np.zeros((4, 4)),
            np.zeros((4, 4), bool),
            2,
            ValueError,
            "channel_axis to be a dimension of an array of 2, got 2",
        ),
        (np.zeros((2,) * 5), np.zeros((2,) * 5, bool), None, ValueError, "one to three dimensions"),
        (np.zeros((4, 4)), np.zeros((4, 4)), None, TypeError, "boolean"),
        (np.zeros((4, 4)), np.ones((4, 4), bool), None, ValueError, "at least one observed pixel"),
    ],
)
def test_arrays_that_are_refused(image: Any, mask: Any, axis: int | None, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        inpaint_array(image, mask, channel_axis=axis)


def test_solvers_by_name() -> None:
    image, observed = image_and_mask()
    solvers: dict[Any, Any] = {"cg": tc.ConjugateGradient(), "direct": tc.Direct(), "eigenpro": tc.EigenPro()}
    for name, solver in solvers.items():
        expected = tc.inpaint(image, observed, KERNEL, solver=solver).image
        assert torch.equal(tc.inpaint(image, observed, NAME, solver=name).image, expected)
    with pytest.raises(ValueError, match='one of "auto", "direct", "cg", "eigenpro", got \'gauss\''):
        tc.inpaint(image, observed, solver="gauss")  # type: ignore[arg-type]


def test_priors_by_name() -> None:
    net = tc.Sequential(tc.Conv2d(2, 4, 3), tc.ReLU(), tc.Conv2d(4, 1, 3))
    for name, prior in (("uniform", tc.priors.Uniform()), ("Normal", tc.priors.Normal())):
        assert repr(named_prior(name)) == repr(prior)
        assert torch.equal(net.kernel(name, (8, 8)).dense((8, 8)), net.kernel(prior, (8, 8)).dense((8, 8)))
    with pytest.raises(ValueError, match=r"one of the names .*'uniform'.*, got 'unifrom'"):
        net.kernel("unifrom")
    with pytest.raises(ValueError, match=r"such as priors\.White\(\.\.\.\), got 'white'"):
        net.kernel("white")
    result = tc.train(net, torch.rand(1, 8, 8), prior="normal", steps=1)
    assert result.image.shape == (1, 8, 8)


def test_results_are_short() -> None:
    image, observed = image_and_mask()
    result = tc.inpaint(image, observed, KERNEL)
    assert repr(result).startswith(f"InpaintingResult(image=float32 [3, {HEIGHT}, {WIDTH}], residual=")
    assert "converged=True" in repr(result)
    given = tc.images.Observed.of(image, observed)
    filled = tc.images.fill(given, tc.images.Periodic(KERNEL))
    assert all(len(repr(one)) < 400 for one in (result, given, filled, filled.solution))
    assert in_short(torch.tensor(1.23456)) == "1.235"
    assert in_short(np.zeros((2, 3), np.uint8)) == "uint8 [2, 3]"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.chdir(tmp_path)
    missing = hole()
    values = smooth().astype(np.uint8)
    exif = Image.Exif()
    exif[0x8298] = "(c) nobody"
    Image.fromarray(values).save("photo.png", dpi=(300, 300), exif=exif)
    Image.fromarray(values).save("photo.jpg", quality=80)
    Image.fromarray(np.dstack([values, np.where(missing, 0, 255).astype(np.uint8)])).save("erased.png")
    Image.fromarray(np.where(missing, 0, 255).astype(np.uint8)).save("mask.png")
    return missing


@pytest.mark.parametrize("as_path", [str, Path])
def test_files_in_and_out(files: np.ndarray, as_path: type) -> None:
    result = tc.inpaint(as_path("photo.png"), as_path("mask.png"))
    expected = tc.inpaint(read_image("photo.png").pixels, torch.from_numpy(~files)).image
    assert torch.equal(result.image, expected)
    assert len(repr(result)) < 400
    result.save(as_path("out.png"))
    with Image.open("out.png") as out:
        assert out.getexif()[0x8298] == "(c) nobody"
        assert out.info["dpi"] == pytest.approx((300, 300), rel=1e-3)
        assert np.array_equal(np.asarray(out)[~files], smooth().astype(np.uint8)[~files])
    for mask in (torch.from_numpy(~files), ~files):
        assert torch.equal(tc.inpaint("photo.png", mask).image, expected)
    assert torch.equal(tc.inpaint(read_image("photo.png").pixels, "mask.png").image, expected)


def test_files_with_transparency_and_of_jpeg(files: np.ndarray) -> None:
    result = tc.inpaint("erased.png")
    result.save("out.png")
    assert (np.asarray(Image.open("out.png"))[..., 3] == 255).all()
    result = tc.inpaint("photo.jpg", "mask.png")
    # What JPEG has smeared around the hole is filled as well.
    changed = (result.image != read_image("photo.jpg").pixels).any(0)
    assert int(changed.sum()) > files.sum()
    result.save("out.jpg")
    with Image.open("photo.jpg") as before, Image.open("out.jpg") as after:
        assert before.quantization == after.quantization  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"transparent pixels, got none of them: photo\.png"):
        tc.inpaint("photo.png")
    with pytest.raises(ValueError, match=r"expected observed of shape \(24, 26\)"):
        tc.inpaint("photo.png", torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        tc.inpaint("nothing.png")


def test_saving_what_is_no_file(tmp_path: Path) -> None:
    image, observed = image_and_mask()
    for given in (image, image.numpy(), image[0], image[None], image.half()):
        tc.inpaint(given, observed, KERNEL).save(tmp_path / "a.png")
        read = read_image(tmp_path / "a.png").pixels
        assert torch.allclose(read, image[: len(read)], atol=0.05)
    with pytest.raises(ValueError, match=r"values in \[0, 1\] to save, got .*result.image / 255"):
        tc.inpaint(255 * image, observed, KERNEL).save(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"one image .* got \(2, 3, 24, 26\)"):
        tc.inpaint(image.expand(2, -1, -1, -1), observed, KERNEL).save(tmp_path / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_the_module_is_inpaint() -> None:
    image, observed = image_and_mask()
    batch = torch.stack([image, 1 - image])
    masks = torch.stack([observed, observed.flip(0)])
    module = Inpaint(kernel=NAME)
    assert torch.equal(module(image, observed), tc.inpaint(image, observed, KERNEL).image)
    expected = tc.inpaint(batch, masks, KERNEL).image
    assert torch.equal(module(batch, masks), expected)
    assert torch.equal(module(batch, masks[:, None]), expected)
    assert torch.equal(module(torch.where(masks[:, None], batch, torch.nan)), expected)
    assert torch.equal(Inpaint(observed, kernel=NAME)(batch), tc.inpaint(batch, observed, KERNEL).image)
    levels = (255 * batch).round().to(torch.uint8)
    filled = module(levels, masks)
    assert filled.dtype == torch.uint8
    assert torch.equal(filled[masks[:, None].expand_as(filled)], levels[masks[:, None].expand_as(levels)])
    assert float((filled / 255 - expected).abs().max()) < 0.02
    assert module(image.requires_grad_(), observed).requires_grad


def test_the_module_says_its_options() -> None:
    assert repr(Inpaint()) == "Inpaint()"
    mask = torch.ones(4, 5, dtype=torch.bool)
    assert repr(Inpaint(mask, kernel=NAME, passes=2)) == f"Inpaint(observed=[4, 5], kernel={NAME}, passes=2)"
    with pytest.raises(ValueError, match=r"\[H, W\] for every image, got \(1, 4, 5\)"):
        Inpaint(mask[None])
    with pytest.raises(TypeError, match="boolean"):
        Inpaint(mask.float())


@pytest.mark.parametrize("transforms", [torchvision.transforms, torchvision.transforms.v2])
def test_the_module_is_a_transform(transforms: Any) -> None:
    image, observed = image_and_mask()
    pipeline = transforms.Compose([Inpaint(observed, kernel=NAME), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    expected = (tc.inpaint(image, observed, KERNEL).image - 0.5) / 0.5
    assert torch.allclose(pipeline(image), expected)
    assert torch.allclose(pickle.loads(pickle.dumps(pipeline))(image), expected)


def test_the_module_fills_two_inputs_of_a_pipeline() -> None:
    image, observed = image_and_mask()
    pipeline = torchvision.transforms.v2.Compose([Inpaint(kernel=NAME)])
    assert torch.equal(pipeline(image, observed), tc.inpaint(image, observed, KERNEL).image)


class Damaged(torch.utils.data.Dataset[torch.Tensor]):
    """Images whose pixels are NaN where they are missing."""

    def __init__(self) -> None:
        image, observed = image_and_mask()
        self.images = [torch.where(observed, image + k / 10, torch.nan) for k in range(4)]
        self.transform = Inpaint(kernel=NAME)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        filled: torch.Tensor = self.transform(self.images[index])
        return filled


@pytest.mark.parametrize("workers", [0, 1])
def test_the_module_in_a_data_loader(workers: int) -> None:
    data = Damaged()
    batches = list(torch.utils.data.DataLoader(data, batch_size=2, num_workers=workers))
    expected = torch.stack([tc.inpaint(image, None, KERNEL).image for image in data.images])
    assert torch.allclose(torch.cat(batches), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("image", "error", "match"),
    [
        (np.zeros((3, 4, 4)), TypeError, "got ndarray; ToTensor makes one"),
        (torch.zeros(3, 4, 4, dtype=torch.bool), TypeError, "got torch.bool"),
        (torch.zeros(4, 4), ValueError, r"got \(4, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), ValueError, "expected observed beside an image of torch.uint8"),
    ],
)
def test_what_the_module_refuses(image: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Inpaint()(image)
