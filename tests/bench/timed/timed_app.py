"""veilsim's own app, with a clock at the user's side of every request to the provider.

A direct request is timed around the call, a relayed one from the reply that asks to the message that answers. Each
worker appends its times to a file in the run's folder.
"""

import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict

import sim.client_app
import sim.direct
from sim.client_app import app as client
from sim.server_app import app as server
from sim.sessions import Session

__all__ = ["client", "server"]

_call_of, _resume = sim.direct.provider_call, sim.client_app.resume_relayed


def _note(run: Path, seconds: float) -> None:
    with (run / "latencies.jsonl").open("a") as file:
        file.write(f"{seconds:.6f}\n")


def _timed_call(run: Path) -> Callable[[str, RecordDict], RecordDict]:
    call = _call_of(run)

    def timed(message_type: str, content: RecordDict) -> RecordDict:
        began = time.perf_counter()
        answer = call(message_type, content)
        if message_type == "query.loss_gradient":
            _note(run, time.perf_counter() - began)
        return answer

    return timed


def _timed_resume(new_session: Callable[[], Session], path: Path, ticket: int, answer: RecordDict) -> RecordDict:
    # The state was written when the question was asked, by whichever process.
    if answer.config_records["answer"]["kind"] == "loss_gradient":
        _note(path.parent.parent, time.time() - path.stat().st_mtime)
    return _resume(new_session, path, ticket, answer)


sim.direct.provider_call = _timed_call
sim.client_app.resume_relayed = _timed_resume


@client.query("clock")
def clock(message: Message, context: Context) -> Message:
    """Say whether the clock runs. Being registered makes a worker that unpickles the app import this module."""
    return Message(RecordDict(), reply_to=message)
