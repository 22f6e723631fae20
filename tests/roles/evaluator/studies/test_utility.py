import pytest

from roles.common.data import ImageStore
from roles.common.exchange import drive
from roles.common.labels import load_labels
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import STUDIES, USERS, Provider, findings, without_labels


def test_utility_is_refused_to_an_evaluator_without_labels(context: StudyContext, store: ImageStore) -> None:
    with pytest.raises(ValueError, match=r"^the study of utility needs labels: set attack.labels$"):
        drive(STUDIES["utility"].work("0", USERS, without_labels(context)), Provider(store, [0.5, 0.5, -1.0]))


def test_utility_is_the_accuracy_of_every_classifier_of_plain_images(context: StudyContext, store: ImageStore) -> None:
    rows = findings(STUDIES["utility"], context, Provider(store, [0.5, 0.5, -1.0]))["0"]
    assert [row["classifier"] for row in rows] == ["psi", "other 0 (resnet20)", "other 1 (resnet20)"]
    assert [row["accuracy"] for row in rows[:2]] == [1.0, 1.0]
    noughts = (load_labels(store.folder, "test")[:20] == 0).double().mean().item()
    assert rows[2]["accuracy"] == rows[2]["plain_accuracy"] == pytest.approx(noughts)
