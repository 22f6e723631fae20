import torch

from roles.evaluator.dead_leaves import dead_leaves


def drawn(count: int, side: int, seed: int = 0) -> torch.Tensor:
    return dead_leaves(count, side, torch.Generator().manual_seed(seed))


def test_the_same_stream_draws_the_same_images_and_no_two_are_alike() -> None:
    images = drawn(40, 12)
    assert (images.dtype, images.shape) == (torch.uint8, (40, 3, 12, 12))
    assert torch.equal(images, drawn(40, 12))
    assert not torch.equal(images, drawn(40, 12, seed=1))
    assert len({image.numpy().tobytes() for image in images}) == 40


def test_as_in_photographs_pixels_are_the_less_alike_the_farther_they_are_apart() -> None:
    images = drawn(200, 16).float().mean(dim=1)

    def difference(distance: int) -> float:
        return (images[:, :, distance:] - images[:, :, :-distance]).abs().mean().item()

    assert 0 < difference(1) < difference(3) < difference(8)


def test_there_are_plain_images_and_busy_ones_grey_ones_and_coloured_ones() -> None:
    images = drawn(300, 16).float()
    edges = images.diff(dim=3).abs().mean(dim=(1, 2, 3))
    colour = (images.max(dim=1).values - images.min(dim=1).values).mean(dim=(1, 2))
    assert edges.max() > 5 * edges.min()
    assert colour.min() < 10
    assert colour.max() > 100


def test_none_are_none() -> None:
    assert drawn(0, 8).shape == (0, 3, 8, 8)
