"""Results for notebooks: ``sim.load("runs/x")`` gives tables as pandas has them and pictures as numpy has them.

>>> import sim
>>> run = sim.load("runs/quickstart-20260101-120000")  # doctest: +SKIP
>>> run.table.groupby("verdict")["accuracy"].median()  # doctest: +SKIP
>>> run.measures(2)["itn_strong_psnr"].hist()  # doctest: +SKIP
>>> measures, estimates = run.attack(2, "strong")  # doctest: +SKIP
"""

from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from roles.common.config.attack import ItnConfig
from roles.common.config.user import has_key
from roles.common.naming import user_name
from roles.common.protection import protection_of
from roles.common.transform import apply_network
from roles.evaluator.attacker import Attacker
from roles.evaluator.measures import psnr, ssim
from roles.evaluator.results import AttackResult
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.report.columns import attack_column
from sim.report.notebook import in_html
from sim.report.sprites import Pictures
from sim.report.studies import conclusion_of
from sim.report.summary import control_in_a_word, extremes_in_words, headline
from sim.report.table import best_attack_on, short_of, verdict_counts
from sim.run.folder import RunFolder
from sim.run.machine import compute_of, store_of
from sim.run.progress import Status
from sim.run.subject import CONTROL, Subject
from sim.run.sweep import SweepFolder
from sim.run.tables import read_table

_MOST_IN_STRIP = 6


class Run:
    """The results of one run, read from its folder when they are asked for, and kept: copy a table to change it."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.path = folder.path

    def __repr__(self) -> str:
        if not self.has_table:
            return f"{self.experiment.name}: no results yet ({self.path})"
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in verdict_counts(self.table).items())
        return f"{self.experiment.name}: {headline(self.table, self.facts)}\n{verdicts} ({self.path})"

    def _repr_html_(self) -> str:
        if not self.has_table:
            return f"<p>{escape(repr(self))}</p>"
        strips = [(words, self._strip(name)) for name, words in extremes_in_words(self.table).items()]
        return in_html(
            self.experiment.name, headline(self.table, self.facts), self.short, control_in_a_word(self.table), strips
        )

    def _strip(self, subject: str) -> list[NDArray[np.uint8]]:
        pictures, names = self.pictures(subject), ("plain", "protected", best_attack_on(self.table, subject))
        return [pictures[name][:_MOST_IN_STRIP] for name in names]

    @property
    def has_table(self) -> bool:
        """Whether the run has come to its end and :attr:`table` can be read."""
        return self.folder.has_table()

    @cached_property
    def experiment(self) -> Experiment:
        """The resolved experiment, as in ``config.yaml``."""
        return self.folder.experiment()

    @cached_property
    def facts(self) -> dict[str, Any]:
        """``run.json``: versions, hardware, psi's digest and accuracy, times in seconds."""
        return self.folder.facts()

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a user and one for the control; ``columns.md`` in the run folder says what columns hold.

        Raises:
            ConfigError: the run has not come to its end.
        """
        if not self.has_table:
            phase = Status.read(self.path).phase
            raise ConfigError(f"{self.path}: no results yet (phase {phase}); go on: veilsim run --resume {self.path}")
        return read_table(self.path / "table.parquet")

    @property
    def short(self) -> pd.DataFrame:
        """Of :attr:`table`, what is asked for first, with what the best attack on each user found."""
        return short_of(self.table)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """The learning curves of all users that have published, one row a user and epoch.

        Columns are ``user`` (as the table's ``subject``), ``epoch``, ``step``, ``lr``, losses, accuracies in [0, 1].
        """
        published = {user_name(user): self.folder.user(user) for user in self.folder.published()}
        rows = [{"user": name, **row} for name, found in published.items() if found for row in found.curve]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["user", "epoch"])

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """Loss (L_class) and accuracy (in [0, 1]) of the average of each round on validation images; may be empty."""
        return pd.DataFrame(self.folder.rounds(), columns=["round", "validation_loss", "validation_accuracy"])

    @cached_property
    def studies(self) -> dict[str, pd.DataFrame]:
        """The tables of ``studies/``, by name; empty if the run made none."""
        return {path.stem: read_table(path) for path in sorted((self.path / "studies").glob("*.parquet"))}

    @cached_property
    def conclusions(self) -> dict[str, str]:
        """What each study amounts to, in a sentence or two, by its name."""
        return {study.kind: conclusion_of(study, self.folder, self.experiment) for study in self.experiment.studies}

    @cached_property
    def provider_load(self) -> pd.DataFrame:
        """What the provider was asked for, in integers; no rows if the run kept no such account.

        A row covers as many seconds as its ``width``, from ``second`` on (Unix time).
        """
        columns = ["second", "width", "requests", "images", "bytes"]
        return pd.DataFrame(self.folder.load(), columns=columns, dtype="int64")

    def measures(self, subject: str | int) -> pd.DataFrame:
        """Return the measures of every test image under one protection, one row an image, in the test set's order.

        Columns are ``<what>_psnr`` (dB) and ``<what>_ssim``, and ``<what>_lpips`` where it was asked for, against the
        plain image; ``<what>`` is ``protected``, ``class_mean``, ``mean_image`` or, as in the table, an attack.

        Args:
            subject: a user's number or, as in the table, its name or ``control-blur``. Where users share one theta,
                each has the measures of that.

        Raises:
            ConfigError: nobody of that name was attacked.
        """
        result = self.attack_result(subject)
        estimates = {attack_column(name): measured for name, measured in result.estimates.items()}
        named = {"protected": result.protected, **estimates, **result.baselines}
        columns = {f"{what}_{of}": getattr(named[what], of) for what in named for of in ("psnr", "ssim", "lpips")}
        known = {column: values.numpy() for column, values in columns.items() if values is not None}
        return pd.DataFrame(known).rename_axis("image")

    def pictures(self, subject: str | int) -> Pictures:
        """Return the test images that the run has kept, plain, under one protection and as attacks estimate them.

        Args:
            subject: as of :meth:`measures`.

        Raises:
            ConfigError: nobody of that name was attacked.
        """
        return pictures_of(self.attack_result(subject))

    def attack_result(self, subject: str | int) -> AttackResult:
        """Return what :meth:`measures` and :meth:`pictures` are made of, as tensors, with the attacker's curves.

        Raises:
            ConfigError: nobody of that name was attacked.
        """
        users = {user_name(user): Subject.of(self.experiment, user) for user in range(self.experiment.user_count)}
        known = users | {of.name: of for of in (*users.values(), CONTROL)}
        name = user_name(subject) if isinstance(subject, int) else subject
        if (result := self.folder.attack(known[name]) if name in known else None) is None:
            found = sorted(path.parent.name for path in self.path.glob("attacks/*/measures.safetensors"))
            there = f"there are {', '.join(found[:4])}{' ...' if len(found) > 4 else ''}" if found else "there is none"
            raise ConfigError(f"{self.path}: no attack on {name!r}: {there}")
        return result

    def attack(self, user: int, itn: ItnConfig | str) -> tuple[pd.DataFrame, NDArray[np.uint8]]:
        """Train an inverse network against what a user has published, as an evaluator of the run would.

        Args:
            user: its number.
            itn: the network, or the name of one of the run's: on the machine of the run, its estimates are the same
                again, bit for bit.

        Returns:
            measures of every test image that the run attacks, ``psnr`` (dB) and ``ssim``, one row an image; and the
            estimates of these images, uint8 ``(N, H, W, 3)``, RGB.

        Raises:
            ConfigError: the run has no inverse network of that name.
            ValueError: the user has not published, or the inverse network diverged.
        """
        experiment, config = self.experiment, self.experiment.user_config(user)
        own = {known.name: known for known in experiment.attack.itns}
        if isinstance(itn, str) and itn not in own:
            raise ConfigError(f"{self.path}: no inverse network {itn!r}: its config has {', '.join(own)}")
        itn = own[itn] if isinstance(itn, str) else itn
        store, compute, seed = store_of(experiment), compute_of(experiment), experiment.attack_seed
        attacker = Attacker(store, None, experiment.attack, compute, seed, progress=lambda step, total, loss: None)
        protect = protection_of(config, user, experiment.seed, self.folder.theta(user), compute)
        network, _ = attacker.inverse_network(itn, protect, keyed=has_key(config.protection))
        plain, positions = attacker.test_images
        estimates = apply_network(network, protect(plain, "test", positions), compute)
        measures = {"psnr": psnr(estimates, plain).numpy(), "ssim": ssim(estimates, plain).numpy()}
        return pd.DataFrame(measures).rename_axis("image"), estimates.permute(0, 2, 3, 1).numpy()


class Sweep:
    """The results of a sweep: those of its cells, and one table of all."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self.path = folder.path

    def __repr__(self) -> str:
        return f"Sweep({len(self.cells)} cells, {self.path})"

    @cached_property
    def cells(self) -> dict[str, Run]:
        """Each cell's run, by the name of its folder, in the order of the sweep; those that have not run as well."""
        return {run.path.name: Run(run) for run in self.folder.runs()}

    @cached_property
    def table(self) -> pd.DataFrame:
        """The tables of all complete cells under each other, the axes (texts, by dotted key) in front; may be empty."""
        return self.folder.table()


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


def pictures_of(result: AttackResult) -> Pictures:
    """Return the pictures of an attack as :meth:`Run.pictures` does."""
    names = ("plain", "protected", *result.estimates, "class_mean")
    return {name: result.pictures[name].permute(0, 2, 3, 1).numpy() for name in names if name in result.pictures}
