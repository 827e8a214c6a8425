"""Running many sagas at a given concurrency, and what is counted and timed of them."""

from __future__ import annotations

import asyncio
import gc
import itertools
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


@dataclass(frozen=True)
class Sample:
    """One measurement: how long each saga took, and all of them together, in seconds."""

    latencies: Sequence[float]
    seconds: float

    @property
    def rate(self) -> float:
        """Sagas per second."""
        return len(self.latencies) / self.seconds

    def percentile_ms(self, percent: int) -> float:
        """How many milliseconds so many percent of the sagas took at the most."""
        ordered = sorted(self.latencies)
        return 1_000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def drive(run: Callable[[int], Awaitable[object]], concurrency: int, seconds: float) -> Sample:
    """Keep so many sagas in flight for so many seconds, and let the last ones end.

    Args:
        run: Runs the saga of this number to its end.
        concurrency: Sagas in flight.
        seconds: After that long nothing further begins; each of those in flight runs at least once.
    """
    numbers = itertools.count(1)
    latencies: list[float] = []
    gc.collect()
    begun_at = time.perf_counter()

    async def one_after_the_other() -> None:
        at = begun_at
        at = time.perf_counter()
        while True:
            await run(next(numbers))
            before, at = at, time.perf_counter()
            latencies.append(at - before)
            if at - begun_at >= seconds:
                return

    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(one_after_the_other())
    return Sample(latencies, time.perf_counter() - begun_at)


def line(storage: str, workload: str, concurrency: int, samples: Sequence[Sample]) -> dict[str, object]:
    """One line of figures: medians over the rounds; ``n`` counts the sagas of all rounds."""
    return {
        "storage": storage,
        "workload": workload,
        "concurrency": concurrency,
        "n": sum(len(sample.latencies) for sample in samples),
        "sagas_per_s": round(statistics.median(sample.rate for sample in samples), 1),
        "p50_ms": round(statistics.median(sample.percentile_ms(50) for sample in samples), 3),
        "p99_ms": round(statistics.median(sample.percentile_ms(99) for sample in samples), 3),
    }
