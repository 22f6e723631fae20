"""What becomes of trained transformers, with nobody there to do it."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sim.config.experiment import Experiment
from sim.exchange.job import Job
from sim.phases.evaluation import Evaluation
from sim.phases.roster import Roster
from sim.run.folder import Publication, RunFolder
from sim.run.progress import Board


def test_who_has_published_is_looked_up_once_however_many_users_there_are(
    small: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up, run, asked = list[RunFolder](), RunFolder(tmp_path), list[list[int]]()
    run.keep_user(3, {}, Publication({}, []))
    published = RunFolder.published
    monkeypatch.setattr(RunFolder, "published", lambda self: looked_up.append(self) or published(self))
    relay = SimpleNamespace(submit=lambda nodes, message_to, finished, first: asked.append(nodes))
    users = list(range(100, 150))
    roster = SimpleNamespace(run=run, job=Job(small, tmp_path), users=users, evaluators=[1], provider=0, relay=relay)
    roster.board = Board(tmp_path, {}, itns=1)
    evaluation = Evaluation(cast(Roster, roster), lambda user: None)
    for user in range(len(users)):
        evaluation.add(user)
    assert len(looked_up) == 1
    # Of the one that has published, the control is attacked, before its test images are asked for.
    assert asked == [[node] for node in users[:3]] + [[1]] + [[node] for node in users[3:]]
