import os
from pathlib import Path

import pytest
import torch

from roles.common.hardware import available_cpus, gpu_name, native_precision, processor_name


def test_a_process_may_use_one_cpu_or_more_but_none_that_the_machine_has_not() -> None:
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("multiplies", "precision"), [(True, "bf16"), (False, "fp32")])
def test_bf16_is_chosen_where_the_hardware_multiplies_it(
    multiplies: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: multiplies)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: multiplies)
    assert native_precision(gpu=False) == native_precision(gpu=True) == precision


def test_the_first_gpu_is_named_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_name() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")
    assert gpu_name() == "card 0"


def test_the_processor_is_named_as_the_system_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: "flags\t: a\nmodel name\t: Fast CPU @ 2 GHz\n")
    assert processor_name() == "Fast CPU @ 2 GHz"
    monkeypatch.setattr(Path, "read_text", lambda path: "")
    assert processor_name()


def test_there_is_at_least_one_cpu() -> None:
    assert available_cpus() >= 1
