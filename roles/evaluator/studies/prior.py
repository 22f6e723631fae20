"""Prior: attackers without a single pair of images such as the user's, who know something else of images."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from roles.common.exchange import Work
from roles.common.images import to_bitmap, to_unit
from roles.common.protection import Protect, without_noise
from roles.common.seeds import generator
from roles.common.transform import apply_network
from roles.evaluator.attacker import Attacker
from roles.evaluator.dead_leaves import dead_leaves
from roles.evaluator.generator import Generator, trained_generator
from roles.evaluator.itn import Pairs
from roles.evaluator.results import Findings, Row
from roles.evaluator.study import (
    RECONSTRUCTION_COLUMNS,
    RECONSTRUCTION_REFERENCES,
    Lines,
    Study,
    StudyContext,
    values_by,
)

_AT_ONCE = 256
"""How many z are searched for at once; it bounds memory."""


class Prior(Study):
    """For every user, test images estimated by two attackers who know of images what no pair has told them.

    - ``dead leaves`` has no image of the user's kind at all: the last of ``attack.itns``, trained on synthetic images
      (:mod:`roles.evaluator.dead_leaves`) that it has put through the published protection. A key protects images that
      are handed to it as well.
    - ``generator`` has the attacker's train images, and trains a generator G of such images on them
      (:mod:`roles.evaluator.generator`). Each estimate is G(z) at the lowest ||h_theta(G(z)) - x_hat||^2 +
      ``unlikely`` * ||z||^2, both means, that Adam finds from several z: as GLASS (Li et al., 2023, NeurIPS, for
      split inference) and inversion by GANs, but that G is small and trained by the attacker. h_theta is in eval mode,
      and noise that a user adds to it is not known. Only for users with a network.
    """

    kind: Literal["prior"]
    images: Annotated[int, Field(ge=1)] = 64
    """Test images of every user."""
    leaves: Annotated[int, Field(ge=2)] = 4000
    """Synthetic images to train on; a ninth as many more select the epoch."""
    latent: Annotated[int, Field(ge=1)] = 64
    """How many numbers z has."""
    generator_steps: Annotated[int, Field(ge=1)] = 2000
    """Steps of the generator's training, which serves all users of a worker."""
    starts: Annotated[int, Field(ge=1)] = 4
    """From how many z each search starts: from 0, and from others that are drawn; the best end counts."""
    steps: Annotated[int, Field(ge=1)] = 300
    lr: Annotated[float, Field(gt=0)] = 0.1
    unlikely: Annotated[float, Field(ge=0)] = 1e-4
    """Weight of ||z||^2."""

    columns: ClassVar[Mapping[str, str]] = {
        "user": "whose protection is attacked",
        "prior": "what the attacker knows of images: 'dead leaves' or 'generator'",
        **RECONSTRUCTION_COLUMNS,
    }
    figure: ClassVar[Lines] = Lines(
        "user", "ssim", "prior", "median SSIM of the estimates", references=RECONSTRUCTION_REFERENCES
    )

    def work(self, part: str, users: Sequence[int], context: StudyContext) -> Work[Findings]:
        """See :class:`Study`."""
        user, state = int(part), context.state
        plain, ids = context.test_images(self.images)
        if "protected" not in state:
            theta = yield from context.theta_of(user)
            protect, h = context.protection(user, theta), context.network(user, theta)
            protected = protect(plain, "test", ids)
            state["dead leaves"] = self._elsewhere(user, protect, protected, context)
            if h is not None:
                state["generator"] = self._search(h, protected, context.attacker)
            state["protected"] = protected
        rows: list[Row] = []
        for prior in ("dead leaves", "generator"):
            if prior in state:
                found = yield from context.measured(state[prior], state["protected"], plain)
                rows.append({"user": user, "prior": prior, **found})
        return rows

    def _elsewhere(self, user: int, protect: Protect, protected: Tensor, context: StudyContext) -> Tensor:
        """Return what an inverse network that knows synthetic images alone makes of ``protected``, uint8 as they."""
        attacker = context.attacker
        total = self.leaves + max(2, self.leaves // 9)
        images = dead_leaves(total, attacker.store.side, generator(attacker.seed, "prior", "dead leaves"))
        transform, noise = without_noise(protect)
        pairs = (transform(images, "train", torch.arange(total)), images)
        known, held_out = (
            [images[part] for images in pairs] for part in (slice(self.leaves), slice(self.leaves, None))
        )
        itn, _ = context.fit(Pairs(*known, *held_out), user, noise=noise)
        return apply_network(itn, protected, attacker.compute)

    def _search(self, h: nn.Module, protected: Tensor, attacker: Attacker) -> Tensor:
        """Return the generator's images that ``h`` takes nearest to ``protected``, uint8 as they."""
        network = trained_generator(attacker, self.latent, self.generator_steps)
        h.eval().requires_grad_(False)
        stream = generator(attacker.seed, "prior", "starts")
        # The same for all images: how many there are changes no estimate.
        starts = torch.randn(self.starts, self.latent, generator=stream)
        starts[0] = 0
        parts = torch.split(protected, max(1, _AT_ONCE // self.starts))
        return torch.cat([self._found(network, h, part, starts, attacker) for part in parts])

    def _found(self, network: Generator, h: nn.Module, protected: Tensor, starts: Tensor, attacker: Attacker) -> Tensor:
        compute, images = attacker.compute, len(protected)
        target = compute.batch(to_unit(protected).repeat_interleave(len(starts), dim=0))
        z = starts.repeat(images, 1).to(compute.device).requires_grad_()
        optimiser = torch.optim.Adam([z], lr=self.lr)

        def objectives() -> Tensor:
            with compute.autocast():
                distance: Tensor = (h(network(z)) - target).square().mean(dim=(1, 2, 3))
            return distance + self.unlikely * z.square().mean(dim=1)

        for step in range(self.steps):
            for group in optimiser.param_groups:
                group["lr"] = self.lr * (1 - step / self.steps)
            # A sum: what is searched for at once must not change the steps of one.
            loss = objectives().sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            attacker.progress(step + 1, self.steps, loss.item() / len(z))
        with torch.no_grad():
            best = objectives().view(images, -1).argmin(dim=1)
            chosen = z.view(images, len(starts), -1)[torch.arange(images, device=best.device), best]
            return to_bitmap(network(chosen)).cpu().contiguous()

    def conclusion(self, rows: Sequence[Row]) -> str:
        """See :class:`Study`."""
        ssims, gains = (values_by(rows, "prior", column) for column in ("ssim", "gain_ssim"))
        found = ", ".join(f"{median(ssims[name]):.2f} by {name} ({median(gains[name]):+.2f})" for name in ssims)
        return (
            f"Without a pair of images such as the user's, SSIM (and its gain over the better trivial guess) reaches "
            f"{found}, in the median over users."
        )
