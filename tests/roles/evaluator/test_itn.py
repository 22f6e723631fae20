from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from roles.common.augment import draw_flips
from roles.common.compute import Compute
from roles.common.config.attack import AttackConfig, ItnConfig
from roles.common.config.data import Split
from roles.common.config.recipe import Recipe
from roles.common.data import ImageStore
from roles.common.images import to_bitmap, to_unit
from roles.common.protection import Noisy, with_noise
from roles.common.transform import apply_network
from roles.common.weights import cpu_state, digest
from roles.evaluator import itn as module
from roles.evaluator.attacker import Attacker
from roles.evaluator.baselines import mean_image
from roles.evaluator.itn import Pairs, instead, paired_flip, train_itn
from roles.evaluator.measures import psnr

AttackerWith = Callable[[AttackConfig], Attacker]


def left_inverted(images: torch.Tensor) -> torch.Tensor:
    """A protection that does not treat left and right alike."""
    protected = images.clone()
    protected[..., : images.shape[3] // 2] = 255 - images[..., : images.shape[3] // 2]
    return protected


def test_it_learns_to_undo_an_inversion(store: ImageStore, compute: Compute, small_itn: ItnConfig) -> None:
    config = small_itn.model_copy(update={"training": small_itn.training.model_copy(update={"epochs": 12})})
    plain, unseen = store.images("train")[:128], store.images("test")[:32]
    itn, curve = train_itn(config, Pairs(255 - plain, plain, 255 - unseen, unseen), compute, seed=0, flip=True)
    estimates = apply_network(itn, 255 - unseen, compute)
    assert psnr(estimates, unseen).mean() > psnr(mean_image(plain).expand_as(unseen), unseen).mean() + 3
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]


def test_the_curve_has_a_row_an_epoch_and_the_best_epoch_is_returned(
    store: ImageStore, compute: Compute, small_itn: ItnConfig
) -> None:
    recipe = small_itn.training.model_copy(update={"epochs": 4.5})
    config = small_itn.model_copy(update={"training": recipe, "loss": "l1"})
    # The held-out pairs are of another protection, so that the better the network gets, the worse it does on them.
    plain, held_out = store.images("train")[:32], store.images("validation")[:8]
    itn, curve = train_itn(config, Pairs(255 - plain, plain, held_out, held_out), compute, seed=0, flip=False)
    assert [(row["epoch"], row["step"]) for row in curve] == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 9)]
    losses = [row["validation_loss"] for row in curve]
    assert losses[-1] > min(losses)
    with torch.no_grad():
        mse = (itn(to_unit(held_out)) - to_unit(held_out)).square().mean().item()
    assert mse == pytest.approx(min(losses), rel=1e-4)
    assert not itn.training


def test_training_depends_on_seed_and_name_alone(store: ImageStore, compute: Compute, small_itn: ItnConfig) -> None:
    plain, held_out = store.images("train")[:16], store.images("validation")[:2]

    def weights(config: ItnConfig, seed: int) -> str:
        itn, _ = train_itn(config, Pairs(plain, plain, held_out, held_out), compute, seed, flip=True)
        return digest(cpu_state(itn))

    first = weights(small_itn, 0)
    torch.rand(1)  # whatever else the process draws
    assert weights(small_itn, 0) == first
    assert weights(small_itn, 1) != first
    assert weights(small_itn.model_copy(update={"name": "other"}), 0) != first


def test_a_training_goes_on_from_the_weights_that_it_is_given(
    store: ImageStore, compute: Compute, small_itn: ItnConfig
) -> None:
    plain, held_out = store.images("train")[:64], store.images("validation")[:8]
    pairs = Pairs(255 - plain, plain, 255 - held_out, held_out)
    itn, before = train_itn(small_itn, pairs, compute, seed=0, flip=False)
    _, after = train_itn(small_itn, pairs, compute, seed=0, flip=False, start=cpu_state(itn))
    assert after[0]["train_loss"] < before[0]["train_loss"]
    smaller = small_itn.model_copy(update={"width": 2})
    with pytest.raises(ValueError, match=r"inverse network 'small' to start from: .* has shape"):
        train_itn(smaller, pairs, compute, seed=0, flip=False, start=cpu_state(itn))


@pytest.mark.parametrize(("rate", "kept"), [(3.0, True), (1e-3, False)])
def test_the_weights_that_it_starts_from_are_kept_unless_an_epoch_does_better(
    store: ImageStore, compute: Compute, small_itn: ItnConfig, rate: float, kept: bool
) -> None:
    plain, held_out = store.images("train")[:64], store.images("validation")[:8]
    pairs = Pairs(255 - plain, plain, 255 - held_out, held_out)
    longer = small_itn.training.model_copy(update={"epochs": 4})
    start = cpu_state(
        train_itn(small_itn.model_copy(update={"training": longer}), pairs, compute, seed=0, flip=False)[0]
    )
    recipe = small_itn.training.model_copy(update={"lr": rate})
    itn, curve = train_itn(
        small_itn.model_copy(update={"training": recipe}), pairs, compute, seed=0, flip=False, start=start
    )
    assert (digest(cpu_state(itn)) == digest(start)) == kept
    assert [row["epoch"] for row in curve] == [1, 2]
    assert not itn.training


def test_both_images_of_a_pair_are_mirrored_or_neither() -> None:
    plain = torch.randint(256, (40, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    protected, flipped = paired_flip(255 - plain, plain, draw_flips(40, torch.Generator().manual_seed(0)))
    assert torch.equal(protected, 255 - flipped)
    mirrored = (flipped == plain.flip(3)).all(dim=(1, 2, 3))
    assert torch.equal(flipped[~mirrored], plain[~mirrored])
    assert 5 < int(mirrored.sum()) < 35


def test_in_place_of_a_protected_image_comes_its_mirror_image_protected_with_the_mirrored_plain_one() -> None:
    plain = torch.randint(256, (40, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    flips = draw_flips(40, torch.Generator().manual_seed(0))
    protected, taken = instead(left_inverted(plain), plain, left_inverted(plain.flip(3)), flips)
    assert torch.equal(protected, left_inverted(taken))
    mirrored = (taken == plain.flip(3)).all(dim=(1, 2, 3))
    assert torch.equal(taken[~mirrored], plain[~mirrored])
    assert 5 < int(mirrored.sum()) < 35


def test_against_a_protection_that_tells_left_from_right_it_is_images_that_must_be_mirrored(
    store: ImageStore, compute: Compute, small_itn: ItnConfig, attacker_with: AttackerWith
) -> None:
    recipe = small_itn.training.model_copy(update={"epochs": 12})
    attacker = attacker_with(AttackConfig(itns=(small_itn,), pairs=128))
    unseen = store.images("test")[:32]

    def gained(mirrors: str) -> float:
        itn = small_itn.model_copy(update={"training": recipe, "mirrors": mirrors})
        network, _ = attacker.inverse_network(itn, lambda images, *_: left_inverted(images))
        return psnr(apply_network(network, left_inverted(unseen), compute), unseen).median().item()

    assert gained("image") > gained("pair") + 1


@pytest.mark.parametrize(("mirrors", "without_a_key"), [("pair", False), ("image", True)])
def test_under_a_key_images_are_mirrored_and_pairs_are_not(
    small_itn: ItnConfig, attacker_with: AttackerWith, mirrors: str, without_a_key: bool
) -> None:
    itn = small_itn.model_copy(update={"mirrors": mirrors})

    def curve(*, flip: bool, keyed: bool) -> list[dict[str, float]]:
        attacker = attacker_with(AttackConfig(itns=(itn,), pairs=64, flip=flip))
        return attacker.inverse_network(itn, lambda images, *_: left_inverted(images), keyed=keyed)[1]

    assert (curve(flip=True, keyed=True) == curve(flip=True, keyed=False)) == without_a_key
    assert (curve(flip=True, keyed=True) == curve(flip=False, keyed=False)) == (not without_a_key)


def test_against_noise_it_draws_its_own_anew_at_every_step(
    store: ImageStore, compute: Compute, small_itn: ItnConfig
) -> None:
    # With steps too small to change anything, epochs of one batch differ by what they are trained on alone.
    still = small_itn.training.model_copy(update={"epochs": 6, "lr": 1e-12})
    config = small_itn.model_copy(update={"training": still})
    plain, held_out = store.images("train")[:16], store.images("validation")[:8]

    def losses(protected: torch.Tensor, noise: float | torch.Tensor) -> list[float]:
        _, curve = train_itn(config, Pairs(protected, plain, held_out, held_out), compute, 0, flip=False, noise=noise)
        return [row["train_loss"] for row in curve]

    fixed = losses(with_noise(plain, 0.5, 0, torch.arange(16)), 0)
    fresh = losses(plain, 0.5)
    assert max(fresh) - min(fresh) > 10 * (max(fixed) - min(fixed))
    assert len(set(fresh)) == len(fresh)
    assert fresh == losses(plain, 0.5) == losses(plain, torch.full((16,), 0.5))


def test_each_pair_has_noise_of_its_own_strength(
    store: ImageStore, compute: Compute, small_itn: ItnConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []

    def noted(images: torch.Tensor) -> torch.Tensor:
        given.append(to_bitmap(images.detach()))
        return to_bitmap(images)

    monkeypatch.setattr(module, "to_bitmap", noted)
    plain, held_out = store.images("train")[:16], store.images("validation")[:8]
    noise = torch.zeros(16)
    noise[5] = 0.5
    train_itn(small_itn, Pairs(plain, plain, held_out, held_out), compute, 0, flip=False, noise=noise)
    assert len(given) == 2
    for batch in given:
        untouched = (batch.unsqueeze(1) == plain).all(dim=(2, 3, 4)).any(0)
        assert untouched.nonzero().flatten().tolist() == [place for place in range(16) if place != 5]


def test_an_attacker_of_noisy_images_trains_on_what_the_network_alone_does(
    attacker_with: AttackerWith, small_itn: ItnConfig, store: ImageStore
) -> None:
    asked: list[str] = []

    def transform(images: torch.Tensor, split: Split, positions: torch.Tensor) -> torch.Tensor:
        asked.append(split)
        return 255 - images

    itn = small_itn.model_copy(update={"training": small_itn.training.model_copy(update={"epochs": 15})})
    attacker = attacker_with(AttackConfig(itns=(itn,), pairs=128, flip=False))
    _, silent = attacker.inverse_network(itn, transform)
    _, noisy = attacker.inverse_network(itn, Noisy(transform, 0.3, secret=5))
    assert asked == ["train", "validation"] * 2
    assert noisy[-1]["train_loss"] > silent[-1]["train_loss"]
    assert noisy[-1]["validation_loss"] > silent[-1]["validation_loss"]


def test_a_training_that_diverges_stops_and_names_itself(
    store: ImageStore, compute: Compute, small_itn: ItnConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = store.images("train")[:16]
    monkeypatch.setattr(torch.nn.functional, "mse_loss", lambda a, b: (a - b).mean() * float("nan"))
    with pytest.raises(ValueError, match="'small' diverged"):
        train_itn(small_itn, Pairs(plain, plain, plain, plain), compute, seed=0, flip=False)


def test_a_name_that_could_not_be_a_key_is_refused() -> None:
    with pytest.raises(ValidationError):
        ItnConfig(name="a/b", training=Recipe(epochs=1))
