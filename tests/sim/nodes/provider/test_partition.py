import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sim.config.errors import ConfigError
from sim.config.sections import UsersConfig
from sim.nodes.provider.partition import partition_images

LABELS = torch.arange(400) % 10
"""40 images of each of 10 classes."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The sum of partition sizes")
        yield


def parts_of(count: int, partition: dict[str, Any], seed: int = 0, **users: Any) -> list[Tensor]:
    config = UsersConfig.model_validate({"count": count, "partition": partition, **users})
    return partition_images(LABELS, config, count, seed)


def classes_of(part: Tensor) -> Tensor:
    return LABELS[part].bincount(minlength=10)


KINDS: list[dict[str, Any]] = [
    {"kind": "iid"},
    {"kind": "dirichlet", "alpha": 1.0},
    {"kind": "shards", "per_user": 2},
    {"kind": "sizes", "sizes": [100, 60, 200, 40]},
]
by_kind = pytest.mark.parametrize("partition", KINDS, ids=lambda partition: partition["kind"])


@by_kind
def test_no_image_belongs_to_two_users_and_all_belong_to_one(partition: dict[str, Any]) -> None:
    parts = parts_of(4, partition)
    assert len(parts) == 4
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(400))
    for part in parts:
        assert part.dtype == torch.int64
        assert torch.equal(part, part.sort().values)


@by_kind
def test_the_seed_decides(partition: dict[str, Any]) -> None:
    first, again, other = (parts_of(4, partition, seed) for seed in (5, 5, 6))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert any(not torch.equal(one, two) for one, two in zip(first, other, strict=True))


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 2**63 - 1))
def test_iid_shares_are_disjoint_and_equal_but_for_one_image(count: int, seed: int) -> None:
    parts = parts_of(count, {"kind": "iid"}, seed)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(400))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_iid_shares_hold_every_class() -> None:
    for part in parts_of(4, {"kind": "iid"}):
        assert classes_of(part).min() > 0


def test_the_smaller_alpha_the_more_class_shares_differ() -> None:
    def unevenness(alpha: float) -> float:
        parts = parts_of(4, {"kind": "dirichlet", "alpha": alpha})
        return torch.stack([classes_of(part).double() for part in parts]).std(dim=0).mean().item()

    assert unevenness(0.1) > unevenness(1.0) > unevenness(100.0)


def test_a_user_with_two_shards_has_few_classes() -> None:
    # 8 shards of 50 images, sorted by class: each touches two classes at most, or 1 whole and a part.
    for part in parts_of(4, {"kind": "shards", "per_user": 2}):
        assert len(part) == 100
        assert int((classes_of(part) > 0).sum()) <= 4


def test_sizes_are_those_that_are_named() -> None:
    parts = parts_of(3, {"kind": "sizes", "sizes": [7, 2, 30]})
    assert [len(part) for part in parts] == [7, 2, 30]
    assert len(torch.cat(parts).unique()) == 39
    # Random images, not the first: classes follow each other in LABELS.
    assert not torch.equal(parts[2], torch.arange(9, 39))


@by_kind
def test_images_caps_every_share_and_takes_from_it(partition: dict[str, Any]) -> None:
    whole, capped = parts_of(4, partition), parts_of(4, partition, images=5)
    assert [len(part) for part in capped] == [5] * 4
    for part, share in zip(capped, whole, strict=True):
        assert set(part.tolist()) <= set(share.tolist())


def test_a_cap_above_every_share_changes_nothing() -> None:
    assert [len(part) for part in parts_of(4, {"kind": "iid"}, images=1000)] == [100] * 4


@pytest.mark.parametrize(
    ("count", "partition"),
    [
        (201, {"kind": "iid"}),
        (401, {"kind": "iid"}),
        (401, {"kind": "shards", "per_user": 2}),
        (2, {"kind": "sizes", "sizes": [400, 2]}),
    ],
)
def test_more_users_than_images_is_one_line(count: int, partition: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^users\.(count|partition)") as caught:
        parts_of(count, partition)
    assert "\n" not in str(caught.value)


def test_more_shards_than_images_is_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        parts_of(150, {"kind": "shards", "per_user": 3})
    assert str(caught.value) == (
        "users.partition.per_user: got 3: 400 training images are at most 2 shards for each of 150 users"
    )


def test_a_dirichlet_draw_that_leaves_users_with_nothing_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^users.partition: The max number of attempts .* values of alpha") as caught:
        parts_of(190, {"kind": "dirichlet", "alpha": 0.01})
    assert "\n" not in str(caught.value)


def test_users_that_draw_samples_share_images_and_are_as_many_as_wanted() -> None:
    parts = parts_of(1000, {"kind": "sample", "images": 30})
    assert len(parts) == 1000
    for part in parts:
        assert part.dtype == torch.int64
        assert part.tolist() == sorted(set(part.tolist()))
        assert len(part) == 30
        assert 0 <= part.min() <= part.max() < 400
    # Every image is drawn by about 75 of 1000 users.
    drawn = torch.cat(parts).bincount(minlength=400)
    assert 30 < drawn.min() <= drawn.max() < 130
    again, other = parts_of(1000, {"kind": "sample", "images": 30}), parts_of(5, {"kind": "sample", "images": 30}, 1)
    assert all(torch.equal(one, two) for one, two in zip(parts, again, strict=True))
    assert not torch.equal(parts[0], other[0])


def test_a_users_sample_does_not_depend_on_how_many_users_there_are() -> None:
    few, many = (parts_of(count, {"kind": "sample", "images": 30}) for count in (3, 50))
    assert all(torch.equal(one, two) for one, two in zip(few, many, strict=False))


def test_a_sample_larger_than_the_train_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"users.partition.images: got 401: there are 400 training images"):
        parts_of(2, {"kind": "sample", "images": 401})


def test_with_all_everybody_has_every_image_or_the_same_ones_drawn_at_random() -> None:
    everything = parts_of(70, {"kind": "all"})
    assert len(everything) == 70
    assert all(torch.equal(part, torch.arange(400)) for part in everything)
    assert len({part.data_ptr() for part in everything}) == 1, "many users would each fill memory with the same"
    some = parts_of(3, {"kind": "all"}, images=30)
    assert all(torch.equal(part, some[0]) for part in some)
    assert len(some[0].unique()) == 30
    assert classes_of(some[0]).count_nonzero() > 5
