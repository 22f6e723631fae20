"""docs/tools/paper_rows.py: what tells a row of PAPER.md from another."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd

from sim.config.files import load_experiment
from tests.sim import made_up_run

ROOT = Path(__file__).parents[2]


def test_keys_that_configs_have_had_since_do_not_tell_new_rows_from_those_that_are_kept(
    tool: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    kept = pd.read_csv(ROOT / "docs" / "results" / "paper.csv")
    copies = ["data.name=/copies/cifar10", "user.features.weights=/copies/vgg16_features9.safetensors"]
    config = ROOT / "configs" / "protection_holds.yaml"
    run = made_up_run.make(tmp_path / "run", load_experiment(config, [*copies, "runtime.precision=bf16"]))
    new = tool("paper_rows").rows_of(run.path)
    networks = new[new["protection"] == "network"]
    assert set(networks["key"]) - set(kept["key"]) == set()
    # With another of these, a run would be refused beside the rows that are kept.
    for column in ("conditions", "recipe of ITN strong"):
        assert set(new[column]) - set(kept[column]) == set()
