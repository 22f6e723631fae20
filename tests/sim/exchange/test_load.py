"""What is known of the provider's load: how many requests, images and bytes, second by second."""

import threading
from collections.abc import Iterable

import torch
from hypothesis import given
from hypothesis import strategies as st

from roles.common.exchange import Classify, LossGradient, TrainingImages
from sim.exchange.load import MOST_ROWS, ProviderLoad
from sim.exchange.messages import size_of
from sim.exchange.payloads import decode_load, encode_curve

SECONDS = 1_700_000_000


def row(second: int, requests: int, images: int, size: int, width: int = 1) -> dict[str, int]:
    return {"second": second, "width": width, "requests": requests, "images": images, "bytes": size}


def totals(rows: Iterable[dict[str, int]]) -> tuple[int, ...]:
    rows = list(rows)
    return tuple(sum(row[key] for row in rows) for key in ("requests", "images", "bytes"))


def test_requests_are_counted_by_the_second_with_their_images_and_bytes() -> None:
    times = iter([SECONDS + 0.1, SECONDS + 0.9, SECONDS + 3.5])
    load = ProviderLoad(clock=lambda: next(times))
    load.count(*size_of(TrainingImages(3)))
    load.count(*size_of(LossGradient(torch.zeros(5, 3, 4, 4), torch.arange(5), 0, 0)))
    load.count(*size_of(Classify(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))))
    # 48 values an image, of 4 bytes, and ids of 8; bitmaps of 1.
    assert [(r["second"], r["requests"], r["images"]) for r in load.rows()] == [(SECONDS, 2, 5), (SECONDS + 3, 1, 2)]
    assert [r["bytes"] for r in load.rows()] == [5 * 48 * 4 + 5 * 8, 2 * 48]


def test_what_was_counted_before_stays_and_is_added_to() -> None:
    earlier = [row(SECONDS, 2, 5, 100), row(SECONDS + 7, 1, 1, 10)]
    load = ProviderLoad(earlier)
    assert load.rows() == earlier
    load.add([row(SECONDS + 7, 1, 4, 5), row(SECONDS + 2, 3, 3, 3)])
    assert load.rows() == [row(SECONDS, 2, 5, 100), row(SECONDS + 2, 3, 3, 3), row(SECONDS + 7, 2, 5, 15)]


def test_requests_from_many_threads_are_all_counted() -> None:
    load = ProviderLoad()

    def ask() -> None:
        for _ in range(500):
            load.count(1, 10)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals(load.rows())[0] == 4000


def test_a_long_run_has_few_rows_of_one_width_that_start_at_multiples_of_it() -> None:
    load = ProviderLoad(row(SECONDS + second, 1, 2, 3) for second in range(4 * MOST_ROWS))
    rows = load.rows()
    (width,) = {row["width"] for row in rows}
    assert MOST_ROWS / 2 <= len(rows) < MOST_ROWS
    assert width == 8
    assert all(row["second"] % width == 0 for row in rows)
    assert totals(rows) == (4 * MOST_ROWS, 8 * MOST_ROWS, 12 * MOST_ROWS)


counts = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 99)), max_size=50)


@given(counts, counts, st.sampled_from([1, 2, 8]), st.sampled_from([1, 4, 64]))
def test_adding_loses_nothing_whatever_the_widths(
    one: list[tuple[int, int]], other: list[tuple[int, int]], width: int, other_width: int
) -> None:
    rows = [row(second * width, 1, count, count, width) for second, count in one]
    more = [row(second * other_width, 1, count, count, other_width) for second, count in other]
    load = ProviderLoad(rows)
    load.add(more)
    assert totals(load.rows()) == totals([*rows, *more])
    assert decode_load(encode_curve(load.rows())) == load.rows()
