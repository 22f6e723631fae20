"""Plain PyTorch: users trained one after another by the reference loop, psi in the same process, no messages.

Started by ``exchange.py``: reads a job from the command line, loads everything, says ``ready``, waits for a line,
works, and prints what it took.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch

from roles.common.batches import Batches
from roles.common.process import settle
from roles.common.weights import digest, load
from sim.config.files import load_experiment
from sim.exchange.job import Job
from sim.nodes.provider.serving import assign_images, validation_ids
from sim.run.machine import store_of
from tests.reference_loop import train_reference


def main() -> None:
    """Train ``users`` of the run ``run`` with ``threads`` threads."""
    settle()
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    run = Path(given["run"])
    experiment = load_experiment(run / "config.yaml")
    store = store_of(experiment)
    job = Job(experiment, run)
    assignment, validation = assign_images(job), validation_ids(experiment, store)
    psi, _ = load(Path(given["psi"]))
    recipe = experiment.user.training
    shares = [Batches(assignment[user], recipe.batch_size, 0) for user in given["users"]]
    store.images("train").float().sum()  # in the page cache
    print("ready", flush=True)
    sys.stdin.readline()
    began, cpu_began = time.time(), time.process_time()
    digests = {
        user: digest(train_reference(experiment, user, psi, store, assignment[user], validation))
        for user in given["users"]
    }
    usage = {
        "began": began,
        "ended": time.time(),
        "cpu_s": time.process_time() - cpu_began,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "steps": sum(recipe.total_steps(share.per_epoch) for share in shares),
        "digests": digests,
    }
    print(json.dumps(usage), flush=True)


if __name__ == "__main__":
    main()
