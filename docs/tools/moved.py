"""Writes what L_feat, PSNR and psi make of moved photographs into PAPER.md: ``python docs/tools/moved.py RUN``.

No network is involved: the moved image is what stands for a protected one. psi, phi's weights and the data are those of
the run, one of ResNet-20 and VGG16's weights (a cell, if the run is a sweep).
"""

import sys
from pathlib import Path

import pandas as pd
import torch
from pages import DOCS, fill
from paper_rows import runs_in
from torch import Tensor
from torch.nn import functional as F

from roles.common.compute import Compute
from roles.common.features import shared_features
from roles.common.hardware import native_precision
from roles.common.images import to_unit
from roles.common.labels import load_labels
from roles.common.weights import load, load_into
from roles.evaluator.measures import psnr, ssim
from roles.provider.classifiers import Classifier
from roles.provider.training import predict
from roles.user.features import feature_loss
from sim.config.experiment import Experiment
from sim.report.text import markdown
from sim.run.machine import store_of

MOVES = ((0, 0), (1, 0), (1, 1), (2, 0), (2, 2), (3, 3))
LAYERS = ("relu1_2", "relu2_2")
_BATCH = 500


def moved(images: Tensor, down: int, right: int) -> Tensor:
    """Return images moved down and to the right, black where nothing is left."""
    height, width = images.shape[2:]
    return F.pad(images, (right, 0, down, 0))[:, :, :height, :width]


def table(folder: Path, experiment: Experiment) -> str:
    """Return the table of all moves, over all test images.

    Args:
        folder: the run's, with psi in it.
    """
    store, compute = store_of(experiment), Compute(native_precision(gpu=False), "cpu")
    plain, labels = store.images("test"), load_labels(store.folder, "test")
    classifier = Classifier(experiment.classifier.name, len(store.classes), store.side)
    load_into(classifier, load(folder / "provider" / "psi.safetensors")[0], "psi")
    feature_losses = {layer: _feature_losses(plain, experiment, layer, compute) for layer in LAYERS}
    lines: list[list[str]] = []
    for down, right in MOVES:
        images = moved(plain, down, right)
        accuracy = (predict(classifier, images, compute).argmax(1) == labels).double().mean().item()
        cells = [f"{down}, {right}", f"{100 * accuracy:.2f}"]
        cells += [f"{feature_losses[layer][down, right]:.2f}" for layer in LAYERS]
        lines.append([*cells, f"{psnr(images, plain).median():.1f}", f"{ssim(images, plain).median():.2f}"])
    header = ["moved down, right", "accuracy", *(f"L_feat, {layer}" for layer in LAYERS), "PSNR", "SSIM"]
    return markdown(pd.DataFrame(lines, columns=header))


def _feature_losses(
    plain: Tensor, experiment: Experiment, layer: str, compute: Compute
) -> dict[tuple[int, int], float]:
    phi = compute.module(shared_features(experiment.user.features.model_copy(update={"layer": layer})))
    summed = dict.fromkeys(MOVES, 0.0)
    with torch.no_grad(), compute.autocast():
        for batch in torch.split(plain, _BATCH):
            expected = phi(compute.batch(to_unit(batch)))
            for move in MOVES:
                features = phi(compute.batch(to_unit(moved(batch, *move))))
                summed[move] += feature_loss(features, expected).item() * len(batch)
    return {move: loss / len(plain) for move, loss in summed.items()}


def main(folder: Path) -> None:
    """Write the block ``moved`` of PAPER.md."""
    run = runs_in(folder)[0]
    fill(DOCS / "PAPER.md", {"moved": lambda: table(run.path, run.experiment())})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
