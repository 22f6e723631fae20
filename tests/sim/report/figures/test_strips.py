from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from sim.report.figures.strips import StripRow, draw_strips
from tests.sim.report.figures.drawings import assert_drawn, noise


def test_strips_are_written_as_png_and_pdf(tmp_path: Path) -> None:
    rows = [
        StripRow("Plain", noise(3), None),
        StripRow("Protected (alpha = 0.005)", noise(2, 16), ["5.86 dB", "5.42 dB"]),
    ]
    draw_strips(tmp_path / "strips", rows, "user 3")
    assert_drawn(tmp_path / "strips")


def test_every_pixel_of_a_strip_image_covers_equally_many_pixels_of_the_png(tmp_path: Path) -> None:
    image = noise(1)
    draw_strips(tmp_path / "strips.png", [StripRow("Plain", image, ["13.25 dB"])])
    picture = (imread(tmp_path / "strips.png")[..., :3] * 255).round().astype(np.uint8)
    expected = image[0].permute(1, 2, 0).numpy().repeat(20, axis=0).repeat(20, axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(picture, expected.shape)[:, :, 0]
    # Compared at a few places first: all windows in full are hundreds of megabytes.
    corners = [(0, 0), (0, 159), (159, 0), (159, 159), (80, 19), (80, 20)]
    places = np.logical_and.reduce([(windows[:, :, y, x] == expected[y, x]).all(-1) for y, x in corners])
    assert [bool((windows[y, x] == expected).all()) for y, x in np.argwhere(places)] == [True]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one row"),
        ([StripRow("Plain", noise(2), ["one"])], "'Plain': 1 captions for 2 images"),
        ([StripRow("Plain", noise(2).float(), None)], r"must be uint8 \(K, 3, H, W\), not torch.float32"),
    ],
)
def test_rows_that_make_no_strip_are_refused(tmp_path: Path, rows: list[StripRow], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_strips(tmp_path / "strips", rows)
    assert list(tmp_path.iterdir()) == []
