"""What a result depends on beside its config: versions and hardware."""

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from roles.common.hardware import gpu_name, processor_name
from sim.config.experiment import Experiment

_USED = ("flwr", "flwr-datasets", "ray", "torch", "torchvision", "datasets", "numpy", "torchmetrics", "scikit-learn")


def environment() -> dict[str, Any]:
    """Return what a result depends on beside its config: versions and hardware."""
    return {
        "veilsim": version("veilsim"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _USED},
        "platform": platform.platform(),
        "processor": processor_name(),
        "cpus": os.cpu_count(),
        "gpu": gpu_name(),
        "command": sys.argv[1:],
    }


def hardware(facts: Mapping[str, Any], experiment: Experiment) -> str:
    """Return what a run's networks were trained on; ``facts`` is ``run.json``."""
    return str(facts["gpu"] if experiment.runtime.gpu_fraction else facts["processor"])
