"""What a user's node keeps of its training between messages and rounds: a folder that is its own."""

import json
from pathlib import Path

from roles.common.naming import user_name
from roles.common.weights import State, groups_of, load, save
from roles.user.base import TrainingResult, UserTraining
from roles.user.encrypted_training import EncryptedTraining, encrypted_training_result
from roles.user.training import TransformerTraining, trained_transformer
from sim.exchange.job import Job
from sim.run.machine import compute_of, node_folder, store_of


def new_training(job: Job, user: int) -> UserTraining:
    """Return a user's training at its very start."""
    experiment = job.experiment
    config, store = experiment.user_config(user), store_of(experiment)
    if config.trains_network:
        least = experiment.provider.defence.least_batch
        return TransformerTraining(config, user, experiment.seed, store, compute_of(experiment), least)
    return EncryptedTraining(config, experiment.classifier.training.epochs, user, experiment.seed, store)


class UserState:
    """One user's training as files: after each round and, where the provider learns with it, before each request."""

    def __init__(self, job: Job, user: int) -> None:
        self._job, self._user = job, user
        self._folder = node_folder(job.run, user_name(user))
        self._before_request = self._folder / "request.safetensors"
        experiment = job.experiment
        hijacked = experiment.provider.hijack_of(user) is not None
        self.before_requests = hijacked or not experiment.user_config(user).trains_network
        """Whether the state is kept before each request: what the provider has learned of it, it cannot learn again."""

    def training_after(self, finished: int) -> UserTraining:
        """Return the training as it was after ``finished`` rounds, some of which the user may have sat out.

        Raises:
            ValueError: the state on disk is damaged.
        """
        training, files = new_training(self._job, self._user), self._rounds()
        usable = [number for number in files if number <= finished]
        if usable:
            _restore(training, files[max(usable)])
        if self.before_requests and self._before_request.is_file():
            # What the provider has fitted it cannot fit again: this training goes on from there, whatever the round.
            _restore(training, self._before_request)
        return training

    def keep_round(self, number: int, training: UserTraining) -> None:
        """Write the training as it is after round ``number``.

        The state before stays as well: a run that is killed in the next round resumes from this one, and one that is
        killed before the ServerApp has noted this round resumes from the one before.
        """
        before = [other for other in self._rounds() if other < number]
        _keep(training, self._folder / f"round-{number:04d}.safetensors")
        for other, old in self._rounds().items():
            if other > number or (before and other < max(before)):
                old.unlink()

    def keep_request(self, training: UserTraining) -> None:
        """Write the training as it is before its next request."""
        _keep(training, self._before_request)

    def trained(self, of_average: bool) -> tuple[TrainingResult, State]:
        """Return what the training has come to, and h_theta as it was at its end.

        Args:
            of_average: whether the last round that the user has finished will do, of those that others went on with.

        Raises:
            ValueError: the user has not finished its training or, where there is an average, no round of it.
        """
        files, experiment = self._rounds(), self._job.experiment
        path = files.get(max(files, default=0) if of_average else experiment.strategy.rounds)
        if path is None:
            raise ValueError(f"user {self._user} has not finished its training")
        tensors, metadata = load(path)
        network = experiment.user_config(self._user).trains_network
        result = trained_transformer if network else encrypted_training_result
        return result(tensors, json.loads(metadata["numbers"])), groups_of(tensors)["theta"]

    def _rounds(self) -> dict[int, Path]:
        paths = self._folder.glob("round-*.safetensors")
        return {int(path.stem.removeprefix("round-")): path for path in paths}


def _keep(training: UserTraining, path: Path) -> None:
    tensors, numbers = training.checkpoint()
    save(path, tensors, {"numbers": json.dumps(numbers)})


def _restore(training: UserTraining, path: Path) -> None:
    tensors, metadata = load(path)
    try:
        training.restore(tensors, json.loads(metadata["numbers"]))
    except KeyError as error:
        raise ValueError(
            f"{path}: written by another version of veilsim (it has no {error}): start a new run"
        ) from error
