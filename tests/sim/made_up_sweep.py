"""Sweeps over a small experiment, and cells with made-up tables."""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sim.run.progress import Status
from sim.run.sweep import SweepFolder, load_cells

BASE: dict[str, Any] = {
    "name": "small",
    "users": {"count": 2, "settings": [{"alpha": 0.1}, {"alpha": 0.2}]},
    "attack": {"itns": [{"name": "strong", "training": {"epochs": 1}}]},
}


def config_with(tmp_path: Path, sweep: Any) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(BASE | {"sweep": sweep}, sort_keys=False))
    return path


def row(subject: str, accuracy: float, setting: str | None = None, **more: Any) -> dict[str, Any]:
    if setting is not None:
        more = {"protection": "network", "phi": "relu1_2", "alpha": float(setting.split()[1]), "width": 16} | more
    measures = {"plain_accuracy": 0.8, "protected_psnr": 10.0, "protected_ssim": 0.1, "class_mean_psnr": 12.0}
    measures |= {"class_mean_ssim": 0.2, "itn_strong_psnr": 20.0, "itn_strong_ssim": 0.7, "verdict": "recovered"}
    return {"subject": subject, "setting": setting, "accuracy": accuracy, **measures, **more}


def finish(sweep: SweepFolder, number: int, accuracy: float) -> None:
    run = sweep.runs()[number].path
    rows = [row("user-0000", accuracy, "alpha 0.1"), row("user-0001", accuracy - 0.1, "alpha 0.2")]
    pd.DataFrame([*rows, row("control-blur", 0.3)]).to_parquet(run / "table.parquet")
    Status("complete").write(run)


def start(tmp_path: Path) -> SweepFolder:
    """Two classifiers and two seeds of each: four cells, none of which has a table."""
    path = config_with(tmp_path, {"classifier.name": ["resnet20", "vgg16_bn"], "seed": [0, 1]})
    return SweepFolder.create(tmp_path / "out", "small", load_cells(path))
