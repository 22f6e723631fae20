"""Named Ray actors of a run: processes of a simulation that keep something between messages."""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from sim.config.sections import RuntimeConfig

_NAMESPACE = "veilsim"


class ActorGone(RuntimeError):
    """An actor's process is gone, and what it kept with it; the message begins as Ray's own, for the relay to know."""


def _name(run: Path, role: str) -> str:
    return f"{role}-{hashlib.sha256(str(run).encode()).hexdigest()[:16]}"


def open_actor(run: Path, role: str, kind: type, runtime: RuntimeConfig, *arguments: Any) -> Callable[[], None]:
    """Start ``kind(*arguments)`` as the actor ``role`` of a run, in place of one that an earlier attempt may have left.

    It serves as many calls at once as there are workers, each in a thread, and takes no CPU of Ray's: whoever calls it
    has one, and waits.

    Args:
        kind: a class with a method ``ready``.

    Returns:
        A function that waits until the actor is there: its imports take seconds, in which others can work.
    """
    with contextlib.suppress(ActorGone):
        ray.kill(find_actor(run, role))
    options: dict[str, Any] = {
        "name": _name(run, role),
        "namespace": _NAMESPACE,
        "lifetime": "detached",
        "max_concurrency": max(2, runtime.worker_count),
        "num_cpus": 0,
    }
    if runtime.gpu_fraction:
        # Workers may hold all shares of the GPU between them, and an actor that waits for one would wait for ever.
        options["runtime_env"] = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
    actor: Any = ray.remote(kind).options(**options).remote(*arguments)
    return lambda: result_of(actor.ready.remote())


def find_actor(run: Path, role: str) -> Any:
    """Return the actor ``role`` of a run.

    Raises:
        ActorGone: there is none.
    """
    try:
        return ray.get_actor(_name(run, role), _NAMESPACE)
    except ValueError as error:
        raise ActorGone(f"RayActorError: this run has no {role} any more") from error


def result_of(call: Any) -> Any:
    """Wait for what an actor was asked, and return it.

    Raises:
        Exception: what the actor raised, as it raised it.
        ActorGone: its process is gone.
    """
    try:
        return ray.get(call)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayActorError as error:
        raise ActorGone(f"RayActorError: {' '.join(str(error).split())}") from error
