"""A GPU made up of the CPU, which notices whoever waits for it: for machines that have none.

Tensors on it say that they are on ``cuda:0`` and hold true values, computed on the CPU. To PyTorch itself they are on
its device without data, ``meta``: so autograd goes back through them (through ``FakeTensorMode``'s it cannot without
CUDA), and whatever crosses between them and the CPU is an operation that is seen here. What a CUDA graph would record
is recorded operation by operation, and done again with what Python has said then.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_COPIES = (_ATEN._to_copy.default, _ATEN.copy_.default)
_INDEXING = (_ATEN.index.Tensor, _ATEN.index_put_.default, _ATEN._unsafe_index.Tensor)
# A view that is conjugated when it is read is not known to be one down here.
_AT_ONCE = {_ATEN._conj.default: _ATEN.conj_physical.default, _ATEN._neg_view.default: _ATEN.neg.default}
_NEEDS_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class Waited(AssertionError):
    """The CPU has waited for the GPU, or a recording has taken something from the CPU."""


class GpuTensor(Tensor):
    """A tensor that says it is on a GPU."""

    held: Tensor
    device = property(lambda self: torch.device("cuda", 0))  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> "GpuTensor":
        options = {"strides": held.stride(), "dtype": held.dtype, "device": "meta"}
        made: GpuTensor = torch.Tensor._make_wrapper_subclass(cls, held.shape, **options)  # type: ignore[attr-defined]
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{operation} on a made-up GPU that is not there any more")

    def __repr__(self) -> str:
        return f"GpuTensor({tuple(self.shape)}, {self.dtype})"


class Graph:
    """In place of ``torch.cuda.CUDAGraph``: operations, and where they read and write."""

    def __init__(self) -> None:
        self._done: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self._own = set[int]()
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def do(self, operation: Callable[..., Any], args: Any, options: Any) -> Any:
        """Note an operation."""
        for value in _tensors((args, options)):
            storage = value.untyped_storage()
            if storage.data_ptr() not in self._own | self._before.keys():
                self._before[storage.data_ptr()] = storage, storage.clone()
        found = operation(*args, **options)
        self._own |= {value.untyped_storage().data_ptr() for value in _tensors(found)} - self._before.keys()
        self._done.append((operation, args, options, found))
        return found

    def end(self) -> None:
        """Undo what was done to memory of before: to record is not to do."""
        for storage, before in self._before.values():
            storage.copy_(before)

    def replay(self) -> None:
        """Do what was noted, where it was done."""
        with torch.no_grad():
            for operation, args, options, found in self._done:
                for old, new in zip(_tensors(found), _tensors(operation(*args, **options)), strict=True):
                    if old.data_ptr() != new.data_ptr():  # neither in place nor a view
                        old.copy_(new)


class _Operations(TorchDispatchMode):
    """Computes, and fails where the CPU would wait: for a value, for a shape, or for a copy."""

    watches = False
    graph: Graph | None = None

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = _tensors((args, kwargs))
        on_gpu = [value for value in given if isinstance(value, GpuTensor)]
        arrives = kwargs.get("device") == torch.device("meta")
        leaves = operation is _ATEN._to_copy.default and kwargs.get("device") == torch.device("cpu")
        leaves |= operation is _ATEN.copy_.default and not isinstance(given[0], GpuTensor)
        if not (on_gpu or arrives):
            return operation(*args, **kwargs)
        if self.watches or self.graph is not None:
            self._check(operation, args, kwargs, given, leaves)
        held = {id(value.held): value for value in on_gpu}
        options = kwargs | ({"device": "cpu"} if arrives else {})
        args, options = (_mapped(lambda value: getattr(value, "held", value), each) for each in (args, options))
        operation = _AT_ONCE.get(operation, operation)
        found = operation(*args, **options) if self.graph is None else self.graph.do(operation, args, options)
        if leaves:
            return found

        # What is changed in place is the same tensor afterwards.
        return _mapped(lambda value: held[id(value)] if id(value) in held else GpuTensor(value), found)

    def _check(self, operation: Any, args: Any, kwargs: Any, given: list[Tensor], leaves: bool) -> None:
        if leaves:
            raise Waited(f"{operation} copies to the CPU")
        indexes, copies = operation in _INDEXING, operation in _COPIES
        masks = indexes and any(value.dtype in (torch.bool, torch.uint8) for value in given[1:])
        if masks or (not indexes and any(tag in operation.tags for tag in _NEEDS_VALUES)):
            raise Waited(f"{operation} needs to know a value")
        # A number, which the CPU sends along with an operation, is a tensor without dimensions.
        from_cpu = [value for value in given if not isinstance(value, GpuTensor) and (copies or value.dim())]
        if from_cpu and self.graph is not None:
            raise Waited(f"{operation} takes from the CPU what a replay would not take again")
        if from_cpu and not (copies and (kwargs.get("non_blocking") or True in args[2:3])):
            raise Waited(f"{operation} waits for its copy to the GPU")


class _Devices(TorchFunctionMode):
    """Takes "cuda" where a device is named."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is Tensor.tolist:
            return args[0].cpu().tolist()
        if function in (torch.device, torch._C._nn._parse_to):
            return function(*args, **kwargs)
        if function in (torch.tensor, torch.as_tensor) and _is_gpu(kwargs.get("device")):  # made here and copied
            return function(*args, **kwargs | {"device": "cpu"}).to("meta")
        args = ["meta" if _is_gpu(value) else value for value in args]
        return function(*args, **{name: "meta" if _is_gpu(value) else value for name, value in kwargs.items()})


class _Stream:
    def __init__(self, device: torch.device) -> None:
        self._device = device

    def wait_stream(self, other: "_Stream") -> None:
        """There is one stream."""


class MadeUpGpu:
    """The GPU, while it is there."""

    def __init__(self, operations: _Operations) -> None:
        self._operations = operations

    def watch(self) -> None:
        """From now on, fail where the CPU would wait."""
        self._operations.watches = True

    def look_away(self) -> None:
        """Undo :meth:`watch`."""
        self._operations.watches = False


@contextmanager
def made_up_gpu() -> Iterator[MadeUpGpu]:
    """Let tensors be moved to "cuda", and what is done to them be recorded there."""
    operations = _Operations()

    @contextmanager
    def recording(graph: Graph, stream: _Stream, capture_error_mode: str) -> Iterator[None]:
        operations.graph = graph
        try:
            yield
        finally:
            operations.graph = None
            graph.end()

    streams = {"Stream": _Stream, "current_stream": _Stream, "stream": nullcontext}
    with patch.multiple(torch.cuda, CUDAGraph=Graph, graph=recording, **streams), _Devices(), operations:
        yield MadeUpGpu(operations)


def _is_gpu(value: object) -> bool:
    return isinstance(value, torch.device | str) and str(value).startswith("cuda")


def _tensors(values: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _mapped(lambda value: found.append(value), values)
    return found


def _mapped(change: Callable[[Tensor], Any], values: Any) -> Any:
    """Return ``values``, and what is in them, with all tensors changed."""
    if isinstance(values, Tensor):
        return change(values)
    if isinstance(values, tuple | list):
        return type(values)([_mapped(change, value) for value in values])
    return {name: _mapped(change, value) for name, value in values.items()} if isinstance(values, dict) else values
