"""A step on a GPU never waits for it, and computes what a CPU does: on a GPU that is made up of the CPU."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from roles.common import graphs
from roles.common.batches import Batches
from roles.common.compute import Compute
from roles.common.config.recipe import Recipe
from roles.common.data import ImageStore
from roles.common.fitting import fit
from roles.common.images import all_finite
from roles.common.weights import State
from tests.roles.made_up_gpu import MadeUpGpu, Waited
from tests.roles.steps import BATCH, KINDS, STEPS, Observer, Steps

CUDA = torch.device("cuda")
every_kind = pytest.mark.parametrize("steps", KINDS.values(), ids=KINDS.keys())


@pytest.fixture(params=[False, True], ids=["eagerly", "replayed"])
def watched(request: pytest.FixtureRequest, gpu: MadeUpGpu) -> tuple[Compute, Observer]:
    return Compute("fp32", "cuda", graphs=request.param), Observer(gpu, after=5 if request.param else 2)


@pytest.fixture(scope="module")
def on_cpu(tiny: ImageStore, compute: Compute) -> Callable[[Steps], State]:
    """What the CPU comes to, by what it computes."""
    return cache(lambda steps: steps(tiny, compute, Observer()))


@every_kind
def test_a_step_never_waits_for_the_gpu_and_computes_what_a_cpu_does(
    steps: Steps, tiny: ImageStore, on_cpu: Callable[[Steps], State], watched: tuple[Compute, Observer]
) -> None:
    on_gpu = steps(tiny, *watched)
    assert on_gpu.keys() == on_cpu(steps).keys()
    for name, value in on_cpu(steps).items():
        # Optimisers add in another order there.
        assert torch.allclose(on_gpu[name], value, rtol=1e-4, atol=1e-5), name


@every_kind
def test_shapes_stay_the_same_from_step_to_step(
    steps: Steps, tiny: ImageStore, gpu: MadeUpGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, eagerly = list[tuple[Callable[..., Any], list[torch.Size]]](), graphs._eagerly

    def noting(function: Callable[..., Any], given: Any, inputs: Any, device: torch.device) -> Any:
        outputs = eagerly(function, given, inputs, device)
        calls.append((function, [value.shape for value in (*inputs, *outputs)]))
        return outputs

    monkeypatch.setattr(graphs, "_eagerly", noting)
    steps(tiny, Compute("fp32", "cuda", graphs=False), Observer(gpu))
    functions = {function for function, _ in calls}
    assert len(calls) == STEPS * len(functions)
    for function in functions:
        shapes = [found for other, found in calls if other == function]
        assert all(found == shapes[0] for found in shapes)


@every_kind
def test_each_of_these_steps_is_watched(
    steps: Steps, tiny: ImageStore, watched: tuple[Compute, Observer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading(undisturbed: Callable[..., Any]) -> Callable[..., Any]:
        def read(*arguments: Any) -> Any:
            outputs = undisturbed(*arguments)
            outputs[0].sum().item()
            return outputs

        return read

    monkeypatch.setattr(graphs, "_eagerly", reading(graphs._eagerly))
    monkeypatch.setattr(graphs._Recording, "replay", reading(graphs._Recording.replay))
    with pytest.raises(Waited, match="_local_scalar_dense"):
        steps(tiny, *watched)
    assert len(watched[1].losses) == watched[1].after


def test_a_step_that_reads_its_loss_is_found_out(gpu: MadeUpGpu) -> None:
    compute, network = Compute("fp32", "cuda"), nn.Linear(1, 1)

    def loss_of(ids: Tensor) -> Tensor:
        loss = network(ids.float().view(-1, 1)).square().mean()
        assert loss.item() >= 0
        return loss

    def train(loss_of: Callable[..., Tensor]) -> None:
        batches, recipe = Batches(torch.arange(BATCH * STEPS), BATCH, 0), Recipe(epochs=1, batch_size=BATCH, lr=1e-5)
        options: dict[str, Any] = {"name": "training", "rate": "lr"}
        draw, validate = lambda number, ids: (ids,), lambda: {"validation_loss": 0.0}
        fit(compute.module(network), recipe, batches, draw, loss_of, validate, Observer(gpu), compute, **options)

    with pytest.raises(Waited, match="_local_scalar_dense"):
        train(loss_of)
    gpu.look_away()
    train(lambda ids: network(ids.float().view(-1, 1)).square().mean())


WAITS: dict[str, Callable[[Tensor], object]] = {
    "a number": lambda x: x.sum().item(),
    "a condition": lambda x: bool(x.sum() > 0),
    "a loss as a float": lambda x: float(x.sum()),
    "a list": lambda x: x.tolist(),
    "equality": lambda x: torch.equal(x, x),
    "finite values": lambda x: all_finite(x),
    "places": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 0],
    "distinct values": lambda x: x.unique(),
    "a copy": lambda x: x.cpu(),
    "a copy that is begun": lambda x: x.to("cpu", non_blocking=True),
    "a copy into a tensor": lambda x: torch.empty(4).copy_(x),
    "a tensor of the CPU": lambda x: x + torch.ones(4).to(x.device),
    "a tensor of the CPU into one": lambda x: x.copy_(torch.ones(4)),
    "a tensor made of numbers": lambda x: x + torch.tensor([1.0, 2.0, 3.0, 4.0], device=x.device),
    "a tensor made of a number": lambda x: x + torch.tensor(1.0, device=x.device),
    "indices of the CPU": lambda x: x[torch.tensor([0, 1])],
}


@pytest.mark.parametrize("way", WAITS)
def test_whatever_waits_is_found_out(gpu: MadeUpGpu, way: str) -> None:
    x = torch.arange(4.0).to(CUDA)
    WAITS[way](x)  # nobody minds
    gpu.watch()
    with pytest.raises(Waited):
        WAITS[way](x)


def test_what_need_not_wait_gives_true_values(gpu: MadeUpGpu) -> None:
    x, places = torch.arange(4.0).to(CUDA).requires_grad_(), torch.tensor([3, 1]).to(CUDA)
    gpu.watch()
    ones = torch.ones(4).to(CUDA, non_blocking=True)
    into = torch.zeros(4, device=CUDA)
    into.copy_(torch.full((4,), 5.0), non_blocking=True)
    chosen = torch.where(x[places] > 2, x[places], torch.nan)
    (x.square().sum() * 3 + torch.arange(4, device=CUDA).sum()).backward()
    assert torch.rand(3).max().item() < 1  # what is on the CPU is read as ever
    gpu.look_away()
    assert ones.is_cuda and ones.device.type == "cuda"
    assert (x.detach() + ones).tolist() == [1, 2, 3, 4]
    assert into.tolist() == [5] * 4
    assert chosen.tolist() == pytest.approx([3, torch.nan], nan_ok=True)
    assert x.grad is not None and x.grad.tolist() == [0, 6, 12, 18]


def test_what_is_recorded_may_take_nothing_from_the_cpu_even_without_waiting(gpu: MadeUpGpu) -> None:
    x = torch.arange(4.0).to(CUDA)

    def noisy(x: Tensor) -> tuple[Tensor]:
        return (x + torch.rand(4).to(x.device, non_blocking=True),)

    step = Compute("fp32", "cuda").captured(noisy)
    gpu.watch()
    for _ in range(graphs._EAGER_CALLS):
        step(x)
    with pytest.raises(Waited, match="takes from the CPU what a replay would not take again"):
        step(x)
