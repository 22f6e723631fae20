import threading

import torch
from hypothesis import given
from hypothesis import strategies as st

from roles.common.seeds import DRAWING, derived_seed, generator, seeded

scopes = st.lists(st.one_of(st.integers(0, 50), st.sampled_from(["user", "theta", "order"])), max_size=4)


@given(seed=st.integers(0, 2**40), scope=scopes)
def test_a_seed_fits_in_63_bits_and_is_the_same_each_time(seed: int, scope: list[str | int]) -> None:
    value = derived_seed(seed, *scope)
    assert 0 <= value < 2**63
    assert derived_seed(seed, *scope) == value


@given(seed=st.integers(0, 50), other=st.integers(0, 50), scope=scopes, other_scope=scopes)
def test_another_seed_or_scope_gives_another_value(
    seed: int, other: int, scope: list[str | int], other_scope: list[str | int]
) -> None:
    same = (seed, *scope) == (other, *other_scope)
    assert (derived_seed(seed, *scope) == derived_seed(other, *other_scope)) == same


def test_the_value_is_half_of_the_first_8_bytes_of_a_hash_so_no_process_differs() -> None:
    # printf '3/user/1' | sha256sum | cut -c1-16, halved
    assert derived_seed(3, "user", 1) == 1_090_595_945_235_058_280


def test_a_stream_is_at_its_start_whatever_was_drawn_before_and_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    first = torch.rand(4, generator=generator(0, "a"))
    torch.rand(9, generator=generator(0, "b"))
    assert torch.equal(torch.rand(4, generator=generator(0, "a")), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_threads_draw_at_once_from_the_global_generator_is_what_each_would_have_drawn_alone() -> None:
    def draw(scope: int) -> torch.Tensor:
        with seeded(0, scope):
            return torch.cat([torch.rand(1) for _ in range(2000)])

    alone = [draw(scope) for scope in range(4)]
    together: dict[int, torch.Tensor] = {}
    threads = [threading.Thread(target=lambda own=own: together.update({own: draw(own)})) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(together[scope], alone[scope]) for scope in range(4))


def test_whoever_holds_the_global_generator_may_seed_it_again_within() -> None:
    with DRAWING, seeded(0, "outer"), seeded(0, "inner"):
        assert torch.rand(1) == torch.rand(1, generator=generator(0, "inner"))
