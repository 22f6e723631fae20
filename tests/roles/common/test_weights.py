import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from roles.common.weights import State, cpu_state, digest, load, load_into, save

STATE: State = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7), "c": torch.tensor([True, False])}


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), max_size=4),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.uint8]),
    note=st.text(max_size=20),
)
def test_what_is_saved_is_loaded(
    shape: list[int], dtype: torch.dtype, note: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("weights") / "deep" / "down.safetensors"
    value = torch.randint(100, tuple(shape)).to(dtype)
    save(path, {"x": value}, {"note": note})
    state, metadata = load(path)
    assert metadata == {"note": note}
    assert torch.equal(state["x"], value)
    assert state["x"].dtype == dtype


def test_a_channels_last_network_is_saved_as_it_counts(tmp_path: Path) -> None:
    convolution = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    save(tmp_path / "w", convolution.state_dict())
    assert digest(load(tmp_path / "w")[0]) == digest(convolution.state_dict()) == digest(cpu_state(convolution))


def test_saving_leaves_the_new_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "theta.safetensors"
    save(path, {"x": torch.zeros(2)})
    save(path, {"x": torch.ones(2)})
    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(load(path)[0]["x"], torch.ones(2))


@pytest.mark.parametrize("fails", ["write", "replace"])
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "theta.safetensors"
    save(path, {"x": torch.zeros(2)})

    def half_a_file(tensors: State, partial: Path, metadata: dict[str, str]) -> None:
        partial.write_bytes(b"half")
        raise OSError("no space left on device")

    def no_replace(*_: object) -> None:
        raise OSError("no space left on device")

    if fails == "write":
        monkeypatch.setattr(safetensors.torch, "save_file", half_a_file)
    else:
        monkeypatch.setattr(os, "replace", no_replace)
    with pytest.raises(OSError, match="no space left"):
        save(path, {"x": torch.ones(2)})
    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(load(path)[0]["x"], torch.zeros(2))


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "truncated", "corrupt header", "pickle"])
def test_a_file_that_cannot_be_read_is_one_line_that_names_it(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "psi.safetensors"
    if damage == "folder":
        path.mkdir()
    elif damage == "pickle":
        torch.save({"x": torch.zeros(2)}, path)
    elif damage != "missing":
        save(path, STATE)
        content = path.read_bytes()
        damaged = {"empty": b"", "truncated": content[:-5], "corrupt header": content[:8] + b"\xff" + content[9:]}
        path.write_bytes(damaged[damage])
    reason = "no such weights file" if damage in ("missing", "folder") else "not a readable safetensors file"
    with pytest.raises(ValueError, match=reason) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight": torch.full((2, 2), torch.nan)}, "weight holds values that are not finite"),
        ({"bias": torch.tensor([0.0, torch.inf])}, "bias holds values that are not finite"),
        ({"weight": torch.ones(2, 2, dtype=torch.int8)}, "weight holds int8, expected floating-point numbers"),
        ({"weight": torch.zeros(2, 3)}, r"weight has shape \(2, 3\), expected \(2, 2\)"),
        ({"weight": None}, r"missing \['weight'\]"),
        ({"head.weight": torch.zeros(1)}, r"unexpected \['head.weight'\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_and_change_nothing(
    change: dict[str, torch.Tensor | None], reason: str
) -> None:
    layer = nn.Linear(2, 2)
    before = digest(layer.state_dict())
    state = {name: value for name, value in (cpu_state(layer) | change).items() if value is not None}
    with pytest.raises(ValueError, match=f"^theta.safetensors: .*{reason}") as caught:
        load_into(layer, state, "theta.safetensors")
    assert "\n" not in str(caught.value)
    assert digest(layer.state_dict()) == before


def test_weights_that_fit_are_copied() -> None:
    layer, other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    other(torch.rand(4, 3, 2, 2))
    state = cpu_state(other)
    load_into(layer, state, "x")
    assert digest(layer.state_dict()) == digest(state)
    layer(torch.rand(4, 3, 2, 2))
    assert digest(state) == digest(other.state_dict())


def test_the_digest_changes_with_a_bit_a_name_a_shape_or_a_dtype_and_not_with_the_order() -> None:
    reference = digest(STATE)
    assert digest(dict(reversed(STATE.items()))) == reference
    flipped = STATE["a"].clone()
    flipped.view(torch.int32)[1, 2] ^= 1
    renamed = {("z" if name == "a" else name): value for name, value in STATE.items()}
    others = [
        STATE | {"a": flipped},
        renamed,
        STATE | {"a": STATE["a"].view(3, 2)},
        STATE | {"a": STATE["a"].view(torch.int32)},
    ]
    assert len({reference, *(digest(state) for state in others)}) == 5


def test_the_digest_is_of_values_not_of_memory_layout() -> None:
    value = torch.rand(2, 3, 4, 4)
    assert digest({"x": value}) == digest({"x": value.contiguous(memory_format=torch.channels_last)})


def test_a_state_on_the_cpu_is_a_copy() -> None:
    layer = nn.Linear(1, 1)
    state = cpu_state(layer)
    with torch.no_grad():
        layer.weight += 1
    assert state["weight"].item() != layer.weight.item()
    assert not state["weight"].requires_grad


def test_tensors_that_share_memory_are_kept_as_well(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    state = {"whole": whole, "again": whole, "part": whole[2:4], "empty": whole[:0]}
    save(tmp_path / "shared.safetensors", state)
    loaded, _ = load(tmp_path / "shared.safetensors")
    assert {name: value.tolist() for name, value in loaded.items()} == {k: v.tolist() for k, v in state.items()}
