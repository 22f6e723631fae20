"""Labels: does the gradient channel tell a user the labels of X', which it does not have?"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from roles.common.exchange import Work
from roles.common.images import to_bitmap, to_unit
from roles.common.seeds import generator
from roles.evaluator.hostile import ByThieves, HostileUser, images_of
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import Lines, Reference, StudyContext, values_by

_STEPS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""How far an image is moved against its gradient, L2 of values in [0, 1]."""


@dataclass(frozen=True, eq=False)
class _Known:
    """What a hostile user has: images uint8 ``(N, 3, H, W)``, ids, what the service calls them, int64 ``(N,)``."""

    plain: Tensor
    ids: Tensor
    service: Tensor
    classes: int


class LabelInference(ByThieves):
    """A hostile user infers the labels of its images from the answers to requests of ``batches`` images.

    ``probe``: one image, the mean of X', is sent under all ids. Its gradient J^T (p - y) depends on the label alone, so
    that answers take one value a class: they are clustered, and clusters named after what the service says of the plain
    images of these ids. ``passive``: requests are what an honest user's are, of its own plain images under their ids.
    The number correct says how many in a request the service is wrong about: those with the longest gradients. They are
    moved against their gradients, towards their labels, until the service says something else: that is the label.

    A gradient is that of each image by itself, whatever the size of a request (psi is in evaluation mode). Gradients
    that give labels away: Zhao et al., 2020 (arXiv:2001.02610); Li et al., 2022 (arXiv:2102.08504) in split learning.
    """

    kind: Literal["labels"]
    batches: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 8, 32, 128)
    """Images of a request; more where the provider's terms ask for more."""
    images: Annotated[int, Field(ge=2)] = 500
    """Of X', whose labels are inferred. Those that a budget does not reach have the label that the service gives."""

    columns: ClassVar[Mapping[str, str]] = {
        "user": "who asks",
        "method": "probe: one image under all ids; passive: from the answers to an honest user's requests",
        "batch": "images of a request",
        "asked": "images that were asked about",
        "accuracy": "share of labels that are right, once classes are renamed as suits them best (Hungarian method)",
        "named": "share of labels that are right, under the names that the hostile user gives",
        "service": "share of the same labels that the service gives away: what it predicts for the plain images",
        "chance": "share of the most frequent class",
    }
    figure: ClassVar[Lines] = Lines(
        "batch",
        "named",
        "method",
        "labels that are right",
        share=True,
        references=(Reference("service", ("service",)), Reference("chance", ("chance",))),
    )

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`.

        Raises:
            ValueError: the evaluator has no labels.
        """
        user, attacker = int(part), context.attacker
        if attacker.labels is None:
            raise ValueError("the study of labels needs them to compare with: set attack.labels")
        plain, ids = yield from images_of(user, context)
        order = torch.randperm(len(ids), generator=generator(attacker.seed, "labels", user))[: self.images]
        plain, ids = plain[order], ids[order]
        truth = attacker.labels("train")[ids]
        service = yield from HostileUser(context, f"labels/{part}").classified("plain", plain)
        rows: list[Row] = []
        for method in ("probe", "passive"):
            for batch in self.batches:
                # Each with a budget of its own.
                thief = HostileUser(context, f"labels/{part}/{method}-{batch}")
                asked = thief.affordable(len(ids), batch)
                inferred = service.clone()
                if asked:
                    infer = _by_probe if method == "probe" else _passively
                    known = _Known(plain[:asked], ids[:asked], service[:asked], len(attacker.store.classes))
                    inferred[:asked] = yield from infer(thief, known, batch)
                rows.append(
                    {
                        "user": user,
                        "method": method,
                        "batch": batch,
                        "asked": asked,
                        "accuracy": _share(renamed(inferred, truth), truth),
                        "named": _share(inferred, truth),
                        "service": _share(service, truth),
                        "chance": int(truth.bincount().max()) / len(truth),
                    }
                )
        return rows

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        found = values_by(rows, "method", "named")
        said = ", ".join(f"{100 * min(v):.1f} to {100 * max(v):.1f}% by the {name} method" for name, v in found.items())
        service = sorted(100 * float(row["service"]) for row in rows)
        return (
            f"Of the labels of X', hostile users know {said}, with requests of {rows[0]['batch']} to "
            f"{rows[-1]['batch']} images; the service alone tells {service[0]:.1f} to {service[-1]:.1f}%."
        )


def _by_probe(thief: HostileUser, known: _Known, batch: int) -> Work[Tensor]:
    """Return the labels of images, int64 ``(N,)``, from the gradients of one and the same image under their ids."""
    probe = to_bitmap(to_unit(known.plain).mean(0, keepdim=True)).expand(len(known.ids), -1, -1, -1)
    gradients, _ = yield from thief.gradients("probe", probe, known.ids, batch)
    return renamed(clusters(gradients.flatten(1), known.classes), known.service)


def _passively(thief: HostileUser, known: _Known, batch: int) -> Work[Tensor]:
    """Return the labels of images, int64 ``(N,)``, from what an honest user is told of them, and from the service."""
    gradients, correct = yield from thief.gradients("own", known.plain, known.ids, batch)
    norms = gradients.flatten(1).norm(dim=1)
    size = thief.request_size(batch)
    suspects: list[Tensor] = []
    for places in torch.split(torch.arange(len(known.ids)), size):
        # Where the provider keeps losses to itself, "all correct" is no news, and all are looked at.
        asked = max(len(places), thief.terms.least_batch)
        wrong = asked if thief.terms.withhold_losses else asked - int(correct[places[0]])
        suspects.append(places[norms[places].argsort(descending=True)[:wrong]])
    chosen = torch.cat(suspects)
    labels, service = known.service.clone(), known.service[chosen]
    directions = gradients[chosen] / norms[chosen].clamp(min=1e-12).view(-1, 1, 1, 1)
    for step in reversed(_STEPS) if len(chosen) else ():
        moved = to_bitmap(to_unit(known.plain[chosen]) - step * directions)
        found = yield from thief.classified(f"moved by {step:g}", moved)
        # The nearest change counts, and is looked for last.
        labels[chosen] = torch.where(found == service, labels[chosen], found)
    return labels


def clusters(points: Tensor, count: int) -> Tensor:
    """Return which of at most ``count`` clusters each of ``points``, ``(N, D)``, is in, int64 ``(N,)`` (k-means)."""
    # Imported here: scikit-learn takes a second.
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # There may be fewer classes than clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(min(count, len(points)), n_init=10, random_state=0).fit_predict(points.numpy())
    return torch.from_numpy(found).to(torch.int64)


def renamed(labels: Tensor, names: Tensor) -> Tensor:
    """Return ``labels`` with each value exchanged for another, so that as many as can be equal ``names``.

    Both are int64 ``(N,)``; no two values are given one name. Source of the matching: Kuhn, 1955.

    >>> renamed(torch.tensor([0, 0, 1, 2]), torch.tensor([7, 7, 7, 1])).tolist()[0]
    7
    """
    count = int(torch.stack([labels.max(), names.max()]).max()) + 1
    together = torch.zeros(count, count, dtype=torch.int64)
    together.index_put_((labels, names), torch.tensor(1), accumulate=True)
    _, matched = linear_sum_assignment(together.numpy(), maximize=True)
    return torch.from_numpy(matched)[labels]


def _share(labels: Tensor, truth: Tensor) -> float:
    return float((labels == truth).double().mean())
