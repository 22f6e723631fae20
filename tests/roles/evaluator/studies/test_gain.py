"""What an attack gains over the better trivial guess."""

from roles.common.data import ImageStore
from roles.common.images import to_bitmap
from roles.common.labels import load_labels
from roles.evaluator.baselines import mean_image
from roles.evaluator.measures import psnr, ssim
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import without_labels


def test_what_counts_as_a_gain_is_beyond_the_better_of_class_mean_and_mean_image_in_each_measure(
    context: StudyContext, store: ImageStore
) -> None:
    plain = store.images("test")[:20]
    mean = to_bitmap(mean_image(store.images("train")[context.attacker.ids("train", 200)])).expand_as(plain)
    right = load_labels(store.folder, "test")[:20]
    for labels, guess in ((right, "class_mean"), ((right + 1) % 10, "mean_image")):
        row = {name: float(value) for name, value in context.measured(mean, 255 - plain, plain, labels).items()}
        assert row["mean_image_psnr"] == psnr(mean, plain).median().item()
        assert row["mean_image_ssim"] == ssim(mean, plain).median().item()
        assert row["gain_psnr"] == row["psnr"] - row[f"{guess}_psnr"]
        assert row["gain_ssim"] == row["ssim"] - max(row["class_mean_ssim"], row["mean_image_ssim"])


def test_without_labels_the_class_mean_is_left_out_and_a_gain_is_beyond_the_mean_image(
    context: StudyContext, store: ImageStore
) -> None:
    plain, labels = store.images("test")[:20], load_labels(store.folder, "test")[:20]
    known, row = (each.measured(plain, 255 - plain, plain, labels) for each in (context, without_labels(context)))
    assert list(row) == [name for name in known if not name.startswith("class_mean_")]
    assert all(row[name] == known[name] for name in row if not name.startswith("gain_"))
    for measure in ("psnr", "ssim"):
        assert row[f"gain_{measure}"] == float(row[measure]) - float(row[f"mean_image_{measure}"])
