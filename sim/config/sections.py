"""The sections of an experiment: users and their images, strategy, runtime, tracking."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from roles.common.compute import Precision
from roles.common.config.base import Frozen, matching
from roles.common.hardware import available_cpus


class IidPartition(Frozen):
    """Every user gets an equal, random share of X'."""

    kind: Literal["iid"] = "iid"


class DirichletPartition(Frozen):
    """Class shares differ by user, drawn from a Dirichlet distribution: the smaller ``alpha``, the more."""

    kind: Literal["dirichlet"]
    alpha: Annotated[float, Field(gt=0)]


class ShardsPartition(Frozen):
    """Images sorted by class are cut into shards, and every user gets ``per_user`` of them."""

    kind: Literal["shards"]
    per_user: Annotated[int, Field(ge=1)] = 2


class SizesPartition(Frozen):
    """User ``i`` gets ``sizes[i]`` random images."""

    kind: Literal["sizes"]
    sizes: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)]


class SamplePartition(Frozen):
    """Every user draws ``images`` at random from all training images: an image may belong to several users."""

    kind: Literal["sample"]
    images: Annotated[int, Field(ge=2)]


class AllPartition(Frozen):
    """Every user has all training images, as the paper's only user has."""

    kind: Literal["all"]


Partition = Annotated[
    IidPartition | DirichletPartition | ShardsPartition | SizesPartition | SamplePartition | AllPartition,
    Field(discriminator="kind"),
]


class UsersConfig(Frozen):
    """How many users there are, and which images each has."""

    count: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["auto"] = 4
    """Number of users, or ``auto``: every node of the federation that is neither provider nor evaluator."""
    partition: Partition = IidPartition()
    images: Annotated[int, Field(ge=2)] | None = None
    """At most this many images in a user's X'; by default all of its partition."""
    validation_images: Annotated[int, Field(ge=1)] | None = None
    """Validation images by which a user selects its epoch; by default all."""
    settings: tuple[dict[str, Any], ...] = ()
    """Changes to ``user`` that users take in turn: of n, user i takes number i mod n. Each is a section like ``user``
    with only the keys that differ, such as ``{alpha: 0.01}`` or ``{protection: {kind: tanaka}}``."""


class StrategyConfig(Frozen):
    """Who trains when, and what becomes of the thetas."""

    name: Literal["independent", "fedavg"] = "independent"
    rounds: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Parts that every user's training is cut into. A killed run resumes at the last finished one."""
    batch_norm: Literal["shared", "local"] = "shared"
    """Of a strategy that averages: what becomes of the running statistics of batch normalisation. ``shared``: they are
    averaged as weights are, and all users publish one theta. ``local``: they never leave their user, who goes on from
    the averaged weights with its own, and publishes the last average with them: SiloBN (arXiv:2008.07424). Scale and
    shift, which FedBN (arXiv:2102.07623) leaves with the users as well, are averaged."""

    deadline: Annotated[float, Field(gt=0, le=30 * 24 * 3600)] | None = None
    """Of a strategy that averages: seconds after which a round ends with those users that have replied. By default it
    waits for all. What is averaged then depends on how fast they are, and two runs may differ."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.deadline is not None and not self.averages:
            raise ValueError(f"deadline needs a name that goes by rounds, such as fedavg: got {self.name!r}")
        if self.batch_norm == "local" and not self.averages:
            raise ValueError(f"batch_norm local needs a name that averages thetas, such as fedavg: got {self.name!r}")
        return self

    @property
    def averages(self) -> bool:
        """Whether all users end with the same weights, which the strategy makes of theirs."""
        return self.name != "independent"

    @property
    def publishes_one(self) -> bool:
        """Whether all users publish one theta."""
        return self.averages and self.batch_norm == "shared"

    def describe(self) -> str:
        """Return in a few words what becomes of the thetas, for tables and summaries."""
        return f"{self.name}, batch-norm statistics {self.batch_norm}" if self.averages else self.name


class RuntimeConfig(Frozen):
    """How the experiment is run.

    Nothing in here changes a result but ``precision`` and, by last bits, ``threads`` and whether there is a GPU.
    """

    exchange: Literal["direct", "endpoint", "relay"] = "direct"
    """How gradients travel: ``direct`` within a worker, which has a replica of the provider (only in a simulation);
    ``endpoint`` on a line to the provider's node, which users have to reach; ``relay`` through the Flower Grid."""
    evaluators: Annotated[int, Field(ge=0, le=10_000)] = 2
    """Evaluator nodes, each attacking one published transformer at a time; 0: the provider's node evaluates."""
    patience: Annotated[float, Field(ge=0, le=30 * 24 * 3600)] = 300
    """Seconds for which a node of a deployment that is gone is waited for, while others go on."""
    workers: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = "auto"
    """Processes that run the nodes' work; ``auto``: one for every ``threads`` CPUs."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """PyTorch threads of each worker."""
    gpu_fraction: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of a GPU for each worker; 0: workers see none."""
    cuda_graphs: bool = True
    """Whether the steps of a training are recorded on a GPU and replayed; without, they are several times slower."""
    precision: Precision | Literal["auto"] = "auto"
    """``fp32``, ``bf16`` autocast, or ``auto``: bf16 where the hardware has it."""

    @property
    def worker_count(self) -> int:
        """Number of worker processes on this machine."""
        return max(1, available_cpus() // self.threads) if self.workers == "auto" else self.workers


_SCHEMES = ("file", "http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
"""Where MLflow can keep runs."""


class TrackingConfig(Frozen):
    """Where a run is shown beside its folder; needs the extra of the same name."""

    tensorboard: bool = False
    """Whether to write TensorBoard's event files into the run folder."""
    mlflow: (
        bool
        | Annotated[
            str,
            matching(
                rf"(({'|'.join(_SCHEMES)})([+-]\w+)?(:.*)?|[./~].*)",
                f"a folder (with a '/') or a URI of {', '.join(_SCHEMES)}",
            ),
        ]
    ) = False
    """An MLflow tracking URI, or ``true``: the folder ``mlruns`` beside the run folder."""
