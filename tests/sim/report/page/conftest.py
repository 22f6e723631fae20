"""What the tests of a run's page share: the run, and the page."""

import json

import pandas as pd
import pytest

from roles.evaluator.study import Lines
from sim.report.figures.studies import draw_study
from sim.report.page.write import write_page
from sim.run.folder import RunFolder
from tests.sim import made_up_run
from tests.sim.report.page.parsed import EVIL, Page


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Five users with names, studies and an account of the provider's load; the last user has failed."""
    settings = [{"alpha": 0.005}, {"alpha": 0.05, "width": 32}]
    experiment = made_up_run.experiment_of(5, users={"count": 5, "settings": settings})
    run = made_up_run.make(tmp_path_factory.mktemp("page") / "run", experiment, failed={4: EVIL})
    names = [f"user-{user:04d}" for user in range(4)]
    pairs = [
        {"attacker": a, "victim": v, "gain_ssim": (i - j) / 10}
        for i, a in enumerate(names)
        for j, v in enumerate(names)
    ]
    studies = run.path / "studies"
    studies.mkdir()
    pd.DataFrame(pairs).to_parquet(studies / "transfer.parquet")
    pd.DataFrame({EVIL: range(300), "share": 0.5}).to_parquet(studies / "pooling.parquet")
    for name in ("pooling", "transfer"):  # a transfer matrix is drawn in the page itself
        draw_study(
            run.path / "figures" / f"study-{name}", Lines("share", "share", "", ""), pd.DataFrame({"share": [1.0]})
        )
    (run.path / "provider").mkdir(exist_ok=True)
    load = [
        {"second": 1_764_000_000 + 2 * at, "width": 1, "requests": 5, "images": 160, "bytes": 10**6} for at in range(30)
    ]
    (run.path / "provider" / "load.json").write_text(json.dumps(load))
    return run


@pytest.fixture(scope="session")
def page(run: RunFolder) -> Page:
    return Page(write_page([run.path]))
