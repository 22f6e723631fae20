"""The oracle: one user's training as the paper writes it, in one process that holds everything.

No provider, no exchange, no generator to stop and restart: h_theta, psi, phi, images and labels stand side by side, and
L_trans = L_class - alpha * L_feat (Eq. 4) is minimised by SGD. Whatever runs a user's training, by whatever way its
gradients travel, must end with these weights. What is taken from ``roles`` are the networks, the learning rate of a
step, and the random streams (which images make a batch, how they are augmented), so that both draw the same numbers.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from roles.common.augment import augment
from roles.common.batches import Batches
from roles.common.compute import Compute
from roles.common.data import ImageStore
from roles.common.features import Features
from roles.common.labels import load_labels
from roles.common.seeds import derived_seed, generator
from roles.common.unet import UNet
from roles.provider.classifiers import Classifier
from sim.config.experiment import Experiment

VALIDATION_BATCH = 500


def train_reference(
    experiment: Experiment,
    user: int,
    psi_state: dict[str, Tensor],
    store: ImageStore,
    x_prime_ids: Tensor,
    validation_ids: Tensor,
    backward: Literal["by_term", "at_once"] = "by_term",
) -> dict[str, Tensor]:
    """Train the h_theta of ``user`` and return the weights of the epoch with the lowest validation objective.

    Args:
        backward: how dL_trans/dtheta comes about. ``at_once``: one backward pass of L_trans through everything.
            ``by_term``: dL_class/dx_hat - alpha * dL_feat/dx_hat, then one pass through h_theta, as two parties must
            compute it: the same number, up to the order in which floats are added.
    """
    config = experiment.user
    alpha, recipe = config.alpha, config.training
    compute = Compute(experiment.resolved().runtime.precision, "cpu")  # type: ignore[arg-type]
    own_seed = derived_seed(experiment.seed, "user", user)

    torch.manual_seed(derived_seed(own_seed, "theta"))
    h = compute.module(UNet(config.width, config.depth, config.upsampling))
    phi = compute.module(Features(config.features)).eval()
    psi = Classifier(experiment.classifier.name, len(store.classes), store.side)
    psi.load_state_dict(psi_state)
    psi = compute.module(psi).eval().requires_grad_(False)

    labels = {split: load_labels(store.folder, split) for split in ("train", "validation")}
    optimiser: torch.optim.Optimizer
    if recipe.optimiser == "adam":
        optimiser = torch.optim.Adam(h.parameters(), weight_decay=recipe.weight_decay)
    else:
        optimiser = torch.optim.SGD(
            h.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
    batches = Batches(x_prime_ids, recipe.batch_size, derived_seed(own_seed, "order"))
    steps = max(1, round(recipe.epochs * batches.per_epoch))
    best, best_objective = {}, float("inf")

    for step in range(steps):
        h.train()
        ids = batches.ids_at(step)
        stream = generator(own_seed, "augment", step)
        bitmaps = augment(store.images("train")[ids], config.crop_padding, stream, flip=config.flip)
        x, y = compute.batch(bitmaps.float() / 255), labels["train"][ids]

        with compute.autocast():
            x_hat = h(x)
            seen = x_hat if backward == "at_once" else x_hat.detach().requires_grad_()
            l_class = F.cross_entropy(psi(seen), y)
            l_feat = F.mse_loss(phi(seen).float(), phi(x).float())
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr_at(step, steps)
        optimiser.zero_grad()
        if backward == "at_once":
            (l_class - alpha * l_feat).backward()
        else:
            (class_gradient,) = torch.autograd.grad(l_class, seen)
            (feature_gradient,) = torch.autograd.grad(l_feat, seen)
            # .contiguous(): the memory layout in which a gradient travels, as it decides the order of later additions.
            x_hat.backward(class_gradient.contiguous() - alpha * feature_gradient)
        optimiser.step()

        if (step + 1) % batches.per_epoch == 0 or step + 1 == steps:
            h.eval()
            objective = 0.0
            for ids in validation_ids.split(VALIDATION_BATCH):
                x = compute.batch(store.images("validation")[ids].float() / 255)
                with torch.no_grad(), compute.autocast():
                    x_hat = h(x)
                    l_class = F.cross_entropy(psi(x_hat), labels["validation"][ids])
                    l_feat = F.mse_loss(phi(x_hat).float(), phi(x).float())
                objective += (l_class.item() - alpha * l_feat.item()) * len(ids) / len(validation_ids)
            if objective < best_objective:
                best_objective = objective
                best = {name: value.detach().clone() for name, value in h.state_dict().items()}
    return best
