"""A run is a folder: what it holds, and how it gets there whole."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from flwr.app import ArrayRecord, MetricRecord, RecordDict

from roles.common.exchange import Published, Theta
from roles.common.weights import State, load, save
from roles.evaluator.attack import AttackResult
from roles.evaluator.study import Findings
from sim.config import ConfigError, Experiment
from sim.config_files import load_experiment
from sim.messages import PUBLISHED, decode_request, decode_tensors, encode_answer, encode_refusal, encode_tensors
from sim.nodes import user_name
from sim.progress import Status, write_atomically
from sim.result_messages import decode_attack, encode_attack

_PACKAGES = (
    "flwr",
    "flwr-datasets",
    "ray",
    "torch",
    "torchvision",
    "datasets",
    "numpy",
    "torchmetrics",
    "scikit-learn",
)


@dataclass(frozen=True)
class Publication:
    """What is known of a user's training, beside the theta that it has published."""

    facts: dict[str, float]
    """images, steps, selected-epoch, queries, queried-images, sent-bytes, received-bytes."""
    curve: list[dict[str, float]]


def subject_of(experiment: Experiment, user: int) -> str:
    """Return under which name a user's transformer is attacked: one that all publish has one name."""
    return "shared" if experiment.strategy.publishes_one else user_name(user)


class RunFolder:
    """The files of one run; every one of them is written atomically.

    ========================  ===================================================================
    ``config.yaml``           the resolved experiment: running it again gives this run again
    ``run.json``              versions, hardware, psi's digest and accuracy, times
    ``table.csv``, ``.parquet``  one row a user, and one a control; ``columns.md`` says what they hold
    ``summary.md``            the same in words
    ``figures/``              PNG and PDF
    ``tensorboard/``          event files, where they were asked for
    ``rounds.json``           of a strategy that averages: how each round's average does on validation images
    ``provider/``             psi.safetensors, psi.json and its learning curve, the other classifiers likewise;
                              load.json: what was asked of it, by the second
    ``users/user-0000/``      theta.safetensors, facts and learning curve, predicted labels
    ``attacks/user-0000/``    measures of every test image, curves, pictures (``shared``: of the theta of all)
    ``studies/``              a table a study, CSV and Parquet, and what each part of it has found
    ``failures/``             why a user, a control or a part of a study has no result
    ``state/``, ``progress/``  what a killed run resumes from; what it is doing
    ========================  ===================================================================
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(path: Path, experiment: Experiment) -> "RunFolder":
        """Make the folder of a new run.

        Raises:
            ConfigError: there is one already, or there can be none.
        """
        if (path / "config.yaml").exists():
            raise ConfigError(f"{path}: holds a run already; name another folder, or resume it with --resume {path}")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be made a folder ({error.strerror})") from error
        run = RunFolder(path)
        run._keep_experiment(experiment)
        run.note(environment())
        return run

    @staticmethod
    def open(path: Path) -> "RunFolder":
        """Return an existing run.

        Raises:
            ConfigError: ``path`` is none.
        """
        if not (path / "config.yaml").is_file():
            raise ConfigError(f"{path}: not a run folder (it has no config.yaml)")
        return RunFolder(path)

    def experiment(self) -> Experiment:
        """Return the resolved experiment."""
        return load_experiment(self.path / "config.yaml")

    def override(self, overrides: Sequence[str]) -> None:
        """Change the experiment by ``key=value`` overrides, which must be such as change no result.

        Raises:
            ConfigError: one cannot be applied.
        """
        self._keep_experiment(load_experiment(self.path / "config.yaml", overrides))

    def _keep_experiment(self, experiment: Experiment) -> None:
        self._write("config.yaml", yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False))

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text)

    def _read_json(self, name: str) -> Any:
        path = self.path / name
        return json.loads(path.read_text()) if path.is_file() else {}

    # ---- facts about the run -----------------------------------------------------------------------------------

    def note(self, facts: dict[str, Any]) -> None:
        """Add facts to ``run.json``."""
        self._write("run.json", json.dumps(self.facts() | facts, indent=1))

    @contextmanager
    def timing(self, name: str) -> Iterator[Callable[[], None]]:
        """Add the seconds that a block takes to a time in ``run.json``, which counts over all attempts at the run.

        Yields:
            A function that adds those so far, for a block that may be killed.
        """
        last = time.monotonic()

        def note() -> None:
            nonlocal last
            now = time.monotonic()
            self.note({name: self.facts().get(name, 0.0) + now - last})
            last = now

        try:
            yield note
        finally:
            note()

    def has_table(self) -> bool:
        """Return whether an attempt at the run has come to its end, so that there are results."""
        return (self.path / "table.parquet").is_file()

    def is_done(self) -> bool:
        """Return whether the run is complete and nothing in it has failed: whether nothing is left to resume."""
        return Status.read(self.path).phase == "complete" and not self.failures()

    def facts(self) -> dict[str, Any]:
        """Return ``run.json``."""
        facts: dict[str, Any] = self._read_json("run.json")
        return facts

    def keep_classifier_curve(self, curve: list[dict[str, float]]) -> None:
        """Keep psi's learning curve."""
        self._write("provider/curve.json", json.dumps(curve, indent=1))

    def keep_load(self, rows: list[dict[str, int]]) -> None:
        """Keep what was asked of the provider, over all attempts at the run (see :class:`ProviderLoad`)."""
        self._write("provider/load.json", json.dumps(rows))

    def load(self) -> list[dict[str, int]]:
        """Return what is known to have been asked of the provider so far.

        Of an attempt that was killed, the last seconds are missing and, in direct exchange, everything: its provider
        counts in memory and tells at the end of the run.
        """
        rows: list[dict[str, int]] = self._read_json("provider/load.json") or []
        return rows

    # ---- rounds ------------------------------------------------------------------------------------------------

    def keep_round(self, number: int, arrays: ArrayRecord, measured: dict[str, float]) -> None:
        """Note that a round is finished.

        Args:
            number: of the round, from 1.
            arrays: the theta that the strategy would send out next (or none).
            measured: how that does on validation images, by the names of learning curves.
        """
        if arrays:
            save(self._arrays_file(number), decode_tensors(arrays))
        rows = [row for row in self.rounds() if row["round"] < number]
        self._write("rounds.json", json.dumps([*rows, {"round": number, **measured}], indent=1))
        self._write("state/round.json", json.dumps({"finished": number}))
        for old in (self.path / "state").glob("arrays-*.safetensors"):
            if old != self._arrays_file(number):
                old.unlink()

    def rounds(self) -> list[dict[str, float]]:
        """Return how the averages of rounds do on validation images, one row a round; empty if nothing is averaged."""
        rows: list[dict[str, float]] = self._read_json("rounds.json") or []
        return rows

    def finished_rounds(self) -> int:
        """Return how many rounds are finished."""
        return int(self._read_json("state/round.json").get("finished", 0))

    def round_arrays(self) -> ArrayRecord:
        """Return the theta that the strategy goes on with, empty if there is none."""
        path = self._arrays_file(self.finished_rounds())
        return encode_tensors(load(path)[0]) if path.is_file() else ArrayRecord()

    def _arrays_file(self, number: int) -> Path:
        return self.path / "state" / f"arrays-{number:04d}.safetensors"

    # ---- results -----------------------------------------------------------------------------------------------

    def keep_user(self, user: int, theta: State, published: Publication) -> None:
        """Keep what a user has published."""
        folder = f"users/{user_name(user)}"
        save(self.path / folder / "theta.safetensors", theta)
        self._write(
            f"{folder}/published.json", json.dumps({"facts": published.facts, "curve": published.curve}, indent=1)
        )

    def user(self, user: int) -> Publication | None:
        """Return what is known of a user's training, or None if it has not published."""
        folder = f"users/{user_name(user)}"
        known = self._read_json(f"{folder}/published.json")
        return Publication(known["facts"], known["curve"]) if known else None

    def is_published(self, user: int) -> bool:
        """Return whether a user has published its transformer."""
        return (self.path / f"users/{user_name(user)}" / "published.json").is_file()

    def theta(self, user: int) -> State:
        """Return the theta that a user has published; empty where its protection is a key.

        Raises:
            ValueError: it has not, or the file is damaged.
        """
        return load(self.path / f"users/{user_name(user)}" / "theta.safetensors")[0]

    def keep_predictions(self, user: int, labels: torch.Tensor) -> None:
        """Keep the labels predicted for a user's protected test images."""
        save(self.path / f"users/{user_name(user)}" / "predictions.safetensors", {"labels": labels})

    def predictions(self, user: int) -> torch.Tensor | None:
        """Return the labels predicted for a user's protected test images, or None."""
        path = self.path / f"users/{user_name(user)}" / "predictions.safetensors"
        return load(path)[0]["labels"] if path.is_file() else None

    def keep_attack(self, subject: str, result: AttackResult) -> None:
        """Keep everything an evaluator found out about ``subject``."""
        content = encode_attack(result)
        numbers = {name: dict(record) for name, record in content.metric_records.items()}
        tensors = decode_tensors(content.array_records["arrays"])
        save(self.attack_path(subject), tensors, {"metrics": json.dumps(numbers)})

    def attack_path(self, subject: str) -> Path:
        """Return the file of what an evaluator found out about ``subject``, which is there once it has."""
        return self.path / "attacks" / subject / "measures.safetensors"

    def attack(self, subject: str) -> AttackResult | None:
        """Return what an evaluator found out about ``subject``, or None."""
        path = self.attack_path(subject)
        if not path.is_file():
            return None
        tensors, metadata = load(path)
        metrics = {name: MetricRecord(record) for name, record in json.loads(metadata["metrics"]).items()}
        return decode_attack(RecordDict({"arrays": encode_tensors(tensors), **metrics}))

    def keep_findings(self, study: str, part: str, published: Sequence[int], findings: Findings) -> None:
        """Keep what a part of a study has found, and among which users."""
        self._write(self._findings_name(study, part), json.dumps({"rows": findings, "published": list(published)}))

    def findings(self, study: str, part: str, published: Sequence[int]) -> Findings | None:
        """Return what a part of a study has found among the users that have ``published``, or None."""
        known = self._read_json(self._findings_name(study, part))
        rows: Findings | None = known.get("rows")
        return rows if known.get("published") == list(published) else None

    def _findings_name(self, study: str, part: str) -> str:
        return f"studies/{study}/{part}.json"

    def keep_failure(self, subject: str, reason: str) -> None:
        """Note why ``subject`` has no result."""
        self._write(f"failures/{subject}.json", json.dumps({"reason": reason}))

    def forget_failure(self, subject: str) -> None:
        """Note that ``subject`` has a result after all."""
        (self.path / "failures" / f"{subject}.json").unlink(missing_ok=True)

    def failures(self) -> list[str]:
        """Return everybody and everything that has no result and of which it is known why."""
        return sorted(path.stem for path in (self.path / "failures").glob("*.json"))

    def failure(self, subject: str) -> str:
        """Return why ``subject`` has no result; empty if nothing is known."""
        return str(self._read_json(f"failures/{subject}.json").get("reason", ""))


def answer_published(path: Path, content: RecordDict) -> RecordDict:
    """Answer a request for a published theta, or say in one line why not.

    Args:
        path: the run's folder.
        content: the encoded request.
    """
    try:
        request = decode_request(PUBLISHED, content)
        assert isinstance(request, Published)
        return encode_answer(Theta(RunFolder(path).theta(request.user)))
    except ValueError as error:
        return encode_refusal(error)


def environment() -> dict[str, Any]:
    """Return what a result depends on beside its config: versions and hardware."""
    return {
        "veilsim": version("veilsim"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "command": sys.argv[1:],
    }


def hardware(facts: Mapping[str, Any], experiment: Experiment) -> str:
    """Return what a run's networks were trained on; ``facts`` is ``run.json``."""
    return str(facts["gpu"] if experiment.runtime.gpu_fraction else facts["processor"])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
