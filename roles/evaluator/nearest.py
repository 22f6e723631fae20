"""Which of many images comes nearest to another: whoever holds candidates need not reconstruct anything."""

import torch
from torch import Tensor

_MOST_CANDIDATES = 1000


def retrieved(estimates: Tensor, plain: Tensor) -> float:
    """Return the share of estimates to which, of the first 1,000 plain images at most, their own is the nearest.

    A guess at random has 1 / candidates, and one that knows of an image its class alone about as many times that as
    there are classes.

    Args:
        estimates: uint8 ``(N, 3, H, W)``; those after the first 1,000 are left out.
        plain: uint8 ``(N, 3, H, W)``, the plain image of each.

    >>> plain = torch.tensor([0, 100, 200], dtype=torch.uint8).view(3, 1, 1, 1)
    >>> round(retrieved(torch.tensor([40, 90, 20], dtype=torch.uint8).view(3, 1, 1, 1), plain), 3)
    0.667
    """
    queries, candidates = estimates[:_MOST_CANDIDATES], plain[:_MOST_CANDIDATES]
    return hits(distances(queries, candidates), equal(candidates), 1)


def hits(distances: Tensor, same: Tensor, k: int) -> float:
    """Return the share of queries with a right candidate among the ``k`` nearest, in [0, 1].

    Candidates at equal distance stand in random order, and the expectation is returned: a constant estimate is a guess.

    Args:
        distances: ``(N, C)`` of each query to each candidate, or their squares.
        same: bool ``(N, C)``, which candidates are right; at least one for each query.

    >>> hits(torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.eye(2, dtype=torch.bool), 1)
    0.75
    """
    own = distances.masked_fill(~same, torch.inf).amin(dim=1, keepdim=True)
    nearer = ((distances < own) & ~same).sum(dim=1)
    tied = ((distances == own) & ~same).sum(dim=1)
    # Of ``tied`` + 1 places that follow the nearer ones, each is as likely as another.
    return float(((k - nearer) / (tied + 1)).clamp(0, 1).mean())


def distances(queries: Tensor, candidates: Tensor) -> Tensor:
    """Return the squared Euclidean distance of each query to each candidate, float64 ``(N, C)``; both are bitmaps."""
    # Sums of whole numbers that stay below 2^53 are exact: equal images are at distance 0, and ties are ties.
    a, b = (images.flatten(1).double() for images in (queries, candidates))
    return a.square().sum(1, keepdim=True) - 2 * (a @ b.T) + b.square().sum(1)


def equal(images: Tensor) -> Tensor:
    """Return which images are equal to which, bool ``(N, N)``: any copy is as right as another."""
    number: Tensor = torch.unique(images.flatten(1), dim=0, return_inverse=True)[1]
    same: Tensor = number.unsqueeze(0) == number.unsqueeze(1)
    return same
