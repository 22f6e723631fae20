"""Where and in which precision arithmetic happens."""

from contextlib import AbstractContextManager
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from roles.common.graphs import Captured, Function, StepInTwo

Precision = Literal["fp32", "bf16"]
Number = float | Tensor
"""A number or, where a GPU would have to be waited for to know it, a tensor without dimensions."""
_STEPS_BETWEEN_READINGS = 50
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Compute:
    """A device and a precision, applied the same way by every party.

    Args:
        precision: ``"fp32"``, or ``"bf16"`` for autocast. On a GPU, the former turns TF32 off in the whole process.
        device: where modules and batches live; by default a GPU if there is one.
        graphs: whether steps are recorded on a GPU and replayed (graphs.py).
    """

    def __init__(self, precision: Precision, device: str | None = None, *, graphs: bool = True) -> None:
        self._graphs = graphs
        self.precision: Precision = precision
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if precision == "fp32" and self.device.type == "cuda":
            # By default, cuDNN convolves in TF32, with 10 bits of mantissa for 23; matrix products are fp32 as it is.
            torch.backends.cudnn.allow_tf32 = False
        if self.device.type == "cuda":
            # Shapes stay the same for a whole training: it pays to try cuDNN's algorithms out.
            torch.backends.cudnn.benchmark = True

    def module(self, module: ModuleT) -> ModuleT:
        """Move ``module`` to the device, weights in channels-last order."""
        # torch's stubs know only the overloads without memory_format for modules.
        return module.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def batch(self, images: Tensor) -> Tensor:
        """Move a batch ``(N, C, H, W)`` to the device, channels last."""
        return images.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        enabled = self.precision == "bf16"
        # A cast that is kept for the next use would be kept across recordings too (graphs.py).
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False)

    def captured(self, function: Function) -> Captured:
        """Return ``function``, to be replayed on a GPU; see :class:`Captured`."""
        return Captured(function, self.device, recorded=self._graphs)

    def in_two(self, first: Function, second: Function, *, recorded: bool = True) -> StepInTwo:
        """Return a step of two parts, both to be replayed on a GPU where ``recorded``; see :class:`StepInTwo`."""
        return StepInTwo(first, second, self.device, recorded=recorded and self._graphs)

    def reads(self, step: int) -> bool:
        """Return whether numbers may be read after the 0-based ``step``: on a GPU, which is waited for, after few."""
        return self.device.type == "cpu" or step % _STEPS_BETWEEN_READINGS == 0

    def number(self, value: Tensor) -> Number:
        """Return the number in a tensor without dimensions, or on a GPU a copy of the tensor, as float64."""
        return value.item() if self.device.type == "cpu" else value.detach().double()
