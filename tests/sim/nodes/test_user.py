"""A user as a node: what it needs, and what it does without."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from roles.common.naming import user_name
from sim.client_app import SESSIONS
from sim.config.places import cache_folder
from sim.exchange.job import Job, job_content
from sim.exchange.messages import ARRAYS, METRICS
from sim.exchange.sessions import run_direct
from sim.nodes.provider.serving import answer_one, build_provider
from sim.nodes.user.sessions import publication
from sim.run.machine import node_folder


def test_a_user_trains_validates_and_tests_on_a_machine_without_psi_and_without_labels(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = build_provider(job)
    without = tmp_path / "cache"
    shutil.copytree(cache_folder() / "data", without / "data", ignore=shutil.ignore_patterns("*.labels.npy"))
    monkeypatch.setenv("VEILSIM_CACHE", str(without))
    elsewhere = replace(job, run=tmp_path / "elsewhere")  # no folder of the provider's
    for kind in ("train", "validate", "test"):
        content = job_content(elsewhere)
        if kind == "test":
            content[ARRAYS] = publication(elsewhere, 0).array_records[ARRAYS]
        session = SESSIONS[kind](elsewhere, 0)
        session.begin(content)
        reply = run_direct(session, lambda message_type, content: answer_one(provider, message_type, content))
        assert METRICS in reply or ARRAYS in reply


def test_what_a_user_writes_lies_in_a_folder_of_its_own(job: Job) -> None:
    provider = build_provider(job)
    before = set(job.run.rglob("*"))
    session = SESSIONS["train"](job, 0)
    session.begin(job_content(job))
    run_direct(session, lambda message_type, content: answer_one(provider, message_type, content))
    own, progress = node_folder(job.run, user_name(0)), job.run / "progress"
    written = {path for path in set(job.run.rglob("*")) - before if path.is_file()}
    assert written
    assert all(own in path.parents or progress in path.parents for path in written)
