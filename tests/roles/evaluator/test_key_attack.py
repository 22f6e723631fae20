"""Known-pair attacks: what one key is worth once a few images are known with what they were encrypted to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from roles.common.config.user import BlockConfig, PixelConfig, TanakaConfig
from roles.common.data import ImageStore
from roles.common.encryption import BlockEncryption, LearnableEncryption, PixelEncryption
from roles.evaluator.attacks import block_key_attack, pixel_key_attack, tanaka_key_attack

seeds = st.integers(0, 2**31)


def pictures(count: int, seed: int) -> Tensor:
    return torch.randint(256, (count, 3, 8, 12), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def numbers(images: Tensor) -> Tensor:
    return torch.arange(len(images))


@pytest.mark.parametrize(("shuffle", "pairs"), [(False, 1), (True, 10)])
@settings(max_examples=20, deadline=None)
@given(key=seeds, seed=seeds)
def test_one_pair_tells_the_key_of_pixel_based_encryption_and_a_few_do_with_shuffled_channels(
    shuffle: bool, pairs: int, key: int, seed: int
) -> None:
    encryption = PixelEncryption(PixelConfig(kind="pixel", shuffle=shuffle), key)
    known, plain = pictures(pairs, seed), pictures(3, seed + 1)
    found = pixel_key_attack(
        encryption.protect(plain, numbers(plain)), encryption.protect(known, numbers(known)), known, shuffle=shuffle
    )
    assert torch.equal(found, plain)


@settings(max_examples=10, deadline=None)
@given(key=seeds, seed=seeds)
def test_a_few_pairs_tell_the_key_of_learnable_encryption(key: int, seed: int) -> None:
    encryption = LearnableEncryption(TanakaConfig(kind="tanaka"), key)
    known, plain = pictures(10, seed), pictures(3, seed + 1)
    found = tanaka_key_attack(
        encryption.protect(plain, numbers(plain)), encryption.protect(known, numbers(known)), known
    )
    assert torch.equal(found, plain)


@settings(max_examples=10, deadline=None)
@given(key=seeds, seed=seeds)
def test_a_single_pair_of_rich_images_tells_the_key_of_block_wise_encryption(key: int, seed: int) -> None:
    encryption = BlockEncryption(BlockConfig(kind="block"), key)
    known, plain = pictures(1, seed), pictures(3, seed + 1)
    found = block_key_attack(
        encryption.protect(plain, numbers(plain)), encryption.protect(known, numbers(known)), known
    )
    assert torch.equal(found, plain)


@pytest.mark.parametrize("key", range(4))
def test_blocks_that_hold_the_same_in_another_order_are_told_apart(key: int) -> None:
    encryption = BlockEncryption(BlockConfig(kind="block"), key)
    known, plain = pictures(10, 1), pictures(3, 2)
    known[..., :4, 4:8] = 255 - known[..., :4, :4].flip(2, 3)
    found = block_key_attack(
        encryption.protect(plain, numbers(plain)), encryption.protect(known, numbers(known)), known
    )
    assert torch.equal(found, plain)


def test_ten_pairs_of_digits_which_are_black_in_much_tell_it_too(digits: ImageStore) -> None:
    encryption = BlockEncryption(BlockConfig(kind="block"), 0)
    known, plain = digits.images("train")[:10], digits.images("test")
    found = block_key_attack(
        encryption.protect(plain, numbers(plain)), encryption.protect(known, numbers(known)), known
    )
    assert torch.equal(found, plain)


def test_pairs_say_nothing_about_images_with_keys_of_their_own() -> None:
    encryption = PixelEncryption(PixelConfig(kind="pixel", key="per_image"), 0)
    known, plain = pictures(10, 1), pictures(4, 2)
    found = pixel_key_attack(
        encryption.protect(plain, 100 + numbers(plain)), encryption.protect(known, numbers(known)), known, shuffle=False
    )
    # A bit is right or wrong by chance.
    assert 0.4 < (found == plain).float().mean() < 0.6


def test_sides_that_blocks_do_not_fit_are_refused() -> None:
    image = torch.zeros(1, 3, 8, 6, dtype=torch.uint8)
    for attack in (tanaka_key_attack, block_key_attack):
        with pytest.raises(ValueError, match="8x6: encryption by blocks needs sides divisible by 4"):
            attack(image, image, image)
