"""The evaluation of one published protection: what it hides, what an attacker gets back, and what must be beaten."""

from collections.abc import Collection

import torch
from torch import Tensor

from roles.common.config.user import Protection, has_key
from roles.common.exchange import Work
from roles.common.protection import Protect
from roles.common.transform import apply_network
from roles.common.weights import State
from roles.evaluator.attacker import Attacker
from roles.evaluator.attacks import CIPHER_ATTACKS
from roles.evaluator.measures import Lpips, psnr, ssim
from roles.evaluator.nearest import retrieved
from roles.evaluator.results import AttackResult, Measured
from roles.evaluator.seen import as_seen

_CURVE_COLUMNS = ("epoch", "step", "train_loss", "validation_loss")


def evaluate_protection(
    protect: Protect, protection: Protection | None, attacker: Attacker, state: State, known: Collection[str] = ()
) -> Work[AttackResult]:
    """Attack ``protect`` with every inverse network and measure what comes back (Section IV-B).

    Args:
        protect: the published protection.
        protection: what its user has chosen; None for the positive control. Which attacks apply follows from it.
        state: what has been done so far, empty at first; filled in place, up to date at every yield. With the same
            tensors in it, another generator yields the same request and trains no finished inverse network again.
        known: attacks whose estimates were measured before, by name: they are not made again.

    Raises:
        ExchangeError: the provider's answer is unusable.
        ValueError: more images are asked for than there are, an inverse network diverged, or LPIPS cannot be had.
    """
    config = attacker.config
    lpips = Lpips(attacker.store.side) if config.lpips else None
    (plain, positions), _ = attacker.test_images, attacker.known

    if "protected/images" not in state:
        state["protected/images"] = protect(plain, "test", positions)
    protected = state["protected/images"]
    predictions = {"protected": (yield from attacker.classify(protected, "protected/labels", state))}
    itns = [itn for itn in config.itns if itn.name not in known]
    for itn in itns:
        if f"itn/{itn.name}/images" not in state:
            network, curve = attacker.inverse_network(itn, protect, keyed=has_key(protection))
            rows = [[row[column] for column in _CURVE_COLUMNS] for row in curve]
            state[f"itn/{itn.name}/curve"] = torch.tensor(rows, dtype=torch.float64)
            state[f"itn/{itn.name}/images"] = apply_network(network, protected, attacker.compute)
    attacks = [attack for attack in CIPHER_ATTACKS if attack.applies_to(protection) and attack.name not in known]
    for attack in attacks:
        if f"itn/{attack.name}/images" not in state:
            state[f"itn/{attack.name}/images"] = attack.estimate(protected, protection, protect, attacker)
    names = [itn.name for itn in itns] + [attack.name for attack in attacks]
    estimated = {name: state[f"itn/{name}/images"] for name in names}
    for name, images in estimated.items():
        predictions[name] = yield from attacker.classify(images, f"itn/{name}/labels", state)
    guesses = attacker.guesses(len(plain))
    recognised: dict[str, float | None] = {}
    for name, images in {"protected": protected, **estimated, **guesses}.items():
        recognised[name] = yield from attacker.recognised(images, f"recognised/{name}", state)

    def measured(name: str, images: Tensor) -> Measured:
        distance = None if lpips is None else lpips(images, plain)
        accuracy = attacker.accuracy(predictions[name]) if name in predictions else None
        found = psnr(images, plain), ssim(images, plain), distance, accuracy
        return Measured(*found, recognised[name], retrieved(images, plain))

    shown = {"plain": plain, "protected": protected, **estimated}
    shown |= {name: guess for name, guess in guesses.items() if name == "class_mean"}
    curves = {itn.name: state[f"itn/{itn.name}/curve"].tolist() for itn in itns}
    of_protected = measured("protected", protected)
    return AttackResult(
        protected=of_protected,
        seen=as_seen(protected, plain, attacker.classes(len(plain)), of_protected.ssim),
        estimates={name: measured(name, images) for name, images in estimated.items()},
        baselines={name: measured(name, guess) for name, guess in guesses.items()},
        curves={name: [dict(zip(_CURVE_COLUMNS, row, strict=True)) for row in rows] for name, rows in curves.items()},
        pictures={name: images[: config.pictures].clone() for name, images in shown.items()},
    )
