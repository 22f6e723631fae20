"""The schema of an experiment: every key of a config, its type, its default and its range."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import torch
from pydantic import Field, model_validator

from roles.common.compute import Precision, native_precision
from roles.common.data import DataConfig
from roles.common.recipes import Frozen
from roles.evaluator.attack import AttackConfig
from roles.evaluator.studies import StudyConfig
from roles.evaluator.studies.curious import Curious
from roles.provider.training import ClassifierConfig
from roles.user.config import UserConfig

SectionT = TypeVar("SectionT", bound=Frozen)


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one line that says what, where, and what would be right."""


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

    count: Annotated[int, Field(ge=1)] | Literal["auto"] = 4
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
    rounds: Annotated[int, Field(ge=1)] = 1
    """Parts that every user's training is cut into. A killed run resumes at the last finished one."""
    batch_norm: Literal["shared", "local"] = "shared"
    """Of a strategy that averages: what becomes of the running statistics of batch normalisation, by which a published
    theta normalises. ``shared``: they are averaged as weights are, and all users publish one theta. ``local``: they
    never leave their user, who goes on from the averaged weights with its own, and publishes the last average with
    them.

    ``local`` is SiloBN (Andreux et al. 2020, arXiv:2008.07424). In FedBN (Li et al. 2021, arXiv:2102.07623) the scale
    and shift of batch normalisation stay with the users as well; here they are weights like others, and averaged."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
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

    exchange: Literal["direct", "relay"] = "direct"
    """How gradients travel: ``direct`` through a Ray actor (simulation only), ``relay`` through the Flower Grid."""
    evaluators: Annotated[int, Field(ge=0)] = 2
    """Evaluator nodes, each attacking one published transformer at a time; 0: the provider's node evaluates."""
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Processes that run the nodes' work; ``auto``: one for every ``threads`` CPUs."""
    threads: Annotated[int, Field(ge=1)] = 1
    """PyTorch threads of each worker."""
    gpu_fraction: Annotated[float, Field(ge=0, le=1)] = 0
    """Share of a GPU for each worker; 0: workers see none."""
    precision: Precision | Literal["auto"] = "auto"
    """``fp32``, ``bf16`` autocast, or ``auto``: bf16 where the hardware has it."""

    @property
    def worker_count(self) -> int:
        """Number of worker processes on this machine."""
        return max(1, available_cpus() // self.threads) if self.workers == "auto" else self.workers


class TrackingConfig(Frozen):
    """Where a run is shown beside its folder; needs the extra of the same name."""

    tensorboard: bool = False
    """Whether to write TensorBoard's event files into the run folder."""
    mlflow: bool | Annotated[str, Field(min_length=1)] = False
    """An MLflow tracking URI, or ``true``: the folder ``mlruns`` beside the run folder."""


class Experiment(Frozen):
    """Everything that decides the result of a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataConfig = DataConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    other_classifiers: tuple[dict[str, Any], ...] = ()
    """Further classifiers of plain images that the provider has, which no user trains against; for the study of
    utility. Each is a section like ``classifier`` with only the keys that differ, such as ``{seed: 1}``."""
    users: UsersConfig = UsersConfig()
    user: UserConfig = UserConfig()
    strategy: StrategyConfig = StrategyConfig()
    attack: AttackConfig = AttackConfig()
    studies: tuple[StudyConfig, ...] = ()
    """Questions about several users at once, asked when all have published; each kind at most once."""
    runtime: RuntimeConfig = RuntimeConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        partition = self.users.partition
        if isinstance(partition, SizesPartition) and self.users.count != len(partition.sizes):
            raise ValueError(
                f"users.partition.sizes names {len(partition.sizes)} users and users.count is {self.users.count}: "
                "they must agree"
            )
        if self.users.count != "auto" and self.users.count < len(self.users.settings):
            raise ValueError(
                f"users.settings has {len(self.users.settings)} entries and users.count is {self.users.count}: "
                "no user would take the last"
            )
        kinds = [study.kind for study in self.studies]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"studies asks for a kind twice: they are {', '.join(kinds)}")
        if "utility" in kinds and not self.other_classifiers:
            raise ValueError("studies asks for utility, and other_classifiers names none: add one, such as {seed: 1}")
        return self

    def resolved(self) -> "Experiment":
        """Return the experiment with ``auto`` precision decided for this machine and local paths made absolute."""
        resolved = self.model_dump()
        if self.runtime.precision == "auto":
            resolved["runtime"]["precision"] = native_precision(
                gpu=self.runtime.gpu_fraction > 0 and torch.cuda.is_available()
            )
        named = [(resolved["data"], "name"), (resolved["user"]["features"], "weights")]
        named += [(setting.get("features", {}), "weights") for setting in resolved["users"]["settings"]]
        if isinstance(self.tracking.mlflow, str):
            named.append((resolved["tracking"], "mlflow"))
        for holder, key in named:
            if key in holder and _is_local(holder[key]):
                holder[key] = str(Path(holder[key]).expanduser().resolve())
        return Experiment.model_validate(resolved)

    def with_users(self, nodes: int) -> "Experiment":
        """Return the experiment with ``users.count: auto`` decided for a federation of ``nodes`` nodes.

        Raises:
            ConfigError: the federation is too small, or has another size than the experiment needs.
        """
        others = 1 + self.runtime.evaluators
        count = nodes - others if self.users.count == "auto" else self.users.count
        if count < 1 or others + count != nodes:
            needed = f"{others + max(count, 1)}" if self.users.count != "auto" else f"at least {others + 1}"
            raise ConfigError(
                f"the federation has {nodes} nodes and this experiment needs {needed} (1 provider, users.count "
                f"{self.users.count}, runtime.evaluators {self.runtime.evaluators}): start it with "
                f'--federation-config "num-supernodes={others + max(count, 1)} client-resources-num-cpus=1", '
                "or set users.count=auto"
            )
        return self.model_copy(update={"users": self.users.model_copy(update={"count": count})})

    def user_config(self, user: int) -> UserConfig:
        """Return ``user`` as changed for one user by ``users.settings``.

        Raises:
            ValidationError: its setting does not fit.
        """
        settings = self.users.settings
        return self.user if not settings else _changed(self.user, settings[user % len(settings)])

    def other_classifier(self, number: int) -> ClassifierConfig:
        """Return ``classifier`` as changed by the ``number``-th of ``other_classifiers``.

        Raises:
            ValidationError: what it says does not fit.
        """
        return _changed(self.classifier, self.other_classifiers[number])

    def other_classifier_configs(self) -> list[ClassifierConfig]:
        """Return what :meth:`other_classifier` returns, for all of them."""
        return [self.other_classifier(number) for number in range(len(self.other_classifiers))]

    def user_configs(self) -> list[UserConfig]:
        """Return what :meth:`user_config` returns for the first users, up to where it repeats."""
        return [self.user_config(user) for user in range(max(1, len(self.users.settings)))]

    def setting_name(self, user: int) -> str:
        """Return how a user differs from ``user``, in a few words; empty where users do not differ."""
        settings = self.users.settings
        return ", ".join(in_words(settings[user % len(settings)])) if settings else ""

    @property
    def remembered(self) -> int:
        """How many protected images of a user the provider keeps: none, unless a study is about what it sees."""
        return next((study.pairs for study in self.studies if isinstance(study, Curious)), 0)

    @property
    def user_count(self) -> int:
        """Number of users, once decided."""
        if self.users.count == "auto":
            raise ConfigError("users.count is auto and the federation's size is not known yet")
        return self.users.count


def available_cpus() -> int:
    """Return the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> Path:
    """Return where data sets and trained classifiers are kept: ``$VEILSIM_CACHE``, or under the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("VEILSIM_CACHE") or f"{base}/veilsim").expanduser().resolve()


def one_line(error: Exception) -> str:
    """Return what an error says, without line breaks."""
    return " ".join(str(error).split())


def _changed(config: SectionT, changes: dict[str, Any]) -> SectionT:
    def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
        both = dict(base)
        for key, value in changes.items():
            old = both.get(key)
            # Another kind of something has other keys: nothing of the old one stays.
            deeper = isinstance(value, dict) and isinstance(old, dict) and "kind" not in value
            both[key] = merged(old or {}, value) if deeper else value
        return both

    return type(config).model_validate(merged(config.model_dump(), changes))


def in_words(setting: dict[str, Any]) -> list[str]:
    """Return the changes of a setting in words.

    >>> in_words({"alpha": 0.01, "features": {"layer": "relu1_2"}, "protection": {"kind": "pixel", "shuffle": True}})
    ['alpha 0.01', 'layer relu1_2', 'pixel', 'shuffle']
    >>> in_words({"training": {"epochs": 10.0}})
    ['epochs 10']
    """
    names: list[str] = []
    for key, value in setting.items():
        match value:
            case dict():
                names += in_words(value)
            case bool():
                names.append(key if value else f"no {key}")
            case float():
                names.append(f"{key} {value:g}")
            case _:
                names.append(str(value) if key == "kind" else f"{key} {value}")
    return names


def _is_local(name: str) -> bool:
    if name in ("digits", "imagenet", "random"):
        return False
    return name.startswith((".", "/", "~")) or Path(name).exists()
