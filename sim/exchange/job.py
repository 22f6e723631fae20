"""Jobs: what every message to a node starts with."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from sim.config.errors import one_line
from sim.config.experiment import Experiment
from sim.exchange.messages import JOB, MessageError


@dataclass(frozen=True)
class Job:
    """What a node needs to know to do its part."""

    experiment: Experiment
    run: Path
    """The run folder, in which each node has a folder of its own."""
    first_round: int = 0
    """Rounds that were finished before this process began (a resumed run)."""
    server_round: int = 0
    """The round as the strategy counts it, from 1."""
    rounds: int = 1
    """How many rounds a user trains through on its own, from this one on."""

    @property
    def round(self) -> int:
        """The round as the experiment counts it, from 1."""
        return self.first_round + self.server_round


def encode_job(job: Job) -> ConfigRecord:
    """Encode a job; a strategy adds ``server-round`` to it, as Flower's strategies do."""
    return ConfigRecord(
        {
            "experiment": job.experiment.model_dump_json(),
            "run": str(job.run),
            "first-round": job.first_round,
            "server-round": job.server_round,
            "rounds": job.rounds,
        }
    )


def job_content(job: Job, **records: ArrayRecord | ConfigRecord) -> RecordDict:
    """Return the content of a message that carries a job, and ``records`` beside it."""
    return RecordDict({JOB: encode_job(job), **records})


def decode_job(content: RecordDict) -> Job:
    """Decode the job of a message.

    Raises:
        MessageError: there is none, or it is not one.
    """
    record = content.config_records.get(JOB)
    if record is None or "experiment" not in record or "run" not in record:
        raise MessageError("the message carries no job (a config record with 'experiment' and 'run')")
    try:
        numbers = {
            name: int(cast(int, record[name])) for name in ("first-round", "server-round", "rounds") if name in record
        }
        return Job(
            Experiment.model_validate_json(str(record["experiment"])),
            Path(str(record["run"])),
            **{name.replace("-", "_"): number for name, number in numbers.items()},
        )
    except (ValueError, TypeError) as error:
        raise MessageError(f"the job of the message cannot be read ({one_line(error)})") from error
