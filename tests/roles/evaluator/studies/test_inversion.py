from dataclasses import replace

from roles.common.data import ImageStore
from roles.evaluator.studies import Inversion
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import STUDIES, Provider, findings


def test_inversion_undoes_what_a_network_keeps(context: StudyContext, store: ImageStore) -> None:
    study = Inversion(kind="inversion", images=5, steps=150, smoothness=0)
    found = findings(study, context, Provider(store, [0.5, 0.9, -1.0]))
    rows = [row for part in found.values() for row in part]
    assert all(float(row["ssim"]) > 0.9 for row in rows)
    assert all(float(row["distance"]) < 1e-3 for row in rows)


def test_inversion_leaves_out_users_without_a_network(context: StudyContext, store: ImageStore) -> None:
    keyed = replace(context, network=lambda user, theta: None)
    found = findings(STUDIES["inversion"], keyed, Provider(store, [0.5, 0.5, -1.0]))
    assert all(not part for part in found.values())
