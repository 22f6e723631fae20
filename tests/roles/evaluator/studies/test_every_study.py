"""What holds for every study."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from roles.common.data import ImageStore
from roles.common.exchange import drive
from roles.common.weights import State
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import Study, StudyContext
from tests.roles.evaluator.studies.known_users import STUDIES, USERS, Provider


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_every_row_has_the_columns_that_the_study_describes_and_they_amount_to_a_sentence(
    study: Study, found: Callable[[str], Findings]
) -> None:
    rows = found(study.kind)
    assert rows
    assert all(list(row) == list(study.columns) for row in rows)
    assert study.conclusion(rows)
    figure = study.figure
    assert {figure.x, figure.value} <= set(study.columns)


SENTENCES: dict[str, tuple[list[Row], str]] = {
    "transfer": (
        [
            {"attacker": a, "victim": v, "gain_ssim": gain}
            for a, v, gain in ((0, 0, 0.3), (0, 1, 0.05), (1, 0, 0.01), (1, 1, 0.2), (2, 0, 0.04), (2, 2, 0.4))
        ],
        "One ITN gains 0.05 SSIM or more over the better trivial guess for 1 of 3 users (median over ITNs); 0.300 for "
        "the user that it was trained against; 0.040 for others (medians).",
    ),
    "collusion": (
        [
            {"coalition": size, "known_pairs": pairs, "gain_ssim": gain}
            for size, pairs, gain in ((1, 0, -0.1), (1, 0, 0.1), (1, 10, 0.4), (2, 0, 0.2), (2, 10, 0.6))
        ],
        "Without h_theta and with 0 known pairs, coalitions gain this much SSIM over the better trivial guess (medians)"
        ": +0.000 for 1, +0.200 for 2. The most, +0.600, was had by 2 users with 10 known pairs.",
    ),
    "ladder": (
        [
            {"user": user, "rung": rung, "ssim": ssim, "gain_ssim": ssim - 0.2, "psnr": 20.0, "recovered": recovered}
            for user, rung, ssim, recovered in (
                (0, 1, 0.3, 0.1),
                (0, 2, 0.31, 0.11),
                (1, 1, 0.5, 0.2),
                (1, 2, 0.61, 0.3),
                ("control-blur", 1, 0.8, 0.5),
                ("control-blur", 2, 0.92, 1.0),
            )
        ],
        "The ladder has come to a plateau for 1 of 2 users; still rising: user 1. Its best rung reaches SSIM 0.46 "
        "(+0.26 over the better trivial guess) and gives 20% of the images away (medians over users). Control: it "
        "brings blurred images to SSIM 0.92.",
    ),
    "retrieval": (
        [
            {"by": by, "at_1": share, "candidates": 50}
            for by, share in (("protected image", 0.1), ("ITN estimate", 0.5), ("protected image", 0.3))
        ],
        "Of 50 candidates, the nearest is the right one for (medians over users) 20% by the protected image, 50% by "
        "the ITN estimate.",
    ),
    "inversion": (
        [{"ssim": ssim, "gain_ssim": ssim - 0.2} for ssim in (0.1, 0.5, 0.6)],
        "Descent through h_theta reaches SSIM 0.50 in the median over 3 users, +0.30 over the better trivial guess, "
        "without a single pair.",
    ),
    "curious": (
        [{"user": 0, "pairs": 0}, {"user": 1, "gain_ssim": 0.1}, {"user": 2, "gain_ssim": 0.3}],
        "With pairs from training alone, the provider gains 0.20 SSIM over the better trivial guess in the median over "
        "2 users.",
    ),
    "hijack": (
        [
            {"user": 0, "hijacked": "honest"},
            {"user": 1, "hijacked": "fsha", "ssim": 0.5, "gain_ssim": -0.1},
            {"user": 2, "hijacked": "fsha", "ssim": 0.7, "gain_ssim": 0.1},
            {"user": 3, "hijacked": "pairs", "ssim": 0.9, "gain_ssim": 0.3},
        ],
        "Of users that it has hijacked, the provider reconstructs images with SSIM (medians over users) 0.60 by fsha "
        "(+0.00 over the better trivial guess), 0.90 by pairs (+0.30 over the better trivial guess).",
    ),
    "pretrained": (
        [
            {"start": start, "known_pairs": pairs, "ssim": ssim}
            for start, pairs, ssim in (
                ("pretrained", 10, 0.6),
                ("fresh", 10, 0.2),
                ("pretrained", 10, 0.8),
                ("fresh", 10, 0.4),
                ("pretrained", 50, 0.9),
                ("fresh", 50, 0.85),
            )
        ],
        "An inverse network pretrained on other users' h_thetas reaches, against a fresh one, SSIM 0.70 against 0.30 "
        "with 10, 0.90 against 0.85 with 50 pairs of the victim's (medians over victims).",
    ),
    "prior": (
        [
            {"prior": prior, "ssim": ssim, "gain_ssim": ssim - 0.5}
            for prior, ssim in (("dead leaves", 0.4), ("generator", 0.7), ("dead leaves", 0.6))
        ],
        "Without a pair of images such as the user's, SSIM (and its gain over the better trivial guess) reaches 0.50 "
        "by dead leaves (+0.00), 0.70 by generator (+0.20), in the median over users.",
    ),
    "utility": (
        [
            {"classifier": name, "accuracy": accuracy, "plain_accuracy": 0.8}
            for name, accuracy in (("psi", 0.78), ("other 0 (resnet20)", 0.3))
        ],
        "Protected images are classified, against plain ones, with (medians over users) -2.0 points at psi, -50.0 "
        "points at other 0 (resnet20).",
    ),
    "extraction": (
        [
            {"channel": channel, "queries": queries, "agreement": agreement}
            for channel, queries, agreement in (("service", 5, 0.1), ("service", 9, 0.5), ("gradients", 7, 0.75))
        ],
        "A student of the hostile user's agrees with psi on test images in 50.0% with service of 9 images, 75.0% with "
        "gradients of 7 images (medians).",
    ),
    "labels": (
        [
            {"method": method, "batch": batch, "named": named, "service": 0.9}
            for method, batch, named in (("probe", 1, 1.0), ("probe", 8, 0.99), ("passive", 1, 0.95), ("passive", 8, 1))
        ],
        "Of the labels of X', hostile users know 99.0 to 100.0% by the probe method, 95.0 to 100.0% by the passive "
        "method, with requests of 1 to 8 images; the service alone tells 90.0 to 90.0%.",
    ),
    "membership": (
        [
            {"others": others, "score": score, "auc": auc}
            for others, score, auc in (("test", "plain", 0.6), ("test", "change", 0.5), ("test", "plain", 0.7))
        ],
        "Members of X' are told with an AUC (medians over users), from test images 0.65 by plain, 0.50 by change. 0.5 "
        "is a guess.",
    ),
}


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_study_says_in_a_sentence_what_it_found(study: Study) -> None:
    rows, sentence = SENTENCES[study.kind]
    assert study.conclusion(rows) == sentence


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_part_that_is_started_anew_at_every_request_finds_the_same(
    study: Study, short: StudyContext, store: ImageStore
) -> None:
    provider = Provider(store, [0.5, 0.8, -1.0])
    part = study.parts(USERS, short.attacker.seed)[0]
    undisturbed = drive(study.work(part, USERS, replace(short, state={})), provider)
    asked, provider.requests = [type(request) for request in provider.requests], []

    state: State = {}
    work = study.work(part, USERS, replace(short, state=state))
    request = next(work)
    while True:
        # As after a message: this generator is gone, and its state has been to disk and back.
        state = {name: value.clone() for name, value in state.items()}
        work = study.work(part, USERS, replace(short, state=state))
        assert type(next(work)) is type(request)
        try:
            request = work.send(provider(request))
        except StopIteration as end:
            again: Findings = end.value
            break
    assert again == undisturbed
    assert [type(request) for request in provider.requests] == asked
