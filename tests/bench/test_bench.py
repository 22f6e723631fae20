"""The benchmarks run, and what they compare is the same work."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sim.config.errors import ConfigError
from tests.bench import exchange, users


def veilsim(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sim.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_what_the_exchange_is_compared_with_trains_the_same_thetas(tmp_path: Path) -> None:
    out = tmp_path / "exchange.json"
    # Direct would take another start of Flower and Ray; that it equals the relay is for test_simulation.py to show.
    options = ["--points", "small", "--ways", "limit,relay,naive", "--repeats", "1", "--users", "2", "--steps", "2"]
    done = veilsim("bench", "exchange", *options, "--precision", "fp32", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    results = {way: found[0] for way, found in json.loads(out.read_text())["points"]["small"].items()}
    assert set(results) == {"limit", "relay", "naive"}
    assert len(results["limit"]["digests"]) == 2
    for way in ("relay", "naive"):
        assert results[way]["digests"] == results["limit"]["digests"]
    # Two steps of 32 images: x_hat there and its gradient back, and little else.
    for way in ("relay", "naive"):
        assert 2 * 32 * 3 * 32 * 32 * 4 < results[way]["bytes_per_step"] < 2.2 * 32 * 3 * 32 * 32 * 4
        assert results[way]["peak_mb"]["driver"] > 100
    assert all(result["steps_per_s"] > 0 and result["cpu_s_per_step"] > 0 for result in results.values())
    assert results["relay"]["request_p50_ms"] > 0


@pytest.mark.parametrize(
    ("bench", "options", "expected"),
    [
        (exchange.bench, {"points": "huge"}, "'huge': must be one of small, width16, wide"),
        (exchange.bench, {"ways": "limit,none"}, "'none': must be one of limit, direct, relay, naive, whole"),
        (users.bench, {"users": "5,abc"}, "--users '5,abc': must be numbers from 1 to --steps (20000), with commas"),
        (users.bench, {"users": "9", "steps": 5}, "--users '9': must be numbers from 1 to --steps (5), with commas"),
        (users.bench, {"data": "/nowhere/x"}, "data.name '/nowhere/x': no such folder"),
    ],
)
def test_a_wrong_option_is_named(bench: Callable[..., None], options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)):
        bench(**options)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothing"], "veilsim: bench nothing: must be one of exchange, users, deployment"),
        (["exchange", "--points", "huge"], "veilsim: bench exchange: 'huge': must be one of small, width16, wide"),
    ],
)
def test_what_goes_wrong_is_one_line_and_exit_code_1(arguments: list[str], expected: str) -> None:
    done = veilsim("bench", *arguments)
    assert done.returncode == 1
    assert done.stderr.strip() == expected
