from typing import get_args

import pytest
import torch

from roles.common.unet import UNet, Upsampling
from roles.common.weights import cpu_state, load_into

UPSAMPLINGS = get_args(Upsampling)


def test_the_papers_unet_has_34_and_a_half_million_parameters() -> None:
    with torch.device("meta"):
        unet = UNet()
    assert sum(value.numel() for value in unet.parameters()) == pytest.approx(34.5e6, rel=0.002)
    assert unet(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
@pytest.mark.parametrize(("depth", "sides"), [(1, (5, 3)), (2, (6, 4)), (3, (8, 12)), (5, (16, 32))])
def test_images_keep_their_shape_and_stay_in_the_unit_interval(
    depth: int, sides: tuple[int, int], upsampling: Upsampling
) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        output = UNet(width=2, depth=depth, upsampling=upsampling)(torch.rand(2, 3, *sides))
    assert output.shape == (2, 3, *sides)
    assert output.dtype == torch.float32
    assert bool(((output >= 0) & (output <= 1)).all())


@pytest.mark.parametrize("sides", [(4, 6), (6, 4), (5, 5)])
def test_sides_that_cannot_be_halved_often_enough_are_refused(sides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"images are {sides[0]}x{sides[1]}: this U-Net needs sides divisible by 4"):
        UNet(width=2, depth=3)(torch.rand(1, 3, *sides))


def test_the_output_is_float32_under_autocast_as_well() -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert UNet(width=2, depth=2)(torch.rand(1, 3, 4, 4)).dtype == torch.float32


@pytest.mark.parametrize("upsampling", UPSAMPLINGS)
def test_every_parameter_takes_part(upsampling: Upsampling) -> None:
    unet = UNet(width=2, depth=3, upsampling=upsampling)
    unet(torch.rand(3, 3, 8, 8)).mean().backward()
    assert all(value.grad is not None for value in unet.parameters())


def test_a_network_that_goes_up_by_transposed_convolutions_has_them_and_31_million_parameters() -> None:
    with torch.device("meta"):
        unet = UNet(upsampling="transposed")
    assert sum(value.numel() for value in unet.parameters()) == pytest.approx(31.04e6, rel=0.002)
    ways = [module for module in unet.modules() if isinstance(module, torch.nn.ConvTranspose2d)]
    assert [(way.kernel_size, way.stride) for way in ways] == 4 * [((2, 2), (2, 2))]


def test_weights_of_one_way_up_are_refused_by_a_network_with_the_other() -> None:
    theta = cpu_state(UNet(2, 3, "transposed"))
    with pytest.raises(ValueError, match=r"^theta: not weights of this network \(missing \['up.0.0"):
        load_into(UNet(2, 3, "nearest"), theta, "theta")
