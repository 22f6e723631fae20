"""The benchmark for a GPU plans, trains, times and compares as it says, as far as a CPU can show."""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from rich.console import Console

from sim.config.errors import ConfigError
from tests.bench import exchange, mps
from tests.bench.device import WAYS, Point, Result, Setting, experiment_of, measured, plan, table_of
from tests.bench.device_loops import Step, Work, itn_step, prepared, psi_step, rate, user_step
from tests.bench.device_networks import ResNet20, UNet
from tests.bench.device_processes import Limit, rate_while_all_train
from tests.bench.device_product import Clock
from tests.bench.processes import BenchFailed
from tests.roles.made_up_gpu import made_up_gpu

CPU = torch.device("cpu")
WORK = Work(CPU, "fp32", batch=8, images=8)
STEPS = [psi_step, lambda work: user_step(work, 2), lambda work: user_step(work, 2, 2), lambda work: itn_step(work, 2)]


@pytest.mark.parametrize("step_of", STEPS)
def test_a_loop_of_the_limit_trains(step_of: Any) -> None:
    torch.manual_seed(0)
    step: Step = step_of(WORK)
    losses = [step().item() for _ in range(24)]
    assert sum(losses[-8:]) < sum(losses[:8])


@pytest.mark.parametrize("step_of", STEPS)
def test_on_a_gpu_steps_of_the_limit_are_recorded_as_they_are_and_nobody_waits(step_of: Any) -> None:
    found: list[list[float]] = []
    for recorded in (False, True):
        with made_up_gpu() as gpu:
            torch.manual_seed(0)
            work = Work(torch.device("cuda"), "fp32", batch=4, images=4)
            step, losses = prepared(step_of(work), work.device, recorded=recorded), []
            for _ in range(3):
                gpu.watch()
                loss = step()
                gpu.look_away()
                losses.append(loss.item())
        found.append(losses)
    assert found[0] == found[1]
    assert len(set(found[0])) == 3


def test_the_networks_of_the_limit_are_of_the_papers_sizes() -> None:
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (ResNet20(), UNet(64))]
    assert [round(size / 1e6, 2) for size in sizes] == [0.27, 31.04]


def test_stacked_users_are_as_they_would_be_alone() -> None:
    torch.manual_seed(0)
    both, first = UNet(2, users=2), UNet(2)
    first.load_state_dict(
        {
            name: value[: len(own)] if own.dim() else value
            for (name, value), own in zip(both.state_dict().items(), first.state_dict().values(), strict=True)
        }
    )
    images = torch.rand(4, 3, 32, 32)
    # On some CPUs oneDNN convolves groups by another algorithm, whose sums differ in their last bit.
    torch.testing.assert_close(both(images)[:2], first(images[:2]), rtol=0, atol=1e-6)


def test_a_rate_is_of_all_steps_that_are_done_in_turn() -> None:
    done: list[int] = []
    steps = [lambda number=number: done.append(number) or torch.zeros(()) for number in range(3)]  # type: ignore[misc]
    ready = [prepared(step, CPU, recorded=True) for step in steps]
    done.clear()
    found = rate(ready, 0.05, CPU)
    assert done[:6] == [0, 1, 2, 0, 1, 2]
    assert found == pytest.approx(len(done) / 0.05, rel=0.5)


def test_the_default_covers_what_the_help_says() -> None:
    points = plan(WAYS, [16, 32, 64], [1, 4, 8], [True, False])
    found = {
        (point.way, shared): sorted({(point.width, point.users) for point in points if _is(point, way, shared)})
        for point in points
        for way, shared in [(point.way, point.shared)]
        if point.network == "h_theta"
    }
    ends = [(16, 1), (16, 8), (64, 1), (64, 8)]
    assert found == {
        ("graphs", True): [(width, users) for width in (16, 32, 64) for users in (1, 4, 8)],
        ("eager", True): [(16, 1), (64, 1)],
        ("streams", True): [(16, 8)],
        ("stacked", True): [(16, 8)],
        ("direct", True): ends,
        ("relay", True): [(16, 1)],
        ("graphs", False): [(16, 4), (16, 8), (64, 4), (64, 8)],
    }
    others = {(point.network, point.way, point.width) for point in points if point.network != "h_theta"}
    assert others == {(name, way, width) for name, width in (("psi", 16), ("itn", 32)) for way in ("graphs", "product")}
    assert len(points) == len(set(points))
    # Others have to wait for what the targets are about.
    first = [point.way for point in points if point.shared]
    assert first.index("graphs") < first.index("stacked") < first.index("direct") < first.index("relay")


def _is(point: Point, way: str, shared: bool) -> bool:
    return (point.network, point.way, point.shared) == ("h_theta", way, shared)


def test_users_on_a_gpu_have_a_worker_and_a_share_of_it_each() -> None:
    setting = Setting("cuda", "bf16", "digits", steps=10, batch=128)
    experiment = experiment_of(Point("h_theta", "direct", 16, 8, shared=True), setting)
    assert (experiment.runtime.workers, experiment.runtime.gpu_fraction) == (8, 0.12)
    assert experiment.user.upsampling == "transposed"
    assert experiment.user.training.total_steps(per_epoch=10) == 10


def test_processes_of_the_limit_start_together_and_one_that_fails_is_named() -> None:
    setting = Setting("cpu", "fp32", "digits", steps=2, batch=4)
    given = {"device": "cpu", "precision": "fp32", "batch": 4, "images": 4}
    with Limit(2, given) as limit:
        asked = {"way": "graphs", "network": "itn", "width": 1, "users": 2, "seconds": 0.01}
        found = limit.measure(asked, 2, timeout_s=120)
        assert len(found["rates"]) == 3 and min(found["rates"]) > 0
        with pytest.raises(BenchFailed, match="KeyError: 'nothing'"):
            limit.measure(asked | {"network": "nothing"}, 2, timeout_s=60)
        assert measured(Point("itn", "graphs", 1), setting, limit, Path(), 60).rate > 0
        with pytest.raises(BenchFailed, match="did not answer in time"):
            limit.measure(asked | {"seconds": 60}, 1, timeout_s=0.5)


def test_the_rate_of_users_is_that_of_the_time_in_which_all_train(tmp_path: Path) -> None:
    # The second begins a second later and is twice as fast: 10 and 20 steps in the second that both train.
    stamps = [(0, 0, 100.0), (0, 10, 101.0), (1, 0, 101.0), (1, 20, 102.0), (1, 40, 103.0), (0, 20, 102.0)]
    lines = [json.dumps({"user": user, "done": done, "time": time}) for user, done, time in stamps]
    (tmp_path / "stamps.jsonl").write_text("\n".join(lines))
    assert rate_while_all_train(tmp_path, 2) == pytest.approx(30)
    with pytest.raises(BenchFailed, match="2 of 3 users have trained"):
        rate_while_all_train(tmp_path, 3)
    (tmp_path / "stamps.jsonl").write_text("\n".join(lines[:2] + lines[3:5]))
    with pytest.raises(BenchFailed, match="not train at the same time"):
        rate_while_all_train(tmp_path, 2)


def test_a_clock_times_steps_within_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 12.0, 20.0, 24.0])
    monkeypatch.setattr("tests.bench.device_product.time.perf_counter", lambda: next(now))
    clock = Clock(CPU, per_epoch=10, first=1)
    for done in range(1, 21):
        clock(done, 20, 0.0)
    assert clock.rates == [8 / 2, 8 / 4]


def test_the_table_compares_with_graphs_at_the_same_point() -> None:
    results = [
        Result(Point("h_theta", "graphs", 16, 8, shared=True), [360.0, 400.0, 380.0], 900.0),
        Result(Point("h_theta", "direct", 16, 8, shared=True), [361.0]),
        Result(Point("h_theta", "graphs", 16, 8), [190.0]),
        Result(Point("h_theta", "relay", 16), error="no time was left"),
    ]
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table_of(results))
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in capture.get().splitlines() if "h_theta" in line
    ]
    assert rows == [
        ["h_theta", "16", "8", "on", "graphs", "380.0", "360.0-400.0", "1.00", "900"],
        ["h_theta", "16", "8", "on", "direct", "361.0", "-", "0.95", "-"],
        ["h_theta", "16", "8", "off", "graphs", "190.0", "-", "1.00", "-"],
        ["h_theta", "16", "1", "off", "relay", "-", "-", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"device": exchange.DeviceName.CUDA}, "--device cuda: PyTorch sees no GPU here"),
        ({"widths": "4,x"}, "--widths '4,x': must be numbers from 1, with commas"),
        ({"widths": "4", "users": "0"}, "--users '0': must be numbers from 1, with commas"),
        ({"widths": "4", "ways": "graphs,naive"}, "'naive': must be one of graphs, eager, streams, stacked, psi, itn"),
        ({"widths": "4", "mps": True}, "--mps: there is no nvidia-cuda-mps-control here, or no GPU"),
        ({"widths": "4", "data": "/nowhere/x"}, "data.name '/nowhere/x': no such folder"),
    ],
)
def test_a_wrong_option_is_named(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=re.escape(expected)):
        exchange.bench(**options)


@pytest.mark.parametrize("works", [True, False])
def test_nothing_is_left_of_a_service_and_one_that_gives_no_gpu_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    control = tmp_path / "nvidia-cuda-mps-control"
    # As the real one: a daemon with -d; otherwise it takes orders, and this one obeys none.
    control.write_text('#!/bin/sh\nif [ "$1" = -d ]; then $0 --daemon & exit; fi\nwhile :; do sleep 0.1; done\n')
    control.chmod(control.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/own")
    monkeypatch.setattr(mps, "_STOP_S", 1)
    monkeypatch.setattr(mps, "_TRY", f"raise SystemExit({not works})")
    with mps.service(on=True) as runs:
        assert runs == works
        assert Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"]).is_dir()
        assert bool(running(control)) == works
    assert not running(control)
    assert os.environ["CUDA_MPS_PIPE_DIRECTORY"] == "/own"


def running(program: Path) -> list[int]:
    processes = psutil.process_iter(["cmdline"])
    return [process.pid for process in processes if str(program) in (process.info["cmdline"] or [])]
