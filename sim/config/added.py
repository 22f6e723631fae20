"""One more attack for an experiment that has been run: an inverse network, or a study."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

from pydantic import BaseModel

from roles.common.config.attack import ItnConfig
from roles.evaluator.study import Study
from sim.config.errors import ConfigError
from sim.config.experiment import Experiment
from sim.config.explain import explained, kinds_of
from sim.config.files import apply_override

ITN = "itn"


def attack_kinds() -> list[str]:
    """Return what can be added to a finished run: ``itn``, and the kinds of studies that need nothing of training."""
    return [ITN, *(kind for kind, study in _studies().items() if not study.seen_in_training)]


def with_attack(experiment: Experiment, kind: str, keys: Sequence[str], users: Sequence[int]) -> Experiment:
    """Return an experiment with one more attack.

    An inverse network stands before the last one, whose network studies train, so that they mean what they meant.

    Args:
        experiment: of a finished run.
        kind: one of :func:`attack_kinds`.
        keys: ``key=value`` of its section; an inverse network has all others from the last one of the experiment.
        users: whom it attacks, an inverse network the control as well; empty: everybody.

    Raises:
        ConfigError: the experiment cannot have it; the message names the key and what would be right.
    """
    _check(experiment, kind, users)
    content = experiment.model_dump(mode="json")
    itns, section = content["attack"]["itns"], _section(kind)
    added: dict[str, Any] = {"kind": kind}
    if kind == ITN:
        added = {key: value for key, value in deepcopy(itns[-1]).items() if key not in ("name", "users")}
    for key in keys:
        apply_override(added, key)
    if users:
        added["users"] = sorted(set(users))
    if kind == ITN:
        _check_name(added, [itn["name"] for itn in itns])
    with explained(section, f"--kind {kind}: "):
        section.model_validate(added)
    if kind == ITN:
        itns.insert(len(itns) - 1, added)
    else:
        content["studies"].append(added)
    with explained(Experiment, f"--kind {kind}: "):
        return Experiment.model_validate(content)


def _studies() -> Mapping[str, type[Study]]:
    found = kinds_of(Experiment.model_fields["studies"].annotation)
    return cast(Mapping[str, type[Study]], dict(sorted(found.items())))


def _section(kind: str) -> type[BaseModel]:
    return ItnConfig if kind == ITN else _studies()[kind]


def _check(experiment: Experiment, kind: str, users: Sequence[int]) -> None:
    kinds, studies = attack_kinds(), _studies()
    if kind in studies and kind not in kinds:
        needed = "what it is about is noted while users train: a new run can have it (studies in a config)"
        raise ConfigError(f"--kind: got {kind!r}: {needed}")
    if kind not in kinds:
        raise ConfigError(f"--kind: got {kind!r}: must be one of {', '.join(kinds)}")
    if kind in [study.kind for study in experiment.studies]:
        raise ConfigError(f"--kind: got {kind!r}: the run has this study, and each kind once at most")
    last = experiment.user_count - 1
    if unknown := [user for user in users if not 0 <= user <= last]:
        raise ConfigError(f"--user: got {unknown[0]}: users are 0 to {last}")
    if users and kind == ITN and experiment.strategy.publishes_one:
        raise ConfigError(f"--user: got {users[0]}: all users have published one network: leave it out")


def _check_name(added: Mapping[str, Any], names: Sequence[str]) -> None:
    taken = f"none of {', '.join(map(repr, names))}"
    if "name" not in added:
        raise ConfigError(f"--kind {ITN}: name: missing: it needs one of its own, {taken}, such as name=wide")
    if added["name"] in names:
        raise ConfigError(f"--kind {ITN}: name: got {added['name']!r}: it needs one of its own, {taken}")
