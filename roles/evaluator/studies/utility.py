"""Utility transfer: are images that were protected for one classifier of use to another?"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from roles.common.exchange import PSI, Work, other_classifier
from roles.common.labels import load_labels
from roles.evaluator.attack import classify
from roles.evaluator.study import Findings, Lab, Lines, Row, Study


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
    figure: ClassVar[Lines] = Lines("user", "accuracy", "classifier", "accuracy of protected images")

    def parts(self, users: Sequence[int], seed: int) -> list[str]:
        """See :class:`Study`: one user each."""
        return [str(user) for user in users]

    def work(self, part: str, users: Sequence[int], lab: Lab) -> Work[Findings]:
        """See :class:`Study`."""
        user = int(part)
        if lab.keyed(user):
            return []
        plain, ids = lab.test_images(self.images)
        protected = yield from lab.protected(user, "test", ids)
        labels = load_labels(lab.store.folder, "test")[: len(plain)]

        def accuracy(images: Tensor, name: str, classifier: int) -> Work[float]:
            predicted = yield from classify(images, name, lab.state, len(lab.store.classes), classifier)
            return float((predicted == labels).double().mean())

        named = {"psi": PSI}
        named |= {f"other {number} ({name})": other_classifier(number) for number, name in enumerate(lab.others)}
        rows: list[Row] = []
        for name, classifier in named.items():
            of_protected = yield from accuracy(protected, f"protected at {name}", classifier)
            of_plain = yield from accuracy(plain, f"plain at {name}", classifier)
            rows.append({"user": user, "classifier": name, "accuracy": of_protected, "plain_accuracy": of_plain})
        return rows

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        gaps: dict[str, list[float]] = {}
        for row in rows:
            gap = 100 * (float(row["accuracy"]) - float(row["plain_accuracy"]))
            gaps.setdefault(str(row["classifier"]), []).append(gap)
        said = ", ".join(f"{median(values):+.1f} points at {name}" for name, values in gaps.items())
        return f"Protected images are classified, against plain ones, with (medians over users) {said}."
