"""The deployment of docs/DEPLOYMENT.md: one SuperLink and four SuperNodes as processes, with TLS and authentication."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sim.run.progress import Status
from tests.sim.deployment import NODES, Deployment, command_of, config_in, processes_in, simulated

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("openssl", "ssh-keygen", "curl"))), reason="needs openssl, ssh-keygen and curl"
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a deployment, of which nothing runs after the test."""
    path = tmp_path / "deployed"
    path.mkdir()
    yield path
    for process in processes_in(path):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def test_nodes_that_are_killed_and_started_again_change_nothing_and_nothing_is_left_running(
    folder: Path, tmp_path: Path
) -> None:
    config, overrides = config_in(tmp_path, epochs=800), "strategy.rounds=8"
    deployment = Deployment(folder, config, overrides)
    for user in ("user-0", "user-1"):
        deployment.wait_for(f"{user}.log", "Receiving: train message")
    time.sleep(15)  # its process starts, and trains
    deployment.kill_and_start("provider")
    deployment.kill_and_start("user-1")
    table = deployment.table()
    said = deployment.said()
    assert "user 1 is asked again" in said and "the provider is asked again" in said
    for node in NODES:
        assert list((folder / node / "state").iterdir())  # each writes in its own folder
    deployment.end_restarted()
    assert deployment.ends()
    assert table == simulated(config, overrides, tmp_path / "run")


def test_by_relay_it_is_the_same_also_of_a_run_that_goes_on_after_its_superlink_was_killed(
    folder: Path, tmp_path: Path
) -> None:
    config = config_in(tmp_path, epochs=1)
    overrides = "runtime.exchange=relay users.images=16 strategy.rounds=1 studies=[]"
    deployment = Deployment(folder, config, overrides)
    deployment.wait_for("user-0.log", "Receiving: train message")
    (run,) = (folder / "superlink" / "runs").iterdir()
    (superlink,) = [one for one in deployment.processes() if "flower-superlink --host" in command_of(one)]
    superlink.kill()
    with pytest.raises(AssertionError, match=f"the run failed: .* goes on with RUN={run}"):
        deployment.run()
    assert deployment.ends()
    assert Status.read(run).phase in ("classifier", "users")
    resumed = Deployment(folder, config, "", run)
    assert resumed.run() == run
    assert (run / "table.csv").read_bytes() == simulated(config, overrides, tmp_path / "run")
