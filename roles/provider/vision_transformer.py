"""A small vision transformer, which reads an image patch by patch: the classifier that encryption by blocks is for."""

import torch
from torch import Tensor, nn

from roles.common.encryption import BLOCK

_WIDTH = 128
_HEADS = 4
_LAYERS = 4


class VisionTransformer(nn.Module):
    """A ViT for small images, ``(N, channels, side, side)`` to logits ``(N, classes)``, of half a million parameters.

    An image is cut into patches of 4x4 pixels. Each becomes a token of width 128 by a linear map, to which a learned
    embedding of its place is added; 4 layers with 4 heads and an MLP of twice the width follow, and the mean of all
    tokens is classified, as Beyer et al. do (arXiv:2205.01580). Initial weights are PyTorch's own, for layers that add
    to what they are given; embeddings begin near 0, as by Dosovitskiy et al. (arXiv:2010.11929).

    Raises:
        ValueError: ``side`` is not divisible by 4.
    """

    def __init__(self, classes: int, channels: int, side: int) -> None:
        super().__init__()
        if side % BLOCK:
            raise ValueError(f"images have a side of {side}: a ViT with patches of {BLOCK}x{BLOCK} needs a multiple")
        self.patches = nn.Conv2d(channels, _WIDTH, BLOCK, stride=BLOCK)
        self.positions = nn.Parameter(0.02 * torch.randn((side // BLOCK) ** 2, _WIDTH))
        self.layers = nn.Sequential(*(_layer() for _ in range(_LAYERS)))
        self.norm, self.head = nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify ``images``."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.norm(self.layers(tokens)).mean(dim=1))
        return logits


def _layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        _WIDTH, _HEADS, 2 * _WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
