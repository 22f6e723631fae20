"""X' for many users: flwr-datasets' partitioners over the labels that the provider holds."""

import warnings

import numpy as np
import torch
from datasets import Dataset
from flwr_datasets import partitioner as partitioners
from torch import Tensor

from roles.common.seeds import derived_seed
from sim.config import sections
from sim.config.checks import check_shares
from sim.config.errors import ConfigError, one_line
from sim.config.sections import UsersConfig


def partition_images(labels: Tensor, users: UsersConfig, count: int, seed: int) -> list[Tensor]:
    """Return each user's X' as sorted positions in the train set, int64.

    No image belongs to two users, but where users draw samples from all images or have all of them.

    Args:
        labels: ``(N,)`` int64 of the train set.
        users: how images are shared.
        count: how many users there are.
        seed: the run's seed.

    Raises:
        ConfigError: the partitioner cannot give every user 2 images.
    """
    partition = users.partition
    check_shares(partition, count, len(labels))
    # flwr-datasets seeds numpy's generators, which take 32 bits.
    small_seed = derived_seed(seed, "partition") % 2**32
    order = np.random.default_rng(small_seed).permutation(len(labels))
    match partition:
        case sections.SamplePartition(images=size):
            streams = np.random.default_rng(small_seed).spawn(count)
            parts = [torch.from_numpy(stream.choice(len(labels), size, replace=False)) for stream in streams]
        case sections.AllPartition():
            # One tensor for all: every process of a provider has it.
            return [torch.from_numpy(order)[: users.images].sort().values] * count
        case sections.ShardsPartition(per_user=per_user) if count * per_user > len(labels):
            raise ConfigError(
                f"users.partition.per_user: got {per_user}: {len(labels)} training images are at most "
                f"{len(labels) // count} shards for each of {count} users"
            )
        case _:
            # The partitioners for IID and sizes cut contiguous pieces: they need the images in random order.
            table = Dataset.from_dict({"position": order.tolist(), "label": labels[torch.from_numpy(order)].tolist()})
            parts = _parts(table, partition, count, small_seed)
    parts = [part[: users.images].sort().values for part in parts]
    for user, part in enumerate(parts):
        if len(part) < 2:
            raise ConfigError(
                f"users.partition: user {user} gets {len(part)} images and needs 2: "
                "use fewer users or another partition"
            )
    return parts


def _parts(table: Dataset, partition: sections.Partition, count: int, seed: int) -> list[Tensor]:
    try:
        with warnings.catch_warnings():
            # A page of advice for every draw that does not fit; what does not fit in the end is an error below.
            warnings.simplefilter("ignore", UserWarning)
            partitioner = _partitioner(partition, count, seed)
            partitioner.dataset = table
            return [torch.tensor(partitioner.load_partition(user)["position"]) for user in range(count)]
    except ValueError as error:
        raise ConfigError(f"users.partition: {one_line(error)}") from error


def _partitioner(partition: sections.Partition, count: int, seed: int) -> partitioners.Partitioner:
    by_label = {"num_partitions": count, "partition_by": "label", "seed": seed}
    match partition:
        case sections.IidPartition():
            return partitioners.IidPartitioner(num_partitions=count)
        case sections.DirichletPartition(alpha=alpha):
            return partitioners.DirichletPartitioner(alpha=alpha, min_partition_size=2, **by_label)
        case sections.ShardsPartition(per_user=per_user):
            return partitioners.ShardPartitioner(num_shards_per_partition=per_user, **by_label)
        case sections.SizesPartition(sizes=sizes):
            return partitioners.SizePartitioner(partition_sizes=list(sizes))
        case _:
            raise AssertionError("images of several users are no partition")
