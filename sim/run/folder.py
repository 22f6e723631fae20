"""A run is a folder: what it holds, and how it gets there whole."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from flwr.app import ArrayRecord, MetricRecord
from torch import Tensor

from roles.common.files import read_json, write_atomically
from roles.common.naming import user_name
from roles.common.weights import State, load, save
from roles.evaluator.results import AttackResult, Findings, with_more
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.config.files import load_experiment
from sim.exchange.messages import decode_tensors, encode_tensors
from sim.exchange.payloads import put_together, taken_apart
from sim.run.environment import environment
from sim.run.machine import node_folder
from sim.run.ownership import claim, is_of_a_beginning
from sim.run.progress import Status
from sim.run.sealed import check_sealed, write_sealed
from sim.run.subject import Subject
from sim.run.tables import is_damaged

T = TypeVar("T")


@dataclass(frozen=True)
class Publication:
    """What is known of a user's training, beside the theta that it has published."""

    facts: dict[str, float]
    """images, steps, selected-epoch, queries, queried-images, sent-bytes, received-bytes."""
    curve: list[dict[str, float]]
    checks: list[dict[str, float]] = field(default_factory=list)
    """What its checks of the provider have found, one row each; none where it made none."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, every one of them written atomically; ``docs/RUNS.md`` lists them."""

    path: Path

    @staticmethod
    def create(path: Path, experiment: Experiment) -> "RunFolder":
        """Make the folder of a new run; a :class:`ConfigError` if there is one already, or there can be none."""
        if (path / "config.yaml").exists():
            raise ConfigError(f"{path}: holds a run already; name another folder, or resume it with --resume {path}")
        try:
            path.mkdir(parents=True, exist_ok=True)
            if other := next((one for one in path.iterdir() if not is_of_a_beginning(one)), None):
                raise ConfigError(f"{path}: holds {other.name!r}, and a run needs a folder of its own; name another")
            run = RunFolder(path)
            with claim(path, "launcher"):
                if (path / "config.yaml").exists():  # by one that began at the same time
                    raise ConfigError(f"{path}: holds a run already; name another folder")
                run.note(environment() | {"sealed": True})
                run.keep_experiment(experiment)  # last: what has a config is a run
        except OSError as error:
            raise ConfigError(f"{path}: cannot be made a run folder ({error.strerror})") from error
        return run

    @staticmethod
    def open(path: Path) -> "RunFolder":
        """Return an existing run; a :class:`ConfigError` if ``path`` is none."""
        if not (path / "config.yaml").is_file():
            raise ConfigError(f"{path}: not a run folder (it has no config.yaml)")
        return RunFolder(path)

    def experiment(self, overrides: Sequence[str] = ()) -> Experiment:
        """Return the resolved experiment, with ``overrides`` on top; an error if the file is not as it was written."""
        if self.facts().get("sealed"):  # else an earlier version has made it
            check_sealed(self.path / "config.yaml")
        return load_experiment(self.path / "config.yaml", overrides)

    def keep_experiment(self, experiment: Experiment) -> None:
        """Make this the experiment; of a run that has begun, only what changes no result, or adds one, may be new."""
        text = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)
        write_sealed(self.path / "config.yaml", text)

    def _keep(self, name: str, content: Any, indent: int | None = 1) -> None:
        write_atomically(self.path / name, json.dumps(content, indent=indent))

    def _kept(self, name: str, otherwise: T) -> T:
        path = self.path / name
        content: T = read_json(path) if path.is_file() else otherwise
        return content

    def note(self, facts: dict[str, Any]) -> None:
        """Add facts to ``run.json``."""
        self._keep("run.json", self.facts() | facts)

    def facts(self) -> dict[str, Any]:
        """Return ``run.json``."""
        return self._kept("run.json", {})

    @contextmanager
    def timing(self, name: str) -> Iterator[Callable[[], None]]:
        """Add the seconds of a block to those in ``run.json``, at its end and whenever what it yields is called."""
        began, before = time.monotonic(), self.facts().get(name, 0.0)

        def note() -> None:
            self.note({name: before + time.monotonic() - began})

        try:
            yield note
        finally:
            note()

    def has_table(self) -> bool:
        """Return whether an attempt at the run has come to its end, so that there are results."""
        return (self.path / "table.parquet").is_file()

    def is_done(self) -> bool:
        """Return whether the run is complete and nothing in it has failed: whether nothing is left to resume."""
        tables = (self.path / "table.parquet", *(self.path / "studies").glob("*.parquet"))
        return Status.read(self.path).phase == "complete" and not (self.failures() or any(map(is_damaged, tables)))

    def keep_classifier_curve(self, curve: list[dict[str, float]]) -> None:
        """Keep psi's learning curve."""
        self._keep("provider/curve.json", curve)

    def keep_load(self, rows: list[dict[str, int]]) -> None:
        """Keep what was asked of the provider, over all attempts at the run (see :class:`ProviderLoad`)."""
        self._keep("provider/load.json", rows, indent=None)

    def load(self) -> list[dict[str, int]]:
        """Return what was asked of the provider; what a killed attempt was asked last is missing."""
        return self._kept("provider/load.json", [])

    def keep_round(self, number: int, arrays: ArrayRecord, measured: dict[str, float]) -> None:
        """Note that round ``number``, from 1, is finished: the theta that is next, if any, and how it does."""
        path = self._arrays_path(number)
        if arrays:
            save(path, decode_tensors(arrays))
        rows = [row for row in self.rounds() if row["round"] < number]
        self._keep("rounds.json", [*rows, {"round": number, **measured}])
        self._keep("state/round.json", {"finished": number})
        for old in set(path.parent.glob("arrays-*.safetensors")) - {path}:
            old.unlink()

    def rounds(self) -> list[dict[str, float]]:
        """Return how the averages of rounds do on validation images, one row a round; empty if nothing is averaged."""
        return self._kept("rounds.json", [])

    def finished_rounds(self) -> int:
        """Return how many rounds are finished."""
        return self._kept("state/round.json", {"finished": 0})["finished"]

    def round_arrays(self) -> ArrayRecord:
        """Return the theta that the strategy goes on with, empty if there is none."""
        path = self._arrays_path(self.finished_rounds())
        return encode_tensors(load(path)[0]) if path.is_file() else ArrayRecord()

    def _arrays_path(self, number: int) -> Path:
        return self.path / "state" / f"arrays-{number:04d}.safetensors"

    def _user_path(self, user: int, name: str) -> Path:
        return self.path / "users" / user_name(user) / name

    def keep_user(self, user: int, theta: State, published: Publication) -> None:
        """Keep what a user has published."""
        save(self._user_path(user, "theta.safetensors"), theta)
        write_atomically(self._user_path(user, "published.json"), json.dumps(asdict(published), indent=1))

    def user(self, user: int) -> Publication | None:
        """Return what is known of a user's training, or None if it has not published."""
        path = self._user_path(user, "published.json")
        return Publication(**read_json(path)) if path.is_file() else None

    def published(self) -> list[int]:
        """Return the users that have published, in order."""
        paths = self.path.glob("users/user-*/published.json")
        return sorted(int(path.parent.name.removeprefix("user-")) for path in paths)

    def theta(self, user: int) -> State:
        """Return the theta that a user has published, empty where its protection is a key; a ValueError without one."""
        return load(self._user_path(user, "theta.safetensors"))[0]

    def keep_predictions(self, user: int, labels: Tensor) -> None:
        """Keep the labels predicted for a user's protected test images."""
        save(self._user_path(user, "predictions.safetensors"), {"labels": labels})

    def predictions(self, user: int) -> Tensor | None:
        """Return the labels predicted for a user's protected test images, or None."""
        path = self._user_path(user, "predictions.safetensors")
        return load(path)[0]["labels"] if path.is_file() else None

    def forget_training(self, user: int) -> None:
        """Delete the state of a user's training, which is large and which nothing goes on from (on this machine)."""
        shutil.rmtree(node_folder(self.path, user_name(user)), ignore_errors=True)

    def forget_sessions(self) -> None:
        """Delete what evaluators' work would go on from, once there is none left (on this machine)."""
        for folder in (self.path / "state").glob("evaluator-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def attack_path(self, subject: Subject) -> Path:
        """Return the file of what an evaluator found out about ``subject``, which is there once it has."""
        return self.path / "attacks" / subject.name / "measures.safetensors"

    def keep_attack(self, subject: Subject, result: AttackResult) -> None:
        """Keep everything an evaluator found out about ``subject``."""
        tensors, numbers = taken_apart(result)
        metrics = json.dumps({name: dict(record) for name, record in numbers.items()})
        save(self.attack_path(subject), tensors, {"metrics": metrics})

    def add_attack(self, subject: Subject, result: AttackResult) -> None:
        """Keep what an evaluator found out about ``subject`` beside what is known; of that, nothing changes.

        Raises:
            ValueError: what is known is of other test images.
        """
        before = self.attack(subject)
        self.keep_attack(subject, result if before is None else with_more(before, result))

    def attacks_on(self, subject: Subject) -> list[str]:
        """Return the names of the attacks on ``subject`` whose estimates are known."""
        result = self.attack(subject)
        return [] if result is None else list(result.estimates)

    def missing_itns(self, subject: Subject, experiment: Experiment) -> list[str]:
        """Return the names of the inverse networks that attack ``subject`` and whose estimates are not known."""
        known = self.attacks_on(subject)
        return [itn.name for itn in subject.itns_of(experiment) if itn.name not in known]

    def attack(self, subject: Subject) -> AttackResult | None:
        """Return what an evaluator found out about ``subject``, or None."""
        if not self.attack_path(subject).is_file():
            return None
        tensors, metadata = load(self.attack_path(subject))
        numbers = {name: MetricRecord(record) for name, record in json.loads(metadata["metrics"]).items()}
        return put_together(tensors, numbers)

    def keep_findings(self, study: str, part: str, published: Sequence[int], findings: Findings) -> None:
        """Keep what a part of a study has found, and among which users."""
        self._keep(f"studies/{study}/{part}.json", {"rows": findings, "published": list(published)})

    def findings(self, study: str, part: str, published: Sequence[int]) -> Findings | None:
        """Return what a part of a study has found among the users that have ``published``, or None."""
        known = self._kept(f"studies/{study}/{part}.json", {"rows": None, "published": None})
        return known["rows"] if known["published"] == list(published) else None

    def keep_pictures(self, study: str, part: str, pictures: State) -> None:
        """Keep the pictures of a part of a study, by name, uint8 ``(K, 3, H, W)``; of none there is no file."""
        path = self._pictures_path(study, part)
        if pictures:
            save(path, pictures)
        else:
            path.unlink(missing_ok=True)

    def pictures(self, study: str, part: str) -> State:
        """Return the pictures of a part of a study by name; most have none."""
        path = self._pictures_path(study, part)
        return load(path)[0] if path.is_file() else {}

    def _pictures_path(self, study: str, part: str) -> Path:
        return self.path / "studies" / study / f"{part}.safetensors"

    def keep_failure(self, name: str, reason: str) -> None:
        """Note why a user, a control or a part of a study (see :func:`part_name`) has no result."""
        self._keep(f"failures/{name}.json", {"reason": reason})

    def failures(self) -> list[str]:
        """Return everybody and everything that has no result and of which it is known why."""
        return sorted(path.stem for path in (self.path / "failures").glob("*.json"))

    def failure(self, name: str) -> str:
        """Return why something has no result; empty if nothing is known."""
        return self._kept(f"failures/{name}.json", {"reason": ""})["reason"]

    def forget_failure(self, name: str) -> None:
        """Note that something has a result after all."""
        (self.path / "failures" / f"{name}.json").unlink(missing_ok=True)

    def forget_failed_parts(self) -> None:
        """Forget which parts of studies have failed: they are tried again, or are no parts any more."""
        for path in (self.path / "failures").glob(f"{part_name('*', '*')}.json"):
            path.unlink()


def part_name(study: str, part: str) -> str:
    """Return what failures call a part of a study."""
    return f"study-{study}-{part}"
