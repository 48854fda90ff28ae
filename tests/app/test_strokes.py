"""From strokes on a small copy to pixels of the photograph, and back."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch

from torch_cntk.app.heat_maps import around, coloured, enlarged, in_words, nearby
from torch_cntk.app.strokes import colours, on_copy, painted, shown
from torch_cntk.images.files import Metadata, Photograph


def layer(height: int, width: int, *cells: tuple[int, int], opacity: int = 255) -> np.ndarray:
    made = np.zeros((height, width, 4), np.uint8)
    for row, column in cells:
        made[row, column, 3] = opacity
    return made


def overlapping(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels of an image that overlap a painted cell, from the edges of both as fractions of the side."""
    expected = np.zeros(size, bool)
    for row, column in np.argwhere(cells):
        for i in range(size[0]):
            for j in range(size[1]):
                rows = i * cells.shape[0] < (row + 1) * size[0] and row * size[0] < (i + 1) * cells.shape[0]
                columns = j * cells.shape[1] < (column + 1) * size[1] and column * size[1] < (j + 1) * cells.shape[1]
                expected[i, j] |= rows and columns
    return expected


@pytest.mark.parametrize("size", [(7, 9), (14, 18), (17, 11), (3, 4), (23, 40)])
def test_a_stroke_touches_all_pixels_under_it(size: tuple[int, int], generator: torch.Generator) -> None:
    cells = (torch.rand(7, 9, generator=generator) < 0.2).numpy()
    strokes = layer(7, 9, *map(tuple, np.argwhere(cells)))
    assert np.array_equal(painted([strokes], size).numpy(), overlapping(cells, size))


def test_faint_strokes_and_several_layers_count() -> None:
    both = painted([layer(4, 5, (1, 2), opacity=1), layer(4, 5, (3, 4))], (4, 5))
    assert both.nonzero().tolist() == [[1, 2], [3, 4]]
    assert not bool(painted([], (4, 5)).any())
    with pytest.raises(ValueError, match="layers of shape"):
        painted([np.zeros((4, 5, 3), np.uint8)], (4, 5))


@pytest.mark.parametrize(
    ("size", "small"), [((100, 60), (100, 60)), ((2560, 1920), (1280, 960)), ((10, 3000), (4, 1280))]
)
def test_large_photographs_are_shown_smaller(size: tuple[int, int], small: tuple[int, int]) -> None:
    assert shown(torch.full((1, *size), 0.5)).shape == (*small, 3)


def test_colours_and_opacity_are_shown(generator: torch.Generator) -> None:
    pixels = torch.rand(3, 5, 6, generator=generator) * 3 - 1
    alpha = torch.randint(0, 65536, (1, 5, 6), generator=generator).to(torch.uint16)
    image = shown(colours(Photograph(pixels, alpha)), alpha)
    assert np.array_equal(image[..., :3], (pixels.clamp(0, 1) * 255).round().permute(1, 2, 0).numpy())
    assert np.array_equal(image[..., 3], np.round(alpha[0].numpy() / 65535 * 255))
    half = (alpha.double() / 65535).half()
    assert np.abs(shown(pixels[:1].clamp(0, 1), half)[..., 3].astype(int) - image[..., 3]).max() <= 1


def test_ink_lightness_and_large_numbers_are_shown(generator: torch.Generator) -> None:
    ink = torch.rand(4, 5, 6, generator=generator)
    expected = np.asarray(PIL.Image.fromarray((ink * 255).byte().permute(1, 2, 0).numpy(), "CMYK").convert("RGB"))
    # Whole levels of ink, of light and of their product.
    assert np.abs(shown(colours(Photograph(ink))).astype(int) - expected).max() <= 3
    lab = Photograph(torch.rand(3, 5, 6, generator=generator), metadata=Metadata(lab=True))
    assert torch.equal(colours(lab), lab.pixels[:1])
    large = torch.tensor([[[-100.0, float("nan"), 300.0]]])
    real = Photograph(large, metadata=Metadata(real=True, depth=32))
    assert colours(real).tolist() == [[[0, 0, 1]]]
    filled = Photograph(torch.tensor([[[-100.0, 100.0, 300.0]]]), metadata=real.metadata)
    assert colours(filled, real).tolist() == [[[0, 0.5, 1]]]


@pytest.mark.parametrize("size", [(40, 60), (2000, 3000), (1281, 77)])
def test_a_click_finds_the_pixel_under_it(size: tuple[int, int]) -> None:
    height, width = shown(torch.zeros(1, *size)).shape[:2]
    for place in ((0, 0), (height - 1, width - 1), (height // 2, width // 3)):
        found = on_copy(place, size)
        mark = layer(height, width, place)
        assert bool(painted([mark], size)[found])


def test_the_part_around_a_pixel_has_known_ones() -> None:
    observed = torch.zeros(300, 400, dtype=torch.bool)
    observed[:, :5] = True
    (rows, columns), inside = around(observed, (150, 200))
    assert bool(observed[rows, columns].any())
    assert (rows.start + inside[0], columns.start + inside[1]) == (150, 200)
    assert 0 <= rows.start < rows.stop <= 300 and 0 <= columns.start < columns.stop <= 400


def test_heat_maps() -> None:
    weights = np.zeros((20, 30))
    weights[5, 6], weights[5, 8], weights[7, 7] = 0.9, 0.3, -0.2
    image = coloured(weights, torch.zeros(3, 20, 30), (6, 7))
    assert image[5, 6].tolist() == [255, 217, 26]  # yellow
    assert image[7, 7, 2] > image[7, 7, 0] > 0  # blue
    assert image[6, 7].tolist() == [255, 255, 255] and not image[0].any()
    assert enlarged(image).shape == (320, 480, 3)
    weights[19, 29] = 1e-5
    rows, columns = nearby(weights, (6, 7))
    assert (rows.start, rows.stop, columns.start, columns.stop) == (0, 20, 0, 21)
    assert "1 of them, at most 1 pixels away" in in_words(weights, (106, 207), (6, 7))
    assert "row 106, column 207" in in_words(weights, (106, 207), (6, 7))
