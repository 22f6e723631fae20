"""One process of the limit: builds what it is told to, says that it is ready, and is timed when all are.

Started by ``device_processes.py``. A line of JSON in is a measurement, or ``go``; a line out is an answer.
"""

import gc
import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from tests.bench.device_loops import Step, Work, itn_step, prepared, psi_step, rate, user_step

_RUNS = 3
_ONE: dict[str, Callable[[Work, int], Step]] = {"psi": psi_step, "itn": itn_step, "h_theta": user_step}


def built(work: Work, network: str, way: str, width: int, users: int) -> tuple[list[Step], int]:
    """Return the steps that this process does in turn, and how many users' steps each is."""
    if way == "stacked":
        return [prepared(user_step(work, width, users), work.device, recorded=True)], users
    count = users if way == "streams" else 1
    steps = [_ONE[network](work, width) for _ in range(count)]
    return [prepared(step, work.device, recorded=way != "eager") for step in steps], 1


def measure(work: Work, asked: dict[str, Any]) -> dict[str, Any]:
    """Answer one measurement: steps a second of all users in this process, some times in a row."""
    if work.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    steps, each = built(work, asked["network"], asked["way"], asked["width"], asked["users"])
    for step in steps:
        step()
    _say({"ready": True})
    sys.stdin.readline()
    rates = [each * rate(steps, asked["seconds"], work.device) for _ in range(_RUNS)]
    memory = torch.cuda.max_memory_reserved() / 2**20 if work.device.type == "cuda" else None
    return {"rates": rates, "memory_mb": memory}


def main() -> None:
    """Answer measurements until there are no more."""
    given = json.loads(sys.argv[1])
    device = torch.device(given["device"])
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(1)
    work = Work(device, given["precision"], given["batch"], given["images"])
    torch.zeros(1, device=device)
    _say({"ready": True})
    for line in iter(sys.stdin.readline, ""):
        try:
            answer = measure(work, json.loads(line))
        except Exception as error:
            # One that cannot be measured, for want of memory say, is no reason to give up on the others.
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        _say(answer)


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
