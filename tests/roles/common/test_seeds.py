import torch
from hypothesis import given
from hypothesis import strategies as st

from roles.common.seeds import derived_seed, generator

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
