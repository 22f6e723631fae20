"""Recorded steps: when they are, and that a replay does what a call would have done."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from roles.common.compute import Compute
from roles.common.data import ImageStore
from roles.common.graphs import Captured, StepInTwo
from tests.roles.made_up_gpu import MadeUpGpu
from tests.roles.steps import KINDS, STEPS, Observer, Steps

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
EAGER = 3
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that CUDA can record on here")


class Doubling:
    """Doubles, and adds up on its device what it has been given; counts how often Python has called it."""

    def __init__(self, device: torch.device = CUDA) -> None:
        self.called = Counter[int]()
        self.total = torch.zeros((), device=device)

    def __call__(self, values: Tensor) -> tuple[Tensor]:
        self.called[len(values)] += 1
        self.total += values.sum()
        return (2 * values,)


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_on_a_cpu_a_function_is_called_every_time() -> None:
    double = Doubling(CPU)
    step = Captured(double, CPU, recorded=True)
    for number in range(2 * EAGER):
        assert step(numbers(number))[0].tolist() == [2 * number]
    assert double.called == {1: 2 * EAGER}


def test_on_a_gpu_python_calls_three_times_and_records_once_and_every_call_does_the_same(gpu: MadeUpGpu) -> None:
    double = Doubling()
    step = Captured(double, CUDA, recorded=True)
    for number in range(10):
        assert step(numbers(number, 1))[0].tolist() == [2 * number, 2]
        assert double.total.item() == sum(range(number + 1)) + number + 1
    assert double.called == {2: EAGER + 1}


def test_what_is_not_to_be_recorded_is_called_every_time(gpu: MadeUpGpu) -> None:
    double = Doubling()
    for number in range(2 * EAGER):
        Captured(double, CUDA, recorded=False)(numbers(number))
    assert double.called == {1: 2 * EAGER}


def test_inputs_of_other_shapes_are_counted_and_recorded_on_their_own(gpu: MadeUpGpu) -> None:
    double = Doubling()
    step = Captured(double, CUDA, recorded=True)
    for number in range(10):
        assert step(numbers(number, number))[0].tolist() == [2 * number] * 2
        if number % 2:
            assert step(numbers(number))[0].tolist() == [2 * number]
    # Ten times two numbers, five times one.
    assert double.called == {2: EAGER + 1, 1: EAGER + 1}
    assert double.total.item() == 2 * sum(range(10)) + sum(range(1, 10, 2))


def test_of_many_shapes_a_few_are_recorded_and_the_others_are_called_every_time(gpu: MadeUpGpu) -> None:
    double = Doubling()
    step = Captured(double, CUDA, recorded=True)
    for _ in range(EAGER + 3):
        for count in range(1, 7):
            assert step(torch.ones(count))[0].tolist() == [2] * count
    assert double.called == {count: EAGER + (1 if count <= 4 else 3) for count in range(1, 7)}
    assert double.total.item() == (EAGER + 3) * sum(range(1, 7))


def test_outputs_last_until_the_next_replay(gpu: MadeUpGpu) -> None:
    step = Captured(Doubling(), CUDA, recorded=True)
    for number in range(EAGER):
        step(numbers(number))
    kept = step(numbers(7))[0]
    assert kept.item() == 14
    assert step(numbers(8))[0] is kept
    assert kept.item() == 16


def test_a_number_of_pythons_is_recorded_as_it_was_and_a_tensor_is_read_anew(gpu: MadeUpGpu) -> None:
    factor, scale = 1.0, torch.ones((), device=CUDA)
    step = Captured(lambda values: (factor * scale * values,), CUDA, recorded=True)
    for _ in range(EAGER + 1):
        step(numbers(1))
    factor = 100.0
    scale.fill_(3.0)
    assert step(numbers(1))[0].item() == 3


class Fitting:
    """One weight, fitted by steps in two: ``w x`` goes out, and its gradient comes back."""

    def __init__(self, *, recorded: bool = True) -> None:
        self.weight = nn.Parameter(torch.ones((), device=CUDA))
        self.called = Counter[str]()
        self.step = StepInTwo(self._first, self._second, CUDA, recorded=recorded)

    def _first(self, values: Tensor) -> tuple[Tensor, Tensor]:
        self.called["first"] += 1
        plain = values.clone()  # inputs are overwritten: what autograd is to remember has to be made here
        return plain, self.weight * plain

    def _second(self, values: Tensor, protected: Tensor, gradient: Tensor) -> tuple[Tensor]:
        self.called["second"] += 1
        (slope,) = torch.autograd.grad(protected, self.weight, gradient)
        with torch.no_grad():
            self.weight -= 0.5 * slope
        return (values.sum(),)

    def take(self, *values: float) -> None:
        """Take a step; with a gradient of ones, the weight goes down by half the sum of ``values``."""
        before = self.weight.item()
        _, protected = self.step.begin(numbers(*values))
        assert protected.tolist() == pytest.approx([before * value for value in values])
        (summed,) = self.step.finish(torch.ones(len(values)))
        assert summed.item() == pytest.approx(sum(values))
        assert self.weight.item() == pytest.approx(before - sum(values) / 2)


def test_a_step_in_two_goes_back_through_what_its_first_half_has_done(gpu: MadeUpGpu) -> None:
    fitting = Fitting()
    for number in range(8):
        fitting.take(number / 8, 0.25)
    assert fitting.called == {"first": EAGER + 1, "second": EAGER + 1}


def test_a_step_in_two_that_is_not_to_be_recorded_is_called_every_time(gpu: MadeUpGpu) -> None:
    fitting = Fitting(recorded=False)
    for number in range(8):
        fitting.take(number / 8)
    assert fitting.called == {"first": 8, "second": 8}


def test_steps_of_other_shapes_come_between(gpu: MadeUpGpu) -> None:
    fitting = Fitting()
    for number in range(8):
        fitting.take(number / 8, 0.25)
        fitting.take(0.5)  # eagerly at first, between replays; then each by its own recording
    assert fitting.called == {"first": 2 * (EAGER + 1), "second": 2 * (EAGER + 1)}


@pytest.mark.parametrize("before", [0, 2, 3, 5], ids=lambda before: f"after {before} steps")
def test_a_step_that_was_begun_and_dropped_is_begun_again(gpu: MadeUpGpu, before: int) -> None:
    fitting = Fitting()
    for number in range(before):
        fitting.take(number / 8, 0.25)
    fitting.step.begin(numbers(9, 9))
    fitting.step.begin(numbers(9, 9))
    for number in range(EAGER + 1):
        fitting.take(number / 8, 0.25)
    fitting.step.begin(numbers(9))
    fitting.take(0.5, 0.25)
    # One more shape was begun, once, and eagerly.
    assert fitting.called["first"] == EAGER + 1 + 1


def losses_of(steps: Steps, store: ImageStore, compute: Compute) -> Tensor:
    observer = Observer()
    steps(store, compute, observer)
    return torch.tensor([float(loss) for loss in observer.losses])


@needs_cuda
@pytest.mark.parametrize("steps", KINDS.values(), ids=KINDS.keys())
def test_on_a_real_gpu_replayed_steps_agree_with_eager_ones_as_far_as_bf16_does(steps: Steps, tiny: ImageStore) -> None:
    def losses(*, graphs: bool) -> Tensor:
        return losses_of(steps, tiny, Compute("bf16", "cuda", graphs=graphs))

    eager, replayed = losses(graphs=False), losses(graphs=True)
    assert len(eager) == len(replayed) == STEPS
    assert torch.isfinite(eager).all()
    # bf16 has 8 bits of mantissa; kernels may add up in another order from one run to the next.
    assert torch.allclose(eager, replayed, rtol=0.1)


@needs_cuda
def test_on_a_real_gpu_python_calls_three_times_and_records_once() -> None:
    double = Doubling()
    step: Callable[..., tuple[Tensor, ...]] = Captured(double, CUDA, recorded=True)
    for number in range(10):
        assert step(numbers(number, 1))[0].tolist() == [2 * number, 2]
        assert double.total.item() == sum(range(number + 1)) + number + 1
    assert double.called == {2: EAGER + 1}
