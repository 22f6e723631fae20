import math

import pytest
import torch

from roles.common.exchange import (
    Answer,
    Classify,
    ExchangeError,
    Gradient,
    ImageIds,
    LossValues,
    Predictions,
    Request,
    TrainingImages,
    Work,
    checked_gradient,
    drive,
    expect,
)

LIKE = torch.zeros(2, 3, 4, 4)


def gradient(value: torch.Tensor) -> Gradient:
    return Gradient(gradient=value, loss=0.0, correct=0)


def echo(request: Request) -> Answer:
    assert isinstance(request, Classify)
    return Predictions(request.images)


def counting(requests: int) -> Work[list[int]]:
    got: list[int] = []
    for number in range(requests):
        answer = expect((yield Classify(torch.tensor([number]))), Predictions)
        got.append(int(answer.labels))
    return got


@pytest.mark.parametrize("requests", [0, 1, 3])
def test_work_is_driven_through_all_its_requests_to_its_result(requests: int) -> None:
    assert drive(counting(requests), echo) == list(range(requests))


def test_what_goes_wrong_at_the_provider_comes_out_of_drive() -> None:
    def refuse(request: Request) -> Answer:
        raise ExchangeError("no")

    with pytest.raises(ExchangeError, match=r"^no$"):
        drive(counting(1), refuse)


def test_what_goes_wrong_in_the_work_comes_out_of_drive() -> None:
    def failing() -> Work[None]:
        yield TrainingImages(0)
        raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        drive(failing(), echo_ids)


def echo_ids(request: Request) -> Answer:
    return ImageIds(torch.arange(2), torch.arange(2))


def test_an_answer_of_another_kind_is_refused() -> None:
    with pytest.raises(ExchangeError, match="answered with ImageIds, expected Predictions"):
        drive(counting(1), echo_ids)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (gradient(torch.zeros(1, 3, 4, 4)), r"gradient is torch.float32 \(1, 3, 4, 4\), expected .*\(2, 3, 4, 4\)"),
        (gradient(torch.zeros(2, 48)), r"gradient is torch.float32 \(2, 48\)"),
        (gradient(LIKE.double()), "gradient is torch.float64"),
        (gradient(LIKE.bfloat16()), "gradient is torch.bfloat16"),
        (gradient(torch.full_like(LIKE, torch.nan)), "not finite"),
        (gradient(torch.full_like(LIKE, -torch.inf)), "not finite"),
        (Predictions(torch.zeros(2, dtype=torch.int64)), "expected Gradient"),
    ],
)
def test_a_gradient_that_cannot_be_used_is_refused_in_one_line(answer: Answer, reason: str) -> None:
    with pytest.raises(ExchangeError, match=reason) as caught:
        checked_gradient(answer, LIKE)
    assert "\n" not in str(caught.value)


def test_a_gradient_like_the_batch_is_passed_on() -> None:
    answer = gradient(torch.rand(2, 3, 4, 4))
    assert checked_gradient(answer, LIKE) is answer


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_refused(loss: float) -> None:
    with pytest.raises(ExchangeError, match="expected a finite one"):
        expect(LossValues(loss=loss, correct=0), LossValues)
