"""A user as a node: what it needs, and what it does without."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from roles.common.exchange import Answer, Request
from roles.common.naming import user_name
from sim.client_app import SESSIONS
from sim.config.places import cache_folder
from sim.exchange.job import Job, job_content
from sim.exchange.messages import ARRAYS, METRICS
from sim.exchange.sessions import SessionStore, run_direct
from sim.exchange.suspension import REQUEST, decode_resume
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
        reply = run_direct(session, provider.answer)
        assert METRICS in reply or ARRAYS in reply


@pytest.mark.parametrize("way", ["direct", "relayed"])
def test_what_a_user_writes_lies_in_a_folder_of_its_own(job: Job, way: str) -> None:
    provider, own = build_provider(job), node_folder(job.run, user_name(0))
    before, written = set(job.run.rglob("*")), set[Path]()

    def look() -> None:
        written.update(path for path in set(job.run.rglob("*")) - before if path.is_file())

    def answered(request: Request) -> Answer:
        look()
        return provider.answer(request)

    if way == "direct":
        session = SESSIONS["train"](job, 0)
        session.begin(job_content(job))
        run_direct(session, answered)
    else:
        store = SessionStore(SESSIONS, on_disk=True)
        reply = store.start("train", job, 0, own, job_content(job))
        while REQUEST in reply.config_records:
            ticket, request = decode_resume(reply)
            message_type = str(reply.config_records[REQUEST]["type"])
            look()
            reply = store.resume(ticket, job, 0, own, answer_one(provider, message_type, request))
        assert own / "waiting" / "train.safetensors" in written
    assert {own, job.run / "progress"} >= {path.parent for path in written if path.parent.name != "waiting"}
    assert {own} >= {path.parent.parent for path in written if path.parent.name == "waiting"}
