"""Prints how many bytes one saga takes that sleeps in a retry: ``python -m benchmarks.sleepers NUMBER``.

The growth of the resident memory of this process, from before the first of so many sagas started until all of them
sleep, storage in memory included, divided by their number. They sleep for less than a minute, so they stay claimed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

from benchmarks.workloads import Sleeper
from saga import SagaOrchestrator, SagaStatus

WARM_UP = 100
STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    gc.collect()
    return int(STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _sleepers(orchestrator: SagaOrchestrator, first: int, number: int) -> None:
    for order in range(first, first + number):
        await orchestrator.start(Sleeper(f"order-{order}"))
    while Sleeper.calls < first + number:  # noqa: ASYNC110 - the last second of a measurement may be a coarse one
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.05)


async def bytes_per_sleeper(number: int) -> float:
    """Return the bytes that each of so many sleeping sagas takes."""
    async with SagaOrchestrator(drain_timeout=0.0) as orchestrator:
        await _sleepers(orchestrator, 0, WARM_UP)
        before = resident_bytes()
        await _sleepers(orchestrator, WARM_UP, number)
        grown = resident_bytes() - before
        counts = (await orchestrator.statistics()).by_status[Sleeper.saga_name]
        if counts != {SagaStatus.EXECUTING: WARM_UP + number}:
            message = f"not all of them sleep: {counts}"
            raise RuntimeError(message)
        return grown / number


if __name__ == "__main__":
    print(round(asyncio.run(bytes_per_sleeper(int(sys.argv[1])))))
