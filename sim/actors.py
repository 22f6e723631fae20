"""Named Ray actors of a run: processes of a simulation that keep something between messages."""

import contextlib
import hashlib
from pathlib import Path
from typing import Any

import ray

from sim.config import RuntimeConfig

_NAMESPACE = "veilsim"


def _name(run: Path, role: str) -> str:
    return f"{role}-{hashlib.sha256(str(run).encode()).hexdigest()[:16]}"


def open_actor(run: Path, role: str, kind: type, runtime: RuntimeConfig, *arguments: Any) -> Any:
    """Return the actor ``role`` of a run, started as ``kind(*arguments)`` unless it is there already.

    It serves as many calls at once as there are workers, each in a thread, and takes no CPU of Ray's: whoever calls it
    has one, and waits.
    """
    options: dict[str, Any] = {
        "name": _name(run, role),
        "namespace": _NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_concurrency": max(2, runtime.worker_count),
        "num_cpus": 0,
    }
    if runtime.gpu_fraction:
        # Workers may hold all shares of the GPU between them, and an actor that waits for one would wait for ever.
        options["runtime_env"] = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
    return ray.remote(kind).options(**options).remote(*arguments)


def find_actor(run: Path, role: str) -> Any:
    """Return the actor ``role`` of a run.

    Raises:
        ValueError: there is none.
    """
    return ray.get_actor(_name(run, role), _NAMESPACE)


def close_actor(run: Path, role: str) -> bool:
    """End the actor ``role`` of a run; return whether there was one."""
    with contextlib.suppress(ValueError):
        ray.kill(find_actor(run, role))
        return True
    return False
