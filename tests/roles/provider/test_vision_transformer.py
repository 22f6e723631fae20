"""The ViT: what it makes of an image, and that block-wise encryption costs it nothing (arXiv:2308.07612)."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.config.user import BlockConfig
from roles.common.data import ImageStore
from roles.common.encryption import BlockEncryption, block_bytes, joined_bytes
from roles.common.exchange import Gradient, LossGradient, expect
from roles.common.images import IMAGENET_MEAN, IMAGENET_STD, to_unit
from roles.common.weights import cpu_state, load_into
from roles.provider.classifiers import Adaptation, Classifier
from roles.provider.provider import Provider
from roles.provider.user_classifiers import UserClassifiers
from roles.provider.vision_transformer import VisionTransformer


def vit(side: int, adaptation: Adaptation | None = None) -> Classifier:
    torch.manual_seed(0)
    return Classifier("vit", 10, side, adaptation).eval()


def read_by(classifier: Classifier) -> VisionTransformer:
    assert isinstance(classifier.layers, VisionTransformer)
    return classifier.layers


def bitmaps(count: int, side: int) -> Tensor:
    return torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize(("side", "patches"), [(8, 4), (16, 16), (32, 64)])
def test_each_patch_of_4x4_pixels_is_a_token_with_an_embedding_of_its_place(side: int, patches: int) -> None:
    classifier, images = vit(side), torch.rand(2, 3, side, side)
    assert read_by(classifier).positions.shape == (patches, 128)
    assert 0.4e6 < sum(value.numel() for value in classifier.parameters()) < 0.6e6
    assert classifier(images).shape == (2, 10)


def test_sides_that_patches_do_not_fill_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^images have a side of 10: a ViT with patches of 4x4 needs a multiple$"):
        Classifier("vit", 10, 10)


def test_weights_for_images_of_another_side_are_refused_in_a_line() -> None:
    with pytest.raises(ValueError, match=r"psi: layers.positions has shape \(4, 128\), expected \(16, 128\)"):
        load_into(vit(16), cpu_state(vit(8)), "psi")


@pytest.mark.parametrize(
    ("adaptation", "expected"), [(None, False), ("block", False), ("tanaka", True), ("pixel", True)]
)
def test_images_under_block_wise_encryption_alone_need_no_adaptation_network(
    adaptation: Adaptation | None, expected: bool
) -> None:
    classifier = vit(16, adaptation)
    assert (classifier.adaptation is not None) == expected
    assert classifier(torch.rand(2, 3, 16, 16)).shape == (2, 10)


def sources(encryption: BlockEncryption) -> tuple[Tensor, Tensor, Tensor]:
    """Return which byte and which block each encrypted one is, for images of 16 blocks, and which bytes are negated."""
    numbers = torch.arange(48, dtype=torch.uint8)
    of_byte, of_block = (
        block_bytes(encryption.protect(joined_bytes(values, torch.Size((1, 3, 16, 16))), torch.arange(1)))
        for values in (numbers.view(48, 1, 1).expand(48, 1, 16), numbers[:16].expand(48, 1, 16))
    )
    negated = of_byte[:, 0, 0] > 127
    byte, block = (torch.minimum(values, 255 - values).long() for values in (of_byte[:, 0, 0], of_block[0, 0]))
    return byte, block, negated


def under_key(plain: Classifier, encryption: BlockEncryption) -> Classifier:
    """Return the ViT that sees in encrypted images what ``plain`` sees in plain ones.

    An encrypted value is a plain one of another place, x, or 1 - x: the linear map of a block takes that upon itself,
    and the embeddings of places move as the blocks do.
    """
    transformed, (byte, block, negated) = vit(16), sources(encryption)
    load_into(transformed, cpu_state(plain), "the plain one")
    own, old = read_by(transformed), read_by(plain)
    # What a block's 48 values in [0, 1] become a token by, psi's normalisation included.
    mean, deviation = (torch.tensor(values).repeat(16) for values in (IMAGENET_MEAN, IMAGENET_STD))
    assert old.patches.bias is not None and own.patches.bias is not None
    weight = old.patches.weight.permute(0, 2, 3, 1).reshape(128, 48) / deviation
    bias = old.patches.bias - weight @ mean
    # The same for encrypted values.
    weight = weight[:, byte]
    bias = bias + weight[:, negated].sum(dim=1)
    weight = torch.where(negated, -weight, weight)
    with torch.no_grad():
        own.patches.weight.copy_((weight * deviation).reshape(128, 4, 4, 3).permute(0, 3, 1, 2))
        own.patches.bias.copy_(bias + weight @ mean)
        own.positions.copy_(old.positions[block])
    return transformed


def test_under_weights_transformed_by_the_key_encrypted_images_are_classified_as_plain_ones_are() -> None:
    classifier, images = vit(16), bitmaps(20, 16)
    encryption = BlockEncryption(BlockConfig(kind="block"), 5)
    encrypted = encryption.protect(images, torch.arange(20))
    with torch.no_grad():
        expected = classifier(to_unit(images))
        found = under_key(classifier, encryption)(to_unit(encrypted))
        without_key = classifier(to_unit(encrypted))
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(without_key, expected, atol=1e-2)


def test_a_provider_answers_users_with_gradients_of_a_vit(
    tiny: ImageStore, compute: Compute, no_user_classifiers: UserClassifiers
) -> None:
    classifier = vit(tiny.side)
    ids = torch.tensor([2, 0, 5])
    provider = Provider("vit", cpu_state(classifier), tiny, compute, [ids], ids, no_user_classifiers)
    images = to_unit(bitmaps(3, tiny.side)).requires_grad_()
    answer = expect(provider.answer(LossGradient(images.detach(), ids, 0, 0)), Gradient)
    loss = F.cross_entropy(classifier(images), provider._labels[ids])
    loss.backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert torch.allclose(answer.gradient, images.grad, atol=1e-6)
    assert float(images.grad.abs().amax(dim=(1, 2, 3)).min()) > 0
