"""A trained image network at work: a user's h_theta that protects, an evaluator's inverse network that recovers."""

import torch
from torch import Tensor, nn

from roles.common.compute import Compute
from roles.common.images import to_bitmap, to_unit


def apply_network(network: nn.Module, images: Tensor, compute: Compute, batch_size: int = 500) -> Tensor:
    """Return what ``network`` makes of uint8 ``(N, 3, H, W)``, on the CPU, rounded to the same.

    Args:
        network: on the device of ``compute``, from and to [0, 1]; it is left in eval mode.
        batch_size: images at a time; it bounds memory.

    Raises:
        ValueError: H or W does not suit the network.
    """
    network.eval()
    with torch.no_grad(), compute.autocast():
        batches = [to_bitmap(network(compute.batch(to_unit(part)))).cpu() for part in torch.split(images, batch_size)]
    return torch.cat(batches).contiguous()
