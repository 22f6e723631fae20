"""The schema of an experiment: every key of a config, its type, its default and its range."""

from typing import Annotated, Any, Self, TypeVar

import torch
from pydantic import Field, model_validator

from roles.common.config.attack import AttackConfig
from roles.common.config.base import Frozen, matching
from roles.common.config.classifier import ClassifierConfig
from roles.common.config.data import DataConfig
from roles.common.config.provider import ProviderConfig
from roles.common.config.user import UserConfig
from roles.common.files import absolute, is_local
from roles.common.hardware import native_precision
from roles.common.seeds import derived_seed
from roles.evaluator.attacks import CIPHER_ATTACKS
from roles.evaluator.studies import StudyConfig
from roles.evaluator.studies.curious import Curious
from sim.config.errors import ConfigError
from sim.config.sections import RuntimeConfig, SizesPartition, StrategyConfig, TrackingConfig, UsersConfig

SectionT = TypeVar("SectionT", bound=Frozen)
_SIGNS = "letters, digits, '_', '.' and '-'"
_OF_LABELS = ("utility", "labels", "membership")
"""Studies by an evaluator who needs labels."""


class Experiment(Frozen):
    """Everything that decides the result of a run."""

    name: Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", f"1 to 100 {_SIGNS}, first a letter or digit")]
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataConfig = DataConfig()
    classifier: ClassifierConfig = ClassifierConfig()
    other_classifiers: tuple[dict[str, Any], ...] = ()
    """Further classifiers of plain images that the provider has, which no user trains against; for the study of
    utility. Each is a section like ``classifier`` with only the keys that differ, such as ``{seed: 1}``."""
    provider: ProviderConfig = ProviderConfig()
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
            named = f"users.partition.sizes names {len(partition.sizes)} users"
            raise ValueError(f"{named} and users.count is {self.users.count}: they must agree")
        if self.users.count != "auto" and self.users.count < len(self.users.settings):
            entries = f"users.settings has {len(self.users.settings)} entries"
            raise ValueError(f"{entries} and users.count is {self.users.count}: no user would take the last")
        kinds = [study.kind for study in self.studies]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"studies asks for a kind twice: they are {', '.join(kinds)}")
        if "utility" in kinds and not self.other_classifiers:
            raise ValueError("studies asks for utility, and other_classifiers names none: add one, such as {seed: 1}")
        if "hijack" in kinds and not self.provider.hijack:
            raise ValueError(
                "studies asks for hijack, and provider.hijack is empty: add an entry, such as {kind: fsha}"
            )
        if not self.attack.labels and (asked := [kind for kind in kinds if kind in _OF_LABELS]):
            raise ValueError(f"studies asks for {asked[0]}, which needs labels, and attack.labels is false")
        names, taken = [itn.name for itn in self.attack.itns], [attack.name for attack in CIPHER_ATTACKS]
        if set(names) & set(taken):
            others = ", ".join(map(repr, taken))
            raise ValueError(f"attack: itns need names of their own, none of {others}: they are {names}")
        return self

    def resolved(self) -> "Experiment":
        """Return the experiment with ``auto`` precision decided for this machine and local paths made absolute."""
        resolved = self.model_dump()
        if self.runtime.precision == "auto":
            gpu = self.runtime.gpu_fraction > 0 and torch.cuda.is_available()
            resolved["runtime"]["precision"] = native_precision(gpu=gpu)
        named = [(resolved["data"], "name"), (resolved["tracking"], "mlflow")]
        named += [(user.get("features", {}), "weights") for user in (resolved["user"], *resolved["users"]["settings"])]
        named += [(itn["features"], "weights") for itn in resolved["attack"]["itns"] if itn["features"]]
        for holder, key in named:
            if _is_local(holder.get(key)):
                holder[key] = _absolute(holder[key])
        where, prefix = resolved["tracking"]["mlflow"], "sqlite:///"
        if isinstance(where, str) and where.startswith(prefix):
            resolved["tracking"]["mlflow"] = prefix + _absolute(where.removeprefix(prefix))
        return Experiment.model_validate(resolved)

    def with_users(self, nodes: int) -> "Experiment":
        """Return the experiment with ``users.count: auto`` decided for a federation of ``nodes`` nodes.

        Of users who differ, a small federation has the first.

        Raises:
            ConfigError: the federation has another size than the experiment needs.
        """
        others = 1 + self.runtime.evaluators
        count = max(1, nodes - others) if self.users.count == "auto" else self.users.count
        if others + count != nodes:
            needed = f"{'at least ' if self.users.count == 'auto' else ''}{others + count}"
            raise ConfigError(
                f"the federation has {nodes} nodes and this experiment needs {needed} (1 provider, users.count "
                f"{self.users.count}, runtime.evaluators {self.runtime.evaluators}): start it with "
                f'--federation-config "num-supernodes={others + count} client-resources-num-cpus=1", '
                "or set users.count=auto"
            )
        sized = {"count": count, "settings": self.users.settings[:count]}
        return self.model_copy(update={"users": self.users.model_copy(update=sized)})

    def user_config(self, user: int) -> UserConfig:
        """Return ``user`` as changed for one user by ``users.settings``; a ValidationError if that does not fit."""
        return _changed(self.user, self._setting(user))

    def other_classifier(self, number: int) -> ClassifierConfig:
        """Return ``classifier`` as changed by one of ``other_classifiers``; a ValidationError if that does not fit."""
        return _changed(self.classifier, self.other_classifiers[number])

    def other_classifier_configs(self) -> list[ClassifierConfig]:
        """Return what :meth:`other_classifier` returns, for all of them."""
        return [self.other_classifier(number) for number in range(len(self.other_classifiers))]

    def user_configs(self) -> list[UserConfig]:
        """Return what :meth:`user_config` returns for the first users, up to where it repeats."""
        return [self.user_config(user) for user in range(max(1, len(self.users.settings)))]

    def setting_name(self, user: int) -> str:
        """Return how a user differs from ``user``, in a few words; empty where users do not differ."""
        return ", ".join(in_words(self._setting(user)))

    def _setting(self, user: int) -> dict[str, Any]:
        settings = self.users.settings or ({},)
        return settings[user % len(settings)]

    @property
    def attack_seed(self) -> int:
        """Seed of all attacks and studies."""
        return derived_seed(self.seed, "attack")

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


def _changed(config: SectionT, changes: dict[str, Any]) -> SectionT:
    return type(config).model_validate(_merged(config.model_dump(), changes))


def _merged(section: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    # Another kind of something has other keys: nothing of the old one stays.
    deeper = {
        key: _merged(section[key], value)
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(section.get(key), dict) and "kind" not in value
    }
    return section | changes | deeper


def _is_local(name: object) -> bool:
    return isinstance(name, str) and name not in ("digits", "imagenet", "random") and is_local(name)


def _absolute(path: str) -> str:
    try:
        return str(absolute(path))
    except FileNotFoundError:  # whoever opens it says so
        return path


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
