"""X' for many users: flwr-datasets' partitioners over the labels that the provider holds."""

import warnings

import numpy as np
import torch
from datasets import Dataset
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    IidPartitioner,
    Partitioner,
    ShardPartitioner,
    SizePartitioner,
)
from torch import Tensor

from roles.common.seeds import derived_seed
from sim.config.checks import check_shares
from sim.config.errors import ConfigError, one_line
from sim.config.sections import (
    AllPartition,
    DirichletPartition,
    IidPartition,
    SamplePartition,
    ShardsPartition,
    SizesPartition,
    UsersConfig,
)


def partition_images(labels: Tensor, users: UsersConfig, count: int, seed: int) -> list[Tensor]:
    """Return each user's X' as sorted positions in the train set, int64.

    No image belongs to two users, but where users draw samples from all images or have all of them.

    Args:
        labels: ``(N,)`` int64 of the train set.

    Raises:
        ConfigError: the partitioner cannot give every user 2 images.
    """
    check_shares(users.partition, count, len(labels))
    # flwr-datasets seeds numpy's generators, which take 32 bits.
    small_seed = derived_seed(seed, "partition") % 2**32
    if isinstance(users.partition, SamplePartition):
        samples = _samples(len(labels), users.partition.images, count, small_seed)
        return [sample[: users.images].sort().values for sample in samples]
    if isinstance(users.partition, ShardsPartition) and count * users.partition.per_user > len(labels):
        raise ConfigError(
            f"users.partition.per_user: got {users.partition.per_user}: {len(labels)} training images are at most "
            f"{len(labels) // count} shards for each of {count} users"
        )
    order = np.random.default_rng(small_seed).permutation(len(labels))
    if isinstance(users.partition, AllPartition):
        return [torch.from_numpy(order)[: users.images].sort().values] * count
    # The partitioners for IID and sizes cut contiguous pieces: they need the images in random order.
    table = Dataset.from_dict({"position": order.tolist(), "label": labels[torch.from_numpy(order)].tolist()})
    try:
        with warnings.catch_warnings():
            # A page of advice for every draw that does not fit; what does not fit in the end is an error below.
            warnings.simplefilter("ignore", UserWarning)
            partitioner = _partitioner(users, count, small_seed)
            partitioner.dataset = table
            shares = [partitioner.load_partition(user)["position"] for user in range(count)]
        parts = [torch.tensor(share, dtype=torch.int64) for share in shares]
    except ValueError as error:
        raise ConfigError(f"users.partition: {one_line(error)}") from error
    if users.images is not None:
        parts = [part[: users.images] for part in parts]
    for user, part in enumerate(parts):
        if len(part) < 2:
            raise ConfigError(
                f"users.partition: user {user} gets {len(part)} images and needs 2: "
                "use fewer users or another partition"
            )
    return [part.sort().values for part in parts]


def _samples(images: int, size: int, count: int, seed: int) -> list[Tensor]:
    streams = np.random.default_rng(seed).spawn(count)
    return [torch.from_numpy(stream.choice(images, size, replace=False)) for stream in streams]


def _partitioner(users: UsersConfig, count: int, seed: int) -> Partitioner:
    match users.partition:
        case IidPartition():
            return IidPartitioner(num_partitions=count)
        case DirichletPartition(alpha=alpha):
            return DirichletPartitioner(
                num_partitions=count, partition_by="label", alpha=alpha, min_partition_size=2, seed=seed
            )
        case ShardsPartition(per_user=per_user):
            return ShardPartitioner(
                num_partitions=count, partition_by="label", num_shards_per_partition=per_user, seed=seed
            )
        case SizesPartition(sizes=sizes):
            return SizePartitioner(partition_sizes=list(sizes))
        case SamplePartition() | AllPartition():
            raise AssertionError("images of several users are no partition")
