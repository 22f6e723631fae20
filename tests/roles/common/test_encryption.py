import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from roles.common.config.user import BlockConfig, PixelConfig, TanakaConfig
from roles.common.encryption import BlockEncryption, Encryption, LearnableEncryption, PixelEncryption

TANAKA, BLOCK = TanakaConfig(kind="tanaka"), BlockConfig(kind="block")
CONFIGS: list[TanakaConfig | BlockConfig | PixelConfig] = [
    TANAKA,
    BLOCK,
    PixelConfig(kind="pixel"),
    PixelConfig(kind="pixel", shuffle=True),
    PixelConfig(kind="pixel", key="per_image"),
    PixelConfig(kind="pixel", key="per_image", shuffle=True),
]
SHARED, PER_IMAGE = CONFIGS[:4], CONFIGS[4:]

KeyConfig = TanakaConfig | BlockConfig | PixelConfig
configs = st.sampled_from(CONFIGS)
seeds = st.integers(0, 2**63 - 1)


def encryption(config: KeyConfig, seed: int) -> Encryption:
    match config:
        case TanakaConfig():
            return LearnableEncryption(config, seed)
        case BlockConfig():
            return BlockEncryption(config, seed)
        case PixelConfig():
            return PixelEncryption(config, seed)


def pictures(count: int, height: int, width: int, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, height, width), generator=stream, dtype=torch.uint8)


@settings(max_examples=60, deadline=None)
@given(
    config=configs,
    seed=seeds,
    numbers=st.lists(st.integers(0, 2**40), min_size=1, max_size=5),
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    content=st.integers(0, 1000),
)
def test_restoring_protected_images_gives_the_images(
    config: KeyConfig, seed: int, numbers: list[int], rows: int, columns: int, content: int
) -> None:
    images, which = pictures(len(numbers), 4 * rows, 4 * columns, content), torch.tensor(numbers)
    kept = images.clone()
    protected = encryption(config, seed).protect(images, which)
    assert protected.shape == images.shape
    assert protected.dtype == torch.uint8
    assert not torch.equal(protected, images)
    assert torch.equal(encryption(config, seed).restore(protected, which), images)
    assert torch.equal(images, kept)


@settings(max_examples=30, deadline=None)
@given(config=configs, seed=seeds)
def test_another_seed_is_another_key(config: KeyConfig, seed: int) -> None:
    images, numbers = pictures(2, 8, 8), torch.arange(2)
    protected = encryption(config, seed).protect(images, numbers)
    assert torch.equal(encryption(config, seed).protect(images, numbers), protected)
    assert not torch.equal(encryption(config, seed + 1).protect(images, numbers), protected)


@pytest.mark.parametrize("config", CONFIGS)
def test_protection_does_not_depend_on_what_else_is_in_the_batch_nor_on_the_order(
    config: KeyConfig,
) -> None:
    images, numbers = pictures(1100, 4, 8), torch.arange(1100) + 7  # more than one chunk
    whole = encryption(config, 0).protect(images, numbers)
    order = torch.randperm(1100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(encryption(config, 0).protect(images[order], numbers[order]), whole[order])
    for index in (0, 499, 500, 1099):
        alone = encryption(config, 0).protect(images[index : index + 1], numbers[index : index + 1])
        assert torch.equal(alone, whole[index : index + 1])
    assert torch.equal(encryption(config, 0).restore(whole, numbers), images)


@pytest.mark.parametrize("config", SHARED)
def test_with_one_key_the_same_image_is_protected_the_same_under_every_number(
    config: KeyConfig,
) -> None:
    images = pictures(1, 8, 8).expand(3, 3, 8, 8)
    protected = encryption(config, 0).protect(images, torch.tensor([0, 1, 2]))
    assert torch.equal(protected, protected[:1].expand_as(protected))


@pytest.mark.parametrize("config", PER_IMAGE)
def test_with_a_key_an_image_only_the_same_number_protects_the_same(config: PixelConfig) -> None:
    images = pictures(1, 8, 8).expand(3, 3, 8, 8)
    first, again, other = encryption(config, 0).protect(images, torch.tensor([5, 5, 6]))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("config", PER_IMAGE)
def test_with_a_key_an_image_a_missing_number_is_refused(config: PixelConfig) -> None:
    for act in (encryption(config, 0).protect, encryption(config, 0).restore):
        with pytest.raises(ValueError, match=r"numbers are \(2,\), but there are 3 images"):
            act(pictures(3, 4, 4), torch.arange(2))


def tanaka_by_hand(block: list[int], order: list[int], flipped: set[int]) -> list[int]:
    values = [byte % 16 for byte in block] + [byte // 16 for byte in block]
    values = [15 - value if place in flipped else value for place, value in enumerate(values)]
    values = [values[place] for place in order]
    values = [15 - value if place in flipped else value for place, value in enumerate(values)]
    return [low + 16 * high for low, high in zip(values[:48], values[48:], strict=True)]


def test_a_tanaka_block_is_encrypted_as_byte_by_byte_by_hand() -> None:
    encrypt = LearnableEncryption(TANAKA, seed=3)
    order, flipped = encrypt._order.tolist(), set(encrypt._mask.nonzero().flatten().tolist())
    assert sorted(order) == list(range(96))
    assert len(flipped) == 48
    images = pictures(2, 8, 12)
    protected = encrypt.protect(images, torch.arange(2))
    for image, result in zip(images, protected, strict=True):
        for row in (0, 4):
            for column in (0, 4, 8):
                places = [(c, row + i, column + j) for i in range(4) for j in range(4) for c in range(3)]
                expected = tanaka_by_hand([int(image[place]) for place in places], order, flipped)
                assert [int(result[place]) for place in places] == expected


def test_tanaka_puts_low_halves_first_and_flips_before_and_after_the_permutation() -> None:
    encrypt = LearnableEncryption(TANAKA, seed=0)
    # Halves turn round: the high half of the last byte comes to the low half of the first. Flipped: only place 0.
    encrypt._order = torch.arange(95, -1, -1)
    encrypt._mask = torch.zeros(96, dtype=torch.uint8)
    encrypt._mask[0] = 15
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    image[0, 2, 3, 3] = 0xA3  # the last byte
    image[0, 0, 0, 0] = 0x7D  # the first
    protected = encrypt.protect(image, torch.zeros(1, dtype=torch.int64))
    assert protected[0, 0, 0, 0] == 0x35  # the low half is 15 - 0xA, flipped on arrival
    assert protected[0, 2, 3, 3] == 0x27  # the high half is 15 - 0xD, flipped on leaving
    assert protected.sum() == 0x35 + 0x27


@pytest.mark.parametrize(("height", "width"), [(8, 10), (6, 8), (2, 4)])
@pytest.mark.parametrize("encrypt", [LearnableEncryption(TANAKA, 0), BlockEncryption(BLOCK, 0)])
def test_sides_that_blocks_do_not_fill_are_refused(encrypt: Encryption, height: int, width: int) -> None:
    for act in (encrypt.protect, encrypt.restore):
        with pytest.raises(ValueError, match=f"images are {height}x{width}: .* divisible by 4"):
            act(pictures(1, height, width), torch.arange(1))


def test_block_wise_encryption_is_scrambling_shuffling_and_flipping_value_by_value_by_hand() -> None:
    encrypt, images = BlockEncryption(BLOCK, seed=4), pictures(2, 8, 12)
    order, mask = encrypt._order.tolist(), encrypt._mask.flatten().tolist()
    places = encrypt._places(torch.empty(48, 2, 6)).tolist()
    assert sorted(order) == list(range(48))
    assert sorted(places) == list(range(6))
    assert set(mask) == {0, 255}
    assert 12 < mask.count(255) < 36
    corners = [(row, column) for row in (0, 4) for column in (0, 4, 8)]
    inside = [(c, i, j) for i in range(4) for j in range(4) for c in range(3)]
    protected = encrypt.protect(images, torch.arange(2))
    for image, result in zip(images, protected, strict=True):
        for (row, column), (from_row, from_column) in zip(corners, [corners[place] for place in places], strict=True):
            for (c, i, j), (from_c, from_i, from_j), flip in zip(
                inside, [inside[place] for place in order], mask, strict=True
            ):
                plain = int(image[from_c, from_row + from_i, from_column + from_j])
                assert int(result[c, row + i, column + j]) == (255 - plain if flip else plain)


@pytest.mark.parametrize("key", ["one", "per_image"])
def test_pixel_encryption_keeps_a_byte_or_negates_it_about_half_of_the_time(key: str) -> None:
    images = pictures(20, 16, 16)
    config = PixelConfig.model_validate({"kind": "pixel", "key": key})
    protected = PixelEncryption(config, 0).protect(images, torch.arange(20))
    negated = protected == 255 - images
    assert bool(((protected == images) | negated).all())
    assert 0.4 < negated.float().mean().item() < 0.6


def test_shuffling_brings_every_order_of_channels_about_as_often() -> None:
    # The channels are 1, 2 and 3, or their negatives 254, 253 and 252.
    images = torch.tensor([1, 2, 3], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 60, 60)
    protected = PixelEncryption(PixelConfig(kind="pixel", shuffle=True), 0).protect(images, torch.arange(1))
    folded = torch.minimum(protected, 255 - protected)[0].flatten(1)
    orders, counts = folded.unique(dim=1, return_counts=True)
    assert sorted(map(tuple, orders.T.tolist())) == [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)]
    assert bool(((counts > 500) & (counts < 700)).all())


def test_the_channels_of_a_pixel_are_negated_apart_from_each_other() -> None:
    black = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    protected = PixelEncryption(PixelConfig(kind="pixel"), 0).protect(black, torch.arange(1))[0].flatten(1)
    patterns, counts = protected.unique(dim=1, return_counts=True)
    assert patterns.shape == (3, 8)
    assert bool(((counts > 150) & (counts < 250)).all())
