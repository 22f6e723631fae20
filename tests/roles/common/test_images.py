import torch
from hypothesis import given
from hypothesis import strategies as st

from roles.common.images import IMAGENET_MEAN, IMAGENET_STD, normalise, to_bitmap, to_unit


def test_every_grey_level_survives_the_way_to_floats_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bitmap(to_unit(levels)), levels)


@given(st.lists(st.floats(-2, 3, width=32), min_size=1))
def test_a_bitmap_is_the_nearest_grey_level_of_the_clamped_value(values: list[float]) -> None:
    bitmap = to_bitmap(torch.tensor(values))
    assert bitmap.dtype == torch.uint8
    clamped = torch.tensor(values, dtype=torch.float64).clamp(0, 1)
    assert bool(((bitmap.double() / 255 - clamped).abs() <= 0.5 / 255 + 1e-6).all())


def test_units_are_in_the_unit_interval_and_the_bitmap_is_left_alone() -> None:
    bitmap = torch.tensor([0, 51, 255], dtype=torch.uint8)
    assert torch.allclose(to_unit(bitmap), torch.tensor([0.0, 0.2, 1.0]))
    assert bitmap.tolist() == [0, 51, 255]


def test_normalisation_takes_imagenets_mean_to_0_and_a_deviation_above_it_to_1() -> None:
    mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    images = torch.stack([mean, mean + deviation]).view(2, 3, 1, 1).expand(2, 3, 2, 2)
    expected = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    assert torch.allclose(normalise(images), expected, atol=1e-6)
    assert IMAGENET_MEAN == (0.485, 0.456, 0.406)
    assert IMAGENET_STD == (0.229, 0.224, 0.225)
