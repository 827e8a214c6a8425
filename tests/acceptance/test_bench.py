"""`make bench` prints what its module promises; the figures themselves are no test's business."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MEASUREMENT = {"storage", "workload", "concurrency", "n", "sagas_per_s", "p50_ms", "p99_ms"}
CHECK = {"check", "value", "required", "ok"}


@pytest.fixture(scope="module")
def printed() -> list[dict[str, Any]]:
    """What a short run over memory prints."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--storage", "memory"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return [json.loads(text) for text in run.stdout.splitlines()]


def test_the_first_line_says_where_it_was_measured(printed: list[dict[str, Any]]) -> None:
    """Figures of another disk, interpreter or SQLite are other figures."""
    assert printed[0].keys() == {"disk", "directory", "cpus", "python", "sqlite"}


def test_every_workload_gives_one_measurement_line(printed: list[dict[str, Any]]) -> None:
    """Each with the keys that readers count on, and figures that can be true."""
    lines = [line for line in printed if "storage" in line]
    measured = {(line["workload"], line["concurrency"]) for line in lines if line["storage"] == "memory"}
    assert measured >= {("W1", 1), ("W1", 64), ("W1", 512), ("W2", 1), ("W2", 64), ("W3", 1), ("W3", 64)}
    for line in lines:
        assert line.keys() == MEASUREMENT
        assert line["n"] >= line["concurrency"]
        assert line["sagas_per_s"] > 0
        assert 0 < line["p50_ms"] <= line["p99_ms"]


def test_every_target_is_held_against_a_figure(printed: list[dict[str, Any]]) -> None:
    """Also those that are missed: the run says so and still ends well, unless it was told to check."""
    checks = [line for line in printed if "check" in line]
    assert {line["check"].split(":")[0] for line in checks} >= {
        "memory W1 at 64",
        "memory S3 at 1",
        "observers, metrics",
        "observers, logger, its own lines",
        "observers, tracer, for each of its spans",
        "import saga",
        "each of 500 sagas sleeping in a retry",
    }
    for line in checks:
        assert line.keys() == CHECK
        assert math.isfinite(line["value"])
        assert line["ok"] is True or line["required"] is not None


def test_a_dag_never_beats_its_critical_path(printed: list[dict[str, Any]]) -> None:
    """If it did, its steps would not have waited for each other."""
    above = {line["check"]: line["value"] for line in printed if "critical path" in line.get("check", "")}
    assert above
    assert all(value >= 0 for value in above.values()), above
