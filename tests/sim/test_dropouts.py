"""Users who drop out of rounds and come back, under a strategy that averages."""

from pathlib import Path

import pytest
import torch
from flwr.app import Error, Message

from sim.config.experiment import Experiment
from sim.exchange.messages import ARRAYS, JOB, decode_tensors
from tests.sim.in_memory_grid import USERS
from tests.sim.in_process_run import run_in, table_of, with_strategy

pytestmark = pytest.mark.usefixtures("without_figures")

COUNT = ROUNDS = 5


def test_rounds_that_a_fifth_of_users_drop_out_of_average_the_others_and_take_them_back(
    small: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def tamper(message: Message, reply: Message) -> Message:
        if message.metadata.message_type == "train":
            user, number = message.metadata.dst_node_id - USERS[0], message.content.config_records[JOB]["server-round"]
            if user == int(str(number)) - 1:
                return Message(Error(0, "battery is empty"), reply_to=message)
        return reply

    users = small.users.model_dump() | {"count": COUNT, "partition": {"kind": "sample", "images": 24}}
    strategy = with_strategy(small, "fedavg").strategy.model_dump() | {"rounds": ROUNDS}
    changed = small.model_dump() | {"users": users, "strategy": strategy}
    changed["runtime"] |= {"exchange": "direct"}  # one reply a round, to be told from those that ask
    run, grid = run_in(tmp_path / "run", Experiment.model_validate(changed), tamper)

    for number in range(1, ROUNDS + 1):
        assert f"round {number} went on without user-000{number - 1}" in caplog.text
    table = table_of(run)
    assert (table["failure"] == "").all() and (table["accuracy"].drop("control-blur") > 0).all()
    last = [reply for reply in grid.final_replies("train") if not reply.has_error()][-(COUNT - 1) :]
    thetas = [decode_tensors(reply.content.array_records[ARRAYS]) for reply in last]
    mean = torch.stack([theta["head.weight"] for theta in thetas]).mean(0)
    assert torch.allclose(run.theta(0)["head.weight"], mean, atol=1e-6)
    assert not torch.allclose(thetas[0]["head.weight"], mean, atol=1e-6)
