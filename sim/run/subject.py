"""What is attacked: the transformer of a user, the one that all users publish, or a control."""

from dataclasses import dataclass
from typing import Literal

from roles.common.config.attack import ItnConfig
from roles.common.naming import user_name
from roles.evaluator.controls import BLUR
from sim.config.experiment import Experiment


@dataclass(frozen=True)
class Subject:
    """One protection that evaluators attack.

    ``control`` is plain images blurred, which every inverse network must be able to recover; ``shared`` the theta that
    all users publish, which is as much the first user's as anybody's.
    """

    kind: Literal["user", "shared", "control"]
    user: int = 0
    """Whose protection it is; 0 for a control."""

    @staticmethod
    def of(experiment: Experiment, user: int) -> "Subject":
        """Return as what a user's protection is attacked: a theta that all publish is one subject."""
        return Subject("shared") if experiment.strategy.publishes_one else Subject("user", user)

    @staticmethod
    def named(name: str) -> "Subject":
        """Return the subject that files, tables and messages call so.

        Raises:
            ValueError: there is none.

        >>> Subject.named("user-0003"), Subject.named("control-blur").kind
        (Subject(kind='user', user=3), 'control')
        """
        number = name.removeprefix("user-")
        known = {subject.name: subject for subject in (Subject("shared"), CONTROL)}
        if number.isdecimal() and name == user_name(int(number)):
            return Subject("user", int(number))
        if name not in known:
            raise ValueError(f"subject {name!r}: must be a user such as {user_name(0)}, or {' or '.join(known)}")
        return known[name]

    def itns_of(self, experiment: Experiment) -> tuple[ItnConfig, ...]:
        """Return the inverse networks of an experiment that attack it: a control and what all publish, every one."""
        itns = experiment.attack.itns
        return tuple(itn for itn in itns if self.kind != "user" or itn.users is None or self.user in itn.users)

    @property
    def name(self) -> str:
        """What files, tables and messages call it."""
        return user_name(self.user) if self.kind == "user" else BLUR if self.kind == "control" else "shared"

    @property
    def title(self) -> str:
        """What figures and summaries call it.

        >>> Subject("user", 3).title, CONTROL.title
        ('user 3', 'control-blur')
        """
        return f"user {self.user}" if self.kind == "user" else self.name


CONTROL = Subject("control")


def subjects_of(experiment: Experiment) -> list[Subject]:
    """Return everything that is attacked in a run, the control last."""
    users = [Subject.of(experiment, user) for user in range(experiment.user_count)]
    return [*dict.fromkeys(users), CONTROL]
