import pytest

from sim.config.sections import RuntimeConfig


def test_workers_are_one_for_every_threads_cpus_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.config.sections.available_cpus", lambda: 7)
    assert RuntimeConfig(threads=2).worker_count == 3
    assert RuntimeConfig(threads=8).worker_count == 1
    assert RuntimeConfig(threads=2, workers=5).worker_count == 5
