"""Users whose protections are known functions, and a provider that is a function call away."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roles.common.config.data import Split
from roles.common.data import ImageStore
from roles.common.exchange import (
    Answer,
    Classify,
    Gradient,
    ImageIds,
    LossGradient,
    Memories,
    Predictions,
    Published,
    Recall,
    Reconstruct,
    Reconstructions,
    Request,
    Theta,
    TrainingImages,
    drive,
    other_classifier,
)
from roles.common.images import to_bitmap, to_unit
from roles.common.labels import load_labels
from roles.common.protection import Protect
from roles.common.weights import State
from roles.evaluator.results import Findings
from roles.evaluator.studies import (
    Collusion,
    Curious,
    Extraction,
    Hijack,
    Inversion,
    LabelInference,
    Ladder,
    Membership,
    Pretrained,
    Prior,
    Retrieval,
    Transfer,
    Utility,
)
from roles.evaluator.study import Study, StudyContext

USERS = [0, 1, 2]


class Scaled(nn.Module):
    """An h_theta of one number: it darkens, or inverts where the number is negative."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        return images * self.factor if self.factor > 0 else 1 + images * self.factor


def factor_of(theta: State) -> float:
    return float(theta["factor"])


def protection(user: int, theta: State) -> Protect:
    def protect(images: Tensor, split: Split, positions: Tensor) -> Tensor:
        return to_bitmap(Scaled(factor_of(theta))(to_unit(images)))

    return protect


class NearestMean(nn.Module):
    """A psi in closed form: the nearer an image is to the mean train image of a class, the higher that one's logit."""

    def __init__(self, store: ImageStore) -> None:
        super().__init__()
        images, labels = to_unit(store.images("train")).flatten(1), load_labels(store.folder, "train")
        self.means = torch.stack([images[labels == label].mean(0) for label in range(10)])

    def forward(self, images: Tensor) -> Tensor:
        # A mean over values: its logits are as far apart for small images as for large ones.
        return 600 * (images.flatten(1) @ self.means.T - self.means.square().sum(1) / 2) / self.means.shape[1]


def gradient_of(psi: nn.Module, request: LossGradient, labels: Tensor, smoothing: float = 0.0) -> Gradient:
    images = request.protected.clone().requires_grad_()
    logits, labels = psi(images), labels[request.ids]
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    (gradient,) = torch.autograd.grad(loss, images)
    return Gradient(gradient, loss.item(), int((logits.argmax(1) == labels).sum()))


class Provider:
    """Answers as a provider and a ServerApp would; psi looks at the test labels, in the order of the images."""

    def __init__(self, store: ImageStore, factors: list[float]) -> None:
        self._store, self._factors, self.psi = store, factors, NearestMean(store)
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Answer:
        self.requests.append(request)
        match request:
            case Published():
                return Theta({"factor": torch.tensor(self._factors[request.user])})
            case Classify():
                labels = load_labels(self._store.folder, "test")[: len(request.images)]
                # The second of the others takes every image for a nought.
                return Predictions(torch.zeros_like(labels) if request.user == other_classifier(1) else labels)
            case LossGradient():
                return gradient_of(self.psi, request, load_labels(self._store.folder, "train"))
            case TrainingImages():
                return ImageIds(torch.arange(50) + 50 * request.user, torch.arange(10))
            case Recall():
                ids = torch.arange(40)
                plain = self._store.images("train")[ids]
                theta = {"factor": torch.tensor(self._factors[request.user])}
                return Memories(protection(request.user, theta)(plain, "train", ids), ids)
            case Reconstruct():
                # A provider that has found out by how much all users darken, and nothing else.
                return Reconstructions(to_bitmap(to_unit(request.images) * 2))
            case _:
                raise AssertionError(request)


@dataclass
class Training:
    """The plain images that an inverse network was trained on, and those that its epoch was selected by."""

    plain: Tensor
    validation: Tensor


def distinct(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


STUDIES: dict[str, Study] = {
    "transfer": Transfer(kind="transfer", images=20),
    "collusion": Collusion(kind="collusion", coalitions=(1, 2), known_pairs=(0, 5), victims=1, images=20),
    "ladder": Ladder.model_validate(
        {"kind": "ladder", "rungs": [{"pairs": 50, "steps": 0.2, "width": 2}, {"steps": 0.4, "width": 2}]}
    ),
    "retrieval": Retrieval(kind="retrieval", candidates=20),
    "inversion": Inversion(kind="inversion", images=5, steps=30),
    "curious": Curious(kind="curious", images=20),
    "hijack": Hijack(kind="hijack", images=20),
    "pretrained": Pretrained(kind="pretrained", others=2, known_pairs=(5, 20), victims=1, images=20),
    "prior": Prior(kind="prior", images=5, leaves=36, latent=4, generator_steps=4, starts=2, steps=4),
    "utility": Utility(kind="utility", images=20),
    "extraction": Extraction(
        kind="extraction", queries=(20, 120), width=8, steps=3, batch_size=8, images=20, thieves=2
    ),
    "labels": LabelInference(kind="labels", batches=(4, 8), images=12),
    "membership": Membership(kind="membership", images=20),
}


def findings(study: Study, context: StudyContext, provider: Callable[[Request], Answer]) -> dict[str, Findings]:
    return {
        part: drive(study.work(part, USERS, replace(context, state={})), provider)
        for part in study.parts(USERS, context.attacker.seed)
    }


def without_labels(context: StudyContext) -> StudyContext:
    return replace(context, attacker=replace(context.attacker, labels=None))
