"""How suspicious answers to a user's checks are: whether they can be gradients of a classifier's loss."""

import math
from collections.abc import Mapping, Sequence
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

SCORES = ("wrong_ids", "answers")
"""Of every check, see :func:`wrong_ids_score` and :func:`answers_score`; the higher, the more suspicious."""


def suspicions(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each score over checks, as ``suspicion_<score>``, of what is known."""
    found = {name: [row[name] for row in rows if name in row] for name in SCORES}
    return {f"suspicion_{name}": median(values) for name, values in found.items() if values}


def wrong_ids_score(right: Tensor, again: Tensor, wrong: Tensor) -> float:
    """Return how little it matters under which ids images are sent: about 0 of an honest provider, 1 of plain FSHA.

    1 - (angle(right, wrong) - angle(right, again)) / (pi / 2), with the mean over images of the angle between two
    gradients of an image. Where another label is wanted, an honest gradient points elsewhere, by a right angle or more;
    a provider that ignores labels answers alike. The second angle is what a provider that adds noise or goes on
    training changes from one answer to the next anyway.

    It is SplitGuard's score (Erdogan et al., 2021, arXiv:2108.09052, Section 3) without its weights, the differences of
    lengths: here the same images are asked about, so their angles compare as they are, and whoever clips gradients or
    sends their signs makes all lengths equal.

    Args:
        right: gradients under the true ids, ``(N, 3, H, W)``; ``again`` under the same once more, ``wrong`` under ids
            of other images.
    """
    return 1 - (_angle(right, wrong) - _angle(right, again)) / (math.pi / 2)


def _angle(a: Tensor, b: Tensor) -> float:
    """Return the mean over images of the angle between two gradients, in [0, pi]; 0 where one is nought."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    # Of unit vectors: unlike an arc cosine, exact for small angles as well.
    a, b = F.normalize(a), F.normalize(b)
    angles = 2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))
    known = (a.norm(dim=1) > 0) & (b.norm(dim=1) > 0)
    return float(torch.where(known, angles, 0).mean())


def answers_score(gradients: Tensor, classes: int) -> float:
    """Return how much the gradients of one image depend on more of its id than a class, from 0 to 1.

    An honest gradient is J^T (softmax - y) of one image's J: over all ids it takes a value for each class, and these
    lie in an affine space of ``classes`` - 1 dimensions. The score is the share of the variance of ``gradients`` that
    is outside the best such space: rounding alone, a millionth or so, of an honest provider. A provider that adds noise
    to every gradient has up to 1 - (``classes`` - 1) / (N - 1); clipping and signs, done to each gradient alone, leave
    no more than ``classes`` values and a score of 0, and so does a provider that ignores ids.

    Args:
        gradients: of one image under N ids, ``(N, 3, H, W)``, with N above ``classes``.
        classes: number of classes.
    """
    rows = gradients.flatten(1).double()
    rows = rows - rows.mean(0)
    energy = torch.linalg.svdvals(rows).square()
    total = float(energy.sum())
    # What float32 rounds the same value to in two places of a batch is no answer of its own.
    floor = gradients.double().square().sum() * torch.finfo(torch.float32).eps ** 2
    return float(energy[classes - 1 :].sum()) / total if total > float(floor) else 0.0
