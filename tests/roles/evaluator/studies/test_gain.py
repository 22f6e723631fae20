"""What an attack gains over the better trivial guess."""

from roles.common.data import ImageStore
from roles.common.exchange import drive
from roles.common.images import to_bitmap
from roles.common.labels import load_labels
from roles.evaluator.baselines import class_means, mean_image
from roles.evaluator.measures import psnr, ssim
from roles.evaluator.study import StudyContext
from tests.roles.evaluator.studies.known_users import Provider, without_labels


def test_what_counts_as_a_gain_is_beyond_the_better_of_class_mean_and_mean_image_in_each_measure(
    context: StudyContext, store: ImageStore
) -> None:
    plain, train = store.images("test")[:20], store.images("train")
    mean = to_bitmap(mean_image(train)).expand_as(plain)
    means = to_bitmap(class_means(train, load_labels(store.folder, "train"), 10))
    of_class = means[load_labels(store.folder, "test")[:20]]
    row = {
        name: float(value)
        for name, value in drive(context.measured(mean, 255 - plain, plain), Provider(store, [])).items()
    }
    for name, guess in (("mean_image", mean), ("class_mean", of_class)):
        assert row[f"{name}_psnr"] == psnr(guess, plain).median().item()
        assert row[f"{name}_ssim"] == ssim(guess, plain).median().item()
    for measure in ("psnr", "ssim"):
        assert row[f"gain_{measure}"] == row[measure] - max(row[f"class_mean_{measure}"], row[f"mean_image_{measure}"])


def test_without_labels_the_class_mean_is_left_out_and_a_gain_is_beyond_the_mean_image(
    context: StudyContext, store: ImageStore
) -> None:
    plain = store.images("test")[:20]
    known, row = (
        drive(each.measured(plain, 255 - plain, plain), Provider(store, []))
        for each in (context, without_labels(context))
    )
    assert list(row) == [name for name in known if not name.startswith("class_mean_") and "recognised" not in name]
    assert all(row[name] == known[name] for name in row if not name.startswith("gain_"))
    for measure in ("psnr", "ssim"):
        assert row[f"gain_{measure}"] == float(row[measure]) - float(row[f"mean_image_{measure}"])
