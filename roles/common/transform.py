"""A trained image network at work: the users' h_theta that protects, the evaluator's inverse network that recovers."""

import torch
from torch import Tensor, nn

from roles.common.compute import Compute
from roles.common.images import to_bitmap, to_unit


def apply_network(network: nn.Module, images: Tensor, compute: Compute, batch_size: int = 500) -> Tensor:
    """Return what ``network`` makes of ``images``, stored as 8-bit images; ``network`` is left in eval mode.

    Args:
        network: on the device of ``compute``; ``(N, 3, H, W)`` in [0, 1] to ``(N, 3, H, W)`` in [0, 1].
        images: uint8 ``(N, 3, H, W)``.
        compute: where it happens, and in which precision.
        batch_size: images at a time; it bounds memory.

    Returns:
        uint8 ``(N, 3, H, W)`` on the CPU.

    Raises:
        ValueError: H or W does not suit the network.
    """
    network.eval()
    with torch.no_grad(), compute.autocast():
        batches = [
            to_bitmap(network(compute.batch(to_unit(batch)))).cpu().contiguous()
            for batch in torch.split(images, batch_size)
        ]
    return torch.cat(batches)
