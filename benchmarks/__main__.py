"""Measures sagas per second beside what hand-written code reaches in the same run, and holds the figures to targets.

    python -m benchmarks [--quick] [--check] [--storage memory] [--storage sqlite] ...

Prints JSON lines. The first says where it was measured. Then comes one line per measurement: ``storage`` (or the
floor), ``workload``, ``concurrency`` (sagas in flight), ``n`` (sagas measured), ``sagas_per_s``, ``p50_ms`` and
``p99_ms`` (what a caller of ``execute`` waits for one saga, building it included). Everything is measured in rounds,
all runners of one workload right after each other and each time in another order, since a machine's speed
drifts; figures are medians over the rounds. Last come the checks: ``check``, ``value``, ``required`` (null: only
reported), ``ok``.

Workloads: W1 is a linear saga of 5 steps with compensations that do nothing, W2 the same failing at step 5 and
undoing 4, W3 a DAG of layers of 1, 4 and 1 such steps; S3 (1, 4, 1) and S4 (1, 4, 4, 1) are DAGs whose steps sleep
for 10 ms. SQLite commits with ``synchronous=FULL`` to a file below ``build/`` in the current directory; PostgreSQL
commits as it comes and Redis writes its AOF with ``always``, both below the directory for temporary files. The floors
are in ``floors.py`` and ``server_floors.py``; their ratio to the library is the median of the ratios within each round.
``import saga`` is timed in 5 fresh processes after one that warms the disk's cache. A sleeping saga's size is the
growth of resident memory. Orphans are sagas whose process died in their first step: another one adopts and ends them.
Observers are given the facts of one W1 again and again; what they cost is held against a bare structlog record and a
bare SDK span of the same run.

Exit status: 0; with ``--check`` 1 if a requirement is not met. ``--quick`` only shows that everything runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import checks
from benchmarks.measure import line
from benchmarks.observing import of_observers
from benchmarks.orphans import adopt
from benchmarks.runners import FLOORS, STORAGES, disk_of, measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CASES: tuple[tuple[str, int, Sequence[str]], ...] = (
    ("W1", 1, FLOORS),
    ("W1", 64, FLOORS),
    ("W1", 512, ()),
    ("W2", 1, FLOORS),
    ("W2", 64, FLOORS),
    ("W3", 1, ()),
    ("W3", 64, ()),
    ("S3", 1, ("floor_asyncio",)),
    ("S4", 1, ("floor_asyncio",)),
)
"""Workload, concurrency, and the floors that are measured beside the library."""


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        rounds: How often each runner is measured.
        seconds: How long each time.
        sleepers: Sagas that sleep at once.
        orphans: Sagas of a dead process that another one adopts.
        observed: Sagas whose facts are handed to each observer, in each round.
    """

    rounds: int
    seconds: float
    sleepers: int
    orphans: int
    observed: int


FULL = Plan(rounds=5, seconds=0.7, sleepers=10_000, orphans=10_000, observed=1_000)
QUICK = Plan(rounds=1, seconds=0.05, sleepers=500, orphans=100, observed=50)


def lines(plan: Plan, storages: Sequence[str], directory: Path) -> Iterator[dict[str, Any]]:
    """Measure, and yield what is to be printed."""
    yield {
        "disk": disk_of(directory),
        "directory": str(directory.parent),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    samples: checks.Samples = {}
    for workload, concurrency, floors in CASES:
        runners = [*storages, *(floor for floor in floors if floor.partition("_")[0] in (*storages, "floor"))]
        for number in range(plan.rounds):
            start = number % len(runners)
            for runner in runners[start:] + runners[:start]:
                sample = asyncio.run(measure(runner, workload, concurrency, seconds=plan.seconds, directory=directory))
                samples.setdefault((runner, workload, concurrency), []).append(sample)
        for runner in runners:
            yield line(runner, workload, concurrency, samples[runner, workload, concurrency])
    yield from checks.of_samples(samples)
    for storage in storages:
        if storage != "memory":
            seconds = asyncio.run(adopt(storage, plan.orphans, directory))
            yield checks.check(f"{storage}: seconds until {plan.orphans} orphans have ended", seconds, "<= 60")
    yield from of_observers(plan.rounds, plan.observed)
    yield from checks.of_processes(plan.sleepers)


def main() -> int:
    """Print the figures and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures the library.")
    parser.add_argument("--quick", action="store_true", help="a short run, whose figures mean little")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a requirement is not met")
    parser.add_argument("--storage", action="append", choices=STORAGES, help="measure this storage only")
    options = parser.parse_args()
    build = Path("build").absolute()
    build.mkdir(exist_ok=True)
    printed: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=build) as directory:
        for figures in lines(QUICK if options.quick else FULL, options.storage or STORAGES, Path(directory)):
            print(json.dumps(figures), flush=True)
            printed.append(figures)
    met = checks.passed([figures for figures in printed if "check" in figures])
    return 0 if met or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
