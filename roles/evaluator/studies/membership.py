"""Membership: does a published h_theta tell which images its user has trained on?"""

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import median
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.stats import rankdata
from torch import Tensor

from roles.common.augment import crop
from roles.common.config.data import Split
from roles.common.exchange import PSI, Work
from roles.common.protection import Protect, without_noise
from roles.common.seeds import generator
from roles.common.transform import apply_network
from roles.common.unet import UNet
from roles.common.weights import groups_of, prefixed
from roles.evaluator.itn import Pairs
from roles.evaluator.measures import psnr
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import Lines, Reference, Study, StudyContext

_FALSE_POSITIVES, _THETA = 0.01, "published/tensors"
_MOVES = tuple(product(range(3), repeat=2))
"""An image, and the eight that lie a pixel from it."""


class Membership(Study):
    """An outsider with images and their labels tells by the public h_theta and the service which are a user's X'.

    psi has trained on all training images, so it tells these from test images by itself: ``plain``, in which h_theta
    has no part, is the control, and what another score has beyond it is h_theta's doing. Where other users, or nobody,
    have training images as well, these are the better comparison: psi has trained on them too. Scores are the share of
    an image and its eight neighbours by a pixel that the service classifies correctly (arXiv:2007.14321), how little
    h_theta changes an image, and how well an inverse network that has seen validation images alone brings it back.
    Where a key protects, nothing is public that protects images: the outsider is given the user's key, as an oracle.
    """

    kind: Literal["membership"]
    images: Annotated[int, Field(ge=2)] = 1000
    """Members, and as many of each kind of others; fewer where there are fewer."""

    columns: ClassVar[Mapping[str, str]] = {
        "user": "whose X' is asked about",
        "score": "plain: plain images at psi (control); protected: h_theta's at psi; change: how little h_theta "
        "changes an image; inverse: how well an inverse network brings it back",
        "others": "test: test images; train: training images that are not this user's",
        "members": "how many members; psi has trained on all of them",
        "auc": "area under the ROC curve of telling members from others by the score; 0.5 is a guess",
        "found": "share of members found at 1% false positives (arXiv:2112.03570), where guessing finds 1%",
        "chance": "0.5",
    }
    figure: ClassVar[Lines] = Lines(
        "score", "auc", "others", "AUC of membership", references=(Reference("chance", ("chance",)),)
    )

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`.

        Raises:
            ValueError: the evaluator has no labels.
        """
        user, attacker = int(part), context.attacker
        if attacker.labels is None:
            raise ValueError("the study of membership needs labels: set attack.labels")
        members = yield from context.ids_of(user)
        rest = torch.ones(attacker.store.counts["train"], dtype=torch.bool)
        rest[members] = False
        groups: dict[str, tuple[Split, Tensor]] = {
            "members": ("train", self._drawn(members, context)),
            "test": ("test", self._drawn(torch.arange(attacker.store.counts["test"]), context)),
        }
        # Fewer say nothing about one in a hundred.
        if int(rest.sum()) >= 1 / _FALSE_POSITIVES:
            groups["train"] = ("train", self._drawn(rest.nonzero().flatten(), context))
        if _THETA not in context.state:
            theta = yield from context.theta_of(user)
            # A key publishes none, and that is known then as well.
            context.state.update(prefixed("theta", theta) | {_THETA: torch.tensor(len(theta))})
        # The user's noise follows from a secret, and an outsider who has h_theta can do without any.
        protect, _ = without_noise(context.protection(user, groups_of(context.state)["theta"]))
        scores: dict[str, dict[str, Tensor]] = {}
        for name, (split, ids) in groups.items():
            scores[name] = yield from _by_the_service(
                name, user, split, ids, attacker.labels(split)[ids], protect, context
            )
        inverse = self._inverse(user, protect, context)
        for name, (split, ids) in groups.items():
            plain = attacker.store.images(split)[ids]
            protected = protect(plain, split, ids)
            scores[name]["change"] = psnr(protected, plain)
            scores[name]["inverse"] = psnr(apply_network(inverse, protected, attacker.compute), plain)
        return [
            {
                "user": user,
                "score": score,
                "others": others,
                "members": len(groups["members"][1]),
                "auc": auc(scores["members"][score], scores[others][score]),
                "found": found_at(scores["members"][score], scores[others][score], _FALSE_POSITIVES),
                "chance": 0.5,
            }
            for others in groups
            if others != "members"
            for score in scores["members"]
        ]

    def _drawn(self, ids: Tensor, context: StudyContext) -> Tensor:
        order = torch.randperm(len(ids), generator=generator(context.attacker.seed, "membership"))
        return ids[order[: self.images]]

    def _inverse(self, user: int, protect: Protect, context: StudyContext) -> UNet:
        """Return an inverse network that has seen neither members nor those they are told from."""
        attacker = context.attacker
        ids = attacker.ids("validation")
        plain = attacker.store.images("validation")[ids]
        protected, held_out = protect(plain, "validation", ids), max(2, len(ids) // 9)
        trained_on, selected_by = slice(held_out, None), slice(held_out)
        pairs = Pairs(protected[trained_on], plain[trained_on], protected[selected_by], plain[selected_by])
        return context.fit(pairs, user)[0]

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        said: list[str] = []
        for others in dict.fromkeys(str(row["others"]) for row in rows):
            own = [row for row in rows if row["others"] == others]
            found = {
                score: median(float(row["auc"]) for row in own if row["score"] == score)
                for score in dict.fromkeys(str(row["score"]) for row in own)
            }
            said.append(f"from {others} images {', '.join(f'{auc:.2f} by {score}' for score, auc in found.items())}")
        return f"Members of X' are told with an AUC (medians over users), {'; '.join(said)}. 0.5 is a guess."


def _by_the_service(
    name: str, user: int, split: Split, ids: Tensor, truth: Tensor, protect: Protect, context: StudyContext
) -> Work[dict[str, Tensor]]:
    """Return for each image the share of it and its neighbours that is classified correctly, plain and protected."""
    attacker, plain = context.attacker, context.attacker.store.images(split)[ids]
    scores = {score: torch.zeros(len(ids)) for score in ("plain", "protected")}
    for number, (down, right) in enumerate(_MOVES):
        moved = crop(plain, 1, torch.tensor([[down], [right]]).expand(2, len(plain)))
        protected = protect(moved, split, ids)
        asked = {"plain": (moved, PSI), "protected": (protected, user if context.keyed(user) else PSI)}
        for score, (images, classifier) in asked.items():
            given = yield from attacker.classify(images, f"{name}/{score}/{number}", context.state, classifier)
            scores[score] += (given == truth) / len(_MOVES)
    return scores


def auc(members: Tensor, others: Tensor) -> float:
    """Return how often a member has a higher score than another, in [0, 1]; equal scores count half (Mann-Whitney U).

    >>> auc(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0]))
    0.875
    """
    ranks = rankdata(torch.cat([members, others]).numpy())[: len(members)]
    return float((ranks.sum() - len(members) * (len(members) + 1) / 2) / (len(members) * len(others)))


def found_at(members: Tensor, others: Tensor, false_positives: float) -> float:
    """Return the share of members that a threshold finds at this share of false positives, both in [0, 1].

    Between two thresholds, as among equal scores, one is drawn at random.

    >>> found_at(torch.tensor([3.0, 2.0, 0.0, 0.0]), torch.tensor([2.0, 1.0]), 0.25)
    0.375
    """
    thresholds = torch.unique(torch.cat([members, others])).flip(0)
    reached = [[float((scores >= t).double().mean()) for t in thresholds] for scores in (others, members)]
    return float(np.interp(false_positives, [0.0, *reached[0]], [0.0, *reached[1]]))
