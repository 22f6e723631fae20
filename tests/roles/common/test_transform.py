import pytest
import torch
from torch import Tensor, nn

from roles.common.compute import Compute
from roles.common.transform import apply_network
from roles.common.unet import UNet

COMPUTE = Compute("fp32", "cpu")


class Invert(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 1 - images


def test_an_image_goes_through_the_network_and_comes_back_as_a_bitmap() -> None:
    images = torch.arange(5 * 3 * 4 * 4).remainder(256).to(torch.uint8).view(5, 3, 4, 4)
    assert torch.equal(apply_network(Invert(), images, COMPUTE), 255 - images)


def test_the_result_does_not_depend_on_what_else_is_in_the_batch() -> None:
    torch.manual_seed(0)
    images = torch.randint(256, (7, 3, 8, 8), dtype=torch.uint8)
    network = UNet(width=2, depth=2)
    whole = apply_network(network, images, COMPUTE)
    parts = apply_network(network, images, COMPUTE, batch_size=3)
    assert int((whole.int() - parts.int()).abs().max()) <= 1  # sums in another order may round elsewhere
    assert not network.training


def test_images_of_the_wrong_size_are_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="images are 6x6"):
        apply_network(UNet(width=2, depth=3), torch.zeros(1, 3, 6, 6, dtype=torch.uint8), COMPUTE)
