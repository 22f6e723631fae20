"""State dicts on disk (safetensors, never pickle) and their fingerprints."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from roles.common.files import UnreadableFile, replacing

State = dict[str, Tensor]
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def cpu_state(module: nn.Module) -> State:
    """Return a detached, contiguous copy of the parameters and buffers on the CPU."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous(memory_format=torch.contiguous_format)
        for name, value in module.state_dict().items()
    }


def without_statistics(state: Mapping[str, Tensor]) -> State:
    """Return a network's state without the running statistics of its batch normalisation."""
    return {name: value for name, value in state.items() if name.rpartition(".")[2] not in _STATISTICS}


def digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes, in the order of the names."""
    sha = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        sha.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def save(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write ``state`` so that ``path`` holds either the old file or the whole new one."""
    tensors, places = State(), set[int]()
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        # safetensors writes no two tensors that share memory.
        tensors[name] = tensor.clone() if place in places else tensor
        places.add(place)
    with replacing(path) as partial:
        # safetensors 0.8 writes a broken header for no tensors and empty metadata.
        safetensors.torch.save_file(tensors, partial, dict(metadata) if metadata else None)


def load(path: Path) -> tuple[State, dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        UnreadableFile: the file is missing, truncated, or not safetensors; the message names it.
    """
    if not path.is_file():
        raise UnreadableFile(f"{path}: no such weights file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise UnreadableFile(f"{path}: not a readable safetensors file ({error})") from error


def prefixed(group: str, state: Mapping[str, Tensor]) -> State:
    """Name tensors as those of one group of a larger state; :func:`groups_of` undoes it."""
    return {f"{group}/{name}": value for name, value in state.items()}


def groups_of(state: Mapping[str, Tensor]) -> defaultdict[str, State]:
    """Return the groups that a state is made of, empty ones for any other name.

    >>> groups_of({"theta/a": torch.zeros(1), "ids/train": torch.ones(2)})["ids"]
    {'train': tensor([1., 1.])}
    """
    groups: defaultdict[str, State] = defaultdict(dict)
    for name, value in state.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = value
    return groups


def training_state(group: str, module: nn.Module, optimiser: torch.optim.Optimizer) -> State:
    """Return weights as ``<group>/...`` and what the optimiser remembers of its steps as ``optimiser/...``."""
    state = prefixed(group, cpu_state(module))
    for index, entry in optimiser.state_dict()["state"].items():
        tensors = {name: value.detach().cpu().contiguous() for name, value in entry.items() if value is not None}
        state |= prefixed(f"optimiser/{index}", tensors)
    return state


def restore_training(
    group: str, module: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor], source: str
) -> None:
    """Take up a :func:`training_state`, which may be part of a larger state; errors are as of :func:`load_into`."""
    groups = groups_of(state)
    load_into(module, groups[group], source)
    entries = {int(index): entry for index, entry in groups_of(groups["optimiser"]).items()}
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
    for parameter, entry in optimiser.state.items():
        for name, value in entry.items():
            if value.shape == parameter.shape:  # in the parameter's layout, as fused optimisers need it
                entry[name] = torch.empty_like(parameter).copy_(value)


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load ``state`` into ``module``.

    Raises:
        ValueError: names or shapes differ from the module's, whole numbers stand for fractions, or a value is not
            finite; the message names ``source``.
    """
    expected = module.state_dict()
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or extra:
        raise ValueError(f"{source}: not weights of this network (missing {missing[:3]}, unexpected {extra[:3]})")
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{source}: {name} has shape {tuple(value.shape)}, expected {tuple(expected[name].shape)}")
        if expected[name].is_floating_point() and not value.is_floating_point():
            held = str(value.dtype).removeprefix("torch.")
            raise ValueError(f"{source}: {name} holds {held}, expected floating-point numbers")
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{source}: {name} holds values that are not finite")
    module.load_state_dict(dict(state))
