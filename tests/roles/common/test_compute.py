"""What can be said of arithmetic without a GPU: which of PyTorch's switches are set for one."""

import pytest
import torch

from roles.common.compute import Compute, Precision


@pytest.mark.parametrize(
    ("precision", "device", "allowed"), [("fp32", "cuda", False), ("bf16", "cuda", True), ("fp32", "cpu", True)]
)
def test_convolutions_in_fp32_on_a_gpu_are_not_rounded_to_tf32(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, device: str, allowed: bool
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    Compute(precision, device)
    assert torch.backends.cudnn.allow_tf32 is allowed
