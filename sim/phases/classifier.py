"""Section III-A, step 1: the provider trains psi, or finds it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging import INFO
from typing import cast

from flwr.common.logger import log

from sim.exchange.access import CLOSE, OPEN
from sim.exchange.messages import METRICS, MessageError
from sim.exchange.payloads import decode_curve
from sim.phases.roster import Roster, RunFailed


@contextmanager
def endpoint_open(roster: Roster) -> Iterator[None]:
    """Have the provider's endpoint open in a block, if the experiment wants one, and tell each node how to reach it.

    Raises:
        RunFailed: it does not open.
    """
    if roster.job.experiment.runtime.exchange != "endpoint":
        yield
        return
    try:
        roster.relay.endpoint.learn(roster.ask_provider(OPEN))
    except MessageError as error:
        raise RunFailed(str(error)) from error
    try:
        yield
    finally:
        with suppress(RunFailed):  # it ends by itself, later
            roster.ask_provider(CLOSE)


def train_classifier(roster: Roster) -> str:
    """Have psi trained, note what is known of it, and return its digest.

    Raises:
        RunFailed: psi cannot be had, or is not the one that users have trained against in an earlier attempt.
    """
    run = roster.run
    roster.board.show("classifier", "preparing psi")
    began, before = time.time(), run.facts().get("psi")
    reply = roster.ask_provider("train.classifier")
    roster.board.note(classifier=0)
    facts, digest = reply.metric_records[METRICS], str(reply.config_records["psi"]["digest"])
    if before is not None and before["digest"] != digest:
        raise RunFailed(
            f"psi is another one than in an earlier attempt (digest {digest[:8]}, was {before['digest'][:8]}), which "
            "users have trained against: start a new run"
        )
    run.keep_classifier_curve(decode_curve(reply.metric_records["curve"]))
    names = ("test_accuracy", "plain_accuracy", "chance", "selected_epoch")
    measured = {name: facts[name.replace("_", "-")] for name in names}
    # An earlier attempt at this run may have trained it.
    own = before or {"reused": bool(facts["reused"]), "seconds": time.time() - began}
    run.note({"psi": {"digest": digest, **measured, "reused": own["reused"], "seconds": own["seconds"]}})
    log(INFO, "psi: %.2f%% of plain test images", 100 * cast(float, facts["test-accuracy"]))
    return digest
