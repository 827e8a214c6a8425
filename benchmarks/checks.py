"""What the figures are held against. A requirement of None is reported only."""

from __future__ import annotations

import operator
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.workloads import SLEEP, SLEEPING_LAYERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.measure import Sample

Samples = dict[tuple[str, str, int], list["Sample"]]
"""The samples of all rounds by runner, workload and concurrency."""

RATIOS = (
    ("sqlite", "W1", 64, "batched", ">= 0.35"),
    ("sqlite", "W1", 64, "unbatched", ">= 2.5"),
    ("sqlite", "W1", 1, "unbatched", ">= 0.55"),
    ("postgresql", "W1", 64, "batched", ">= 0.45"),
    ("postgresql", "W1", 64, "unbatched", ">= 2.8"),
    ("postgresql", "W1", 1, "unbatched", ">= 0.65"),
    ("redis", "W1", 64, "batched", None),
    ("redis", "W1", 64, "unbatched", ">= 1.5"),
    ("redis", "W1", 1, "unbatched", None),
    *(
        (storage, "W2", concurrency, floor, None)
        for storage in ("sqlite", "postgresql", "redis")
        for concurrency, floor in ((64, "batched"), (64, "unbatched"), (1, "unbatched"))
    ),
)
COMPARISONS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}
IMPORTS = 5
IMPORT_CODE = "import time; at = time.perf_counter(); import saga; print(time.perf_counter() - at)"


def check(name: str, value: float, required: str | None) -> dict[str, Any]:
    """Return one summary line."""
    comparison, _, limit = (required or "").partition(" ")
    ok = required is None or COMPARISONS[comparison](value, float(limit))
    return {"check": name, "value": round(value, 3), "required": required, "ok": ok}


def of_samples(samples: Samples) -> Iterator[dict[str, Any]]:
    """Yield the checks of whatever was measured."""
    if memory := samples.get(("memory", "W1", 64)):
        rate = statistics.median(sample.rate for sample in memory)
        yield check("memory W1 at 64: sagas/s", rate, ">= 6000")
    for storage, workload, concurrency, floor, required in RATIOS:
        runners = (storage, f"{storage}_{floor}")
        ours, theirs = (samples.get((runner, workload, concurrency)) for runner in runners)
        if ours and theirs:
            # Both of a pair were measured right after each other; the machine may be another one a minute later.
            ratio = statistics.median(a.rate / b.rate for a, b in zip(ours, theirs, strict=True))
            yield check(f"{storage} {workload} at {concurrency}: times {floor}", ratio, required)
    for workload, layers in SLEEPING_LAYERS.items():
        for storage, required in (
            ("memory", "<= 3"),
            ("sqlite", None),
            ("postgresql", None),
            ("redis", None),
            ("floor_asyncio", None),
        ):
            if measured := samples.get((storage, workload, 1)):
                path = 1_000 * SLEEP * len(layers)
                above = statistics.median(sample.percentile_ms(50) for sample in measured) - path
                yield check(f"{storage} {workload} at 1: ms above its critical path", above, required)


def of_processes(sleepers: int) -> Iterator[dict[str, Any]]:
    """Yield the checks that need fresh processes: the time of ``import saga``, the size of a sleeping saga."""
    _python("-c", IMPORT_CODE)
    seconds = [float(_python("-c", IMPORT_CODE)) for _ in range(IMPORTS)]
    yield check("import saga: ms", 1_000 * statistics.median(seconds), "< 250")
    size = float(_python("-m", "benchmarks.sleepers", str(sleepers)))
    yield check(f"each of {sleepers} sagas sleeping in a retry: bytes", size, "< 25000")


def passed(lines: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every requirement is met."""
    return all(line["ok"] for line in lines)


def _python(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True).stdout  # noqa: S603 - this interpreter
