"""Utility transfer: are images that were protected for one classifier of use to another?"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from roles.common.exchange import PSI, Work, other_classifier
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import Lines, Reference, Study, StudyContext, values_by


class Utility(Study):
    """For every user, its protected test images at psi and at each of the provider's ``other_classifiers``.

    A user whose protection is a key has a classifier of its own, and no part in it.
    """

    kind: Literal["utility"]
    images: Annotated[int, Field(ge=1)] = 1000
    """Test images of every user."""

    columns: ClassVar[Mapping[str, str]] = {
        "user": "whose protected images are classified",
        "classifier": "psi, which the user's h_theta was trained against, or another that it never met",
        "accuracy": "share of protected test images that it classifies correctly",
        "plain_accuracy": "share of the same images, plain",
    }
    figure: ClassVar[Lines] = Lines(
        "user",
        "accuracy",
        "classifier",
        "accuracy of protected images",
        share=True,
        references=(Reference("plain", ("plain_accuracy",), each=True),),
    )

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`.

        Raises:
            ValueError: the evaluator has no labels.
        """
        user, attacker = int(part), context.attacker
        if context.keyed(user):
            return []
        plain, ids = context.test_images(self.images)
        protected = yield from context.protected(user, "test", ids)

        def accuracy(images: Tensor, name: str, classifier: int) -> Work[float]:
            found = attacker.accuracy((yield from attacker.classify(images, name, context.state, classifier)))
            if found is None:
                raise ValueError("the study of utility needs labels: set attack.labels")
            return found

        named = {"psi": PSI}
        named |= {f"other {number} ({name})": other_classifier(number) for number, name in enumerate(context.others)}
        rows: list[Row] = []
        for name, classifier in named.items():
            of_protected = yield from accuracy(protected, f"protected at {name}", classifier)
            of_plain = yield from accuracy(plain, f"plain at {name}", classifier)
            rows.append({"user": user, "classifier": name, "accuracy": of_protected, "plain_accuracy": of_plain})
        return rows

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        gaps = [row | {"gap": 100 * (float(row["accuracy"]) - float(row["plain_accuracy"]))} for row in rows]
        found = values_by(gaps, "classifier", "gap")
        said = ", ".join(f"{median(values):+.1f} points at {name}" for name, values in found.items())
        return f"Protected images are classified, against plain ones, with (medians over users) {said}."
