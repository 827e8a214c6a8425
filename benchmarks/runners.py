"""Everything that can run the workloads: the library on each storage, and the hand-written floors."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.floors import BatchedFloor, UnbatchedFloor, sleep_by_hand
from benchmarks.measure import Sample, drive
from benchmarks.workloads import WORKLOADS
from saga import InMemorySagaStorage, SagaOrchestrator, SagaStatus, SagaStorage, SQLiteSagaStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from saga import Saga

STORAGES = ("memory", "sqlite")
FILE_FLOORS = {"floor_unbatched": UnbatchedFloor, "floor_batched": BatchedFloor}


def storage_of(name: str, directory: Path) -> SagaStorage:
    """Return a new, empty storage; SQLite's default is ``synchronous=FULL``."""
    return InMemorySagaStorage() if name == "memory" else SQLiteSagaStorage(_fresh_file(directory))


@asynccontextmanager
async def library(name: str, directory: Path) -> AsyncIterator[SagaOrchestrator]:
    """Run the library on a new storage of this name."""
    async with storage_of(name, directory) as storage, SagaOrchestrator(storage) as orchestrator:
        # The look for abandoned sagas, with which every orchestrator begins, is no part of a saga.
        await orchestrator.recover()
        yield orchestrator


async def measure(runner: str, workload: str, concurrency: int, *, seconds: float, directory: Path) -> Sample:
    """Measure one runner once, on a new storage."""
    if runner in FILE_FLOORS:
        async with FILE_FLOORS[runner](_fresh_file(directory)) as floor:
            return await drive(lambda number: floor.run(number, fails=workload == "W2"), concurrency, seconds)
    if runner == "floor_asyncio":
        return await drive(lambda _: sleep_by_hand(workload), concurrency, seconds)
    async with library(runner, directory) as orchestrator:
        return await drive(_to_the_end(orchestrator, workload), concurrency, seconds)


def _to_the_end(orchestrator: SagaOrchestrator, workload: str) -> Callable[[int], Awaitable[None]]:
    make: Callable[[int], Saga] = WORKLOADS[workload]
    end = SagaStatus.ROLLED_BACK if workload == "W2" else SagaStatus.COMPLETED

    async def run(number: int) -> None:
        result = await orchestrator.execute(make(number))
        if result.status is not end:
            message = f"{workload} ended {result.status}: what was measured is not what was meant"
            raise RuntimeError(message)

    return run


def disk_of(directory: Path) -> str:
    """Return what the directory lies on, as ``type device``; a file system in memory makes no write durable.

    Raises:
        SystemExit: If it is a file system in memory.
    """
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "unknown"
    found = max(
        (fields for fields in map(str.split, mounts.read_text(encoding="utf-8").splitlines())
         if directory.is_relative_to(fields[1])),
        key=lambda fields: len(fields[1]),
    )  # fmt: skip
    if found[2] in ("tmpfs", "ramfs"):
        message = f"{directory} is in memory ({found[2]}): run from a directory on a disk"
        raise SystemExit(message)
    return f"{found[2]} {found[0]}"


def _fresh_file(directory: Path) -> Path:
    return directory / f"{os.urandom(8).hex()}.db"
