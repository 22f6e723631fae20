"""CUDA graphs: the kernels of a step are recorded once and replayed, so that a GPU never waits for Python.

On a CPU, what is here calls the functions as they are. What may be recorded has no host in it: it reads no value back
(``.item()``, ``if tensor``), and its shapes depend on those of its inputs alone.
"""

import gc
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Function = Callable[..., Tensors]
_Shapes = tuple[torch.Size, ...]

_EAGER_CALLS = 3
"""How often a function is called before it is recorded: libraries and optimisers set themselves up in first calls."""
_MOST_RECORDINGS = 4
"""Of one function: each keeps memory of its own, and last batches of users come in many sizes."""
_turn = threading.RLock()
"""One stream serves all threads of a process, and while one of them records nobody else may use it."""


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream that first calls and recordings of a process share: autograd keeps each leaf to one stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Recording:
    """One CUDA graph: its inputs are copied to where it reads them, its outputs last until it is replayed.

    Args:
        given: tensors that the function takes before its inputs, and that stay where they are.
        inputs: examples of its inputs.
    """

    def __init__(self, function: Function, given: Tensors, inputs: Tensors, device: torch.device) -> None:
        # A network and the steps that were recorded of it know each other: counting references does not free them.
        gc.collect()
        self._inputs = [value.to(device).clone() for value in inputs]
        self._graph = torch.cuda.CUDAGraph()
        # Threads that have nothing to do with steps may use the GPU meanwhile.
        graph = torch.cuda.graph(self._graph, stream=_side_stream(device), capture_error_mode="thread_local")
        with _turn, graph:
            self.outputs = function(*given, *self._inputs)

    def replay(self, inputs: Tensors) -> Tensors:
        with _turn:
            for own, value in zip(self._inputs, inputs, strict=True):
                own.copy_(value, non_blocking=True)
            self._graph.replay()
        return self.outputs


class _Calls:
    """Counts the calls of a function by the shapes of its inputs."""

    def __init__(self, device: torch.device, recorded: bool) -> None:
        self._counts, self._may_be_recorded = Counter[_Shapes](), recorded and device.type == "cuda"

    def are_due(self, shapes: _Shapes, recordings: Mapping[_Shapes, object]) -> bool:
        """Count a call, and return whether it is one for a recording."""
        self._counts[shapes] += 1
        has_room = shapes in recordings or len(recordings) < _MOST_RECORDINGS
        return self._may_be_recorded and self._counts[shapes] > _EAGER_CALLS and has_room


class Captured:
    """A function of tensors that is replayed from its fourth call with inputs of the same shapes on.

    Args:
        function: from tensors to tensors; whatever else it changes (weights, an optimiser's state) it changes in place.
        device: where it computes.
        recorded: whether it may be.
    """

    def __init__(self, function: Function, device: torch.device, *, recorded: bool) -> None:
        self._function, self._device, self._calls = function, device, _Calls(device, recorded)
        self._recordings: dict[_Shapes, _Recording] = {}

    def __call__(self, *inputs: Tensor) -> Tensors:
        """Return what the function does; on a GPU, until the next call."""
        shapes = _shapes(inputs)
        if not self._calls.are_due(shapes, self._recordings):
            return _eagerly(self._function, (), inputs, self._device)
        if shapes not in self._recordings:
            self._recordings[shapes] = _Recording(self._function, (), inputs, self._device)
        return self._recordings[shapes].replay(inputs)


class StepInTwo:
    """A step of two functions between which another party works: the second goes back through what the first has done.

    Args:
        first: from the inputs of a step to tensors, with the graph that autograd goes back through.
        second: from the first's outputs and further inputs to tensors.
        device: where both compute.
        recorded: whether they may be.
    """

    def __init__(self, first: Function, second: Function, device: torch.device, *, recorded: bool) -> None:
        self._first, self._second, self._device = first, second, device
        self._calls = _Calls(device, recorded)
        self._recordings: dict[_Shapes, tuple[_Recording, _Recording | None]] = {}
        self._begun: _Shapes | None = None
        self._outputs: Tensors = ()

    def begin(self, *inputs: Tensor) -> Tensors:
        """Do the first part; one that is never finished may be begun again."""
        # What autograd remembers of the step before is not to live on while this one is recorded.
        self._begun, self._outputs = None, ()
        shapes = _shapes(inputs)
        if not self._calls.are_due(shapes, self._recordings):
            self._outputs = _eagerly(self._first, (), inputs, self._device)
            return self._outputs
        if shapes not in self._recordings:
            self._recordings[shapes] = _Recording(self._first, (), inputs, self._device), None
        self._begun = shapes
        return self._recordings[shapes][0].replay(inputs)

    def finish(self, *inputs: Tensor) -> Tensors:
        """Do the second part, once after each :meth:`begin`."""
        if self._begun is None:
            return _eagerly(self._second, self._outputs, inputs, self._device)
        first, second = self._recordings[self._begun]
        if second is None:
            second = _Recording(self._second, first.outputs, inputs, self._device)
            self._recordings[self._begun] = first, second
        return second.replay(inputs)


def _shapes(inputs: Tensors) -> _Shapes:
    return tuple(value.shape for value in inputs)


def _eagerly(function: Function, given: Tensors, inputs: Tensors, device: torch.device) -> Tensors:
    if device.type != "cuda":
        return function(*given, *inputs)
    side, current = _side_stream(device), torch.cuda.current_stream(device)
    with _turn:
        moved = [value.to(device, non_blocking=True) for value in inputs]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            outputs = function(*given, *moved)
        current.wait_stream(side)
    return outputs
