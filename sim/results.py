"""Results for notebooks: ``sim.load("runs/x")`` gives tables as pandas has them and pictures as numpy has them.

>>> import sim
>>> run = sim.load("runs/quickstart-20260101-120000")  # doctest: +SKIP
>>> run.table.groupby("verdict")["accuracy"].median()  # doctest: +SKIP
>>> run.measures("user-0002")["itn_strong_psnr"].hist()  # doctest: +SKIP
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roles.evaluator.attack import AttackResult, Measured
from sim.config import ConfigError, Experiment
from sim.nodes import user_name, user_of
from sim.progress import Status
from sim.runs import RunFolder, subject_of
from sim.studies import conclusion_of
from sim.sweep import SweepFolder
from sim.tables import attack_column

_LOAD = dict.fromkeys(("second", "width", "requests", "images", "bytes"), "int64")


class Run:
    """The results of one run, read from its folder when they are asked for, and then kept.

    Properties that are read are shared: copy a table before changing it.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"Run({self.experiment.name}, {self.experiment.user_count} users, {self.path})"

    @property
    def path(self) -> Path:
        """The run folder."""
        return self._folder.path

    @property
    def has_table(self) -> bool:
        """Whether the run has come to its end and :attr:`table` can be read."""
        return self._folder.has_table()

    @cached_property
    def experiment(self) -> Experiment:
        """The resolved experiment, as in ``config.yaml``."""
        return self._folder.experiment()

    @cached_property
    def facts(self) -> dict[str, Any]:
        """``run.json``: versions, hardware, psi's digest and accuracy, times in seconds."""
        return self._folder.facts()

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a user and one for the control; the columns are those of :data:`sim.result_table.COLUMNS`.

        Raises:
            ConfigError: the run has not come to its end.
        """
        if not self.has_table:
            phase = Status.read(self.path).phase
            raise ConfigError(f"{self.path}: no results yet (phase {phase}); go on: veilsim run --resume {self.path}")
        return pd.read_parquet(self.path / "table.parquet")

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The learning curves of all users that have published, one row a user and epoch.

        Columns are ``user`` (as the table's ``subject``), ``epoch``, and what a user measures: losses, accuracies in
        [0, 1], ``lr``, ``step``. NaN where an epoch has no such value.
        """
        rows: list[dict[str, object]] = []
        for number in range(self.experiment.user_count):
            published = self._folder.user(number)
            rows += [{"user": user_name(number), **row} for row in (published.curve if published else [])]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["user", "epoch"])

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """How the average of each round does on validation images, one row a round; empty if nothing is averaged.

        Columns are ``round`` (from 1), ``validation_loss`` (L_class) and ``validation_accuracy`` (in [0, 1]); with
        batch-norm statistics of their own, means over the users.
        """
        return pd.DataFrame(self._folder.rounds(), columns=["round", "validation_loss", "validation_accuracy"])

    def measures(self, subject: str) -> pd.DataFrame:
        """Return the measures of every test image under one protection, one row an image, in the test set's order.

        Columns are ``<what>_psnr`` (dB) and ``<what>_ssim``, and ``<what>_lpips`` where it was asked for; ``<what>`` is
        ``protected``, ``itn_<name>``, ``fr_attack``, ``key_attack``, ``class_mean`` or ``mean_image``, each against the
        plain image.

        Args:
            subject: ``user-0000`` or ``control-blur``, as in the table. Where users share one theta, each has the
                measures of that.

        Raises:
            ConfigError: nobody of that name was attacked.
        """
        result = self.attack(subject)
        estimates = {attack_column(name): measured for name, measured in result.estimates.items()}
        named: dict[str, Measured] = {"protected": result.protected, **estimates, **result.baselines}
        columns: dict[str, NDArray[np.float32]] = {}
        for name, measured in named.items():
            columns |= {f"{name}_psnr": measured.psnr.numpy(), f"{name}_ssim": measured.ssim.numpy()}
            if measured.lpips is not None:
                columns[f"{name}_lpips"] = measured.lpips.numpy()
        return pd.DataFrame(columns).rename_axis("image")

    def pictures(self, subject: str) -> dict[str, NDArray[np.uint8]]:
        """Return the first test images, under one protection and as attacks give them back.

        Args:
            subject: as of :meth:`measures`.

        Returns:
            by ``plain``, ``protected``, the name of each inverse network, ``fr_attack`` and ``key_attack``: uint8
            ``(N, H, W, 3)``, RGB; N is the config's ``attack.pictures``, or the number of test images if that is
            smaller.

        Raises:
            ConfigError: nobody of that name was attacked.
        """
        result = self.attack(subject)
        names = ("plain", "protected", *result.estimates)
        return {name: result.pictures[name].permute(0, 2, 3, 1).numpy() for name in names}

    def attack(self, subject: str) -> AttackResult:
        """Return what :meth:`measures` and :meth:`pictures` are made of, as tensors, with the attacker's curves.

        Raises:
            ConfigError: nobody of that name was attacked.
        """
        users = {user_name(number) for number in range(self.experiment.user_count)}
        attacked = subject_of(self.experiment, user_of(subject)) if subject in users else subject
        result = self._folder.attack(attacked)
        if result is None:
            found = sorted(path.parent.name for path in self.path.glob("attacks/*/measures.safetensors"))
            there = f"there are {', '.join(found[:4])}{' ...' if len(found) > 4 else ''}" if found else "there is none"
            raise ConfigError(f"{self.path}: no attack on {subject!r}: {there}")
        return result

    @cached_property
    def studies(self) -> dict[str, pd.DataFrame]:
        """The tables of ``studies/``, by name; empty if the run made none."""
        return {path.stem: pd.read_parquet(path) for path in sorted((self.path / "studies").glob("*.parquet"))}

    @cached_property
    def conclusions(self) -> dict[str, str]:
        """What each study amounts to, in a sentence or two, by its name."""
        return {study.kind: conclusion_of(study, self._folder, self.experiment) for study in self.experiment.studies}

    @cached_property
    def provider_load(self) -> pd.DataFrame:
        """What the provider was asked for, one row a second, or some seconds of a long run.

        Columns are ``second`` (Unix time, the first that a row covers), ``width`` (how many it covers), ``requests``,
        ``images`` and ``bytes``, all integers; no rows if the run kept no such account.
        """
        path = self.path / "provider" / "load.json"
        rows = json.loads(path.read_text()) if path.is_file() else []
        return pd.DataFrame(rows, columns=list(_LOAD)).astype(_LOAD)


class Sweep:
    """The results of a sweep: those of its cells, and one table of all."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"Sweep({len(self.cells)} cells, {self.path})"

    @property
    def path(self) -> Path:
        """The folder of the sweep."""
        return self._folder.path

    @cached_property
    def cells(self) -> dict[str, Run]:
        """Each cell's run, by the name of its folder, in the order of the sweep; those that have not run as well."""
        return {run.path.name: Run(run) for run in self._folder.runs()}

    @cached_property
    def table(self) -> pd.DataFrame:
        """The tables of all complete cells under each other, the axes (texts, by dotted key) in front; may be empty."""
        return self._folder.table()


def load(path: str | Path) -> Run | Sweep:
    """Return the results in a run folder, or in the folder of a sweep.

    Raises:
        ConfigError: ``path`` is neither. (It is a ValueError.)
    """
    folder = Path(path).expanduser().resolve()
    if SweepFolder.is_one(folder):
        return Sweep(SweepFolder(folder))
    if not (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder}: neither a run folder (config.yaml) nor that of a sweep (sweep.json)")
    return Run(RunFolder.open(folder))
