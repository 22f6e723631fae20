"""What this machine has."""

import os
import platform
from pathlib import Path

import torch

from roles.common.compute import Precision


def available_cpus() -> int:
    """Return the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def native_precision(*, gpu: bool) -> Precision:
    """Return the faster precision of this machine's GPU or CPU: bf16 where the hardware multiplies it, else fp32.

    On a CPU without AMX bf16 is emulated and about ten times slower than fp32.
    """
    if gpu:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"  # pyright: ignore[reportPrivateUsage]


def gpu_name() -> str | None:
    """Return the model of the first GPU, or None where there is none."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def processor_name() -> str:
    """Return the model of the processor, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
