"""Where and in which precision arithmetic happens."""

from contextlib import AbstractContextManager
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

Precision = Literal["fp32", "bf16"]
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Compute:
    """A device and a precision, applied the same way by every party.

    Args:
        precision: ``"fp32"``, or ``"bf16"`` for autocast. On a GPU, the former turns TF32 off in the whole process.
        device: where modules and batches live; by default a GPU if there is one.
    """

    def __init__(self, precision: Precision, device: str | None = None) -> None:
        self.precision: Precision = precision
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if precision == "fp32" and self.device.type == "cuda":
            # By default, cuDNN convolves in TF32, with 10 bits of mantissa for 23; matrix products are fp32 as it is.
            torch.backends.cudnn.allow_tf32 = False

    def module(self, module: ModuleT) -> ModuleT:
        """Move ``module`` to the device, weights in channels-last order."""
        # torch's stubs know only the overloads without memory_format for modules.
        return module.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def batch(self, images: Tensor) -> Tensor:
        """Move a batch ``(N, C, H, W)`` to the device, channels last."""
        return images.to(self.device).contiguous(memory_format=torch.channels_last)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
