"""Everything that can run the workloads: the library on each storage, and the hand-written floors."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.floors import BatchedFloor, Program, UnbatchedFloor, sleep_by_hand
from benchmarks.measure import Sample, drive
from benchmarks.server_floors import (
    PostgreSQLBatchedFloor,
    PostgreSQLUnbatchedFloor,
    RedisBatchedFloor,
    RedisUnbatchedFloor,
)
from benchmarks.workloads import WORKLOADS
from saga import (
    InMemorySagaStorage,
    PostgreSQLSagaStorage,
    RedisSagaStorage,
    SagaOrchestrator,
    SagaStatus,
    SagaStorage,
    SQLiteSagaStorage,
)
from tests.servers import postgres_url, redis_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from saga import Saga

STORAGES = ("memory", "sqlite", "postgresql", "redis")
FILE_FLOORS = {"sqlite_unbatched": UnbatchedFloor, "sqlite_batched": BatchedFloor}
SERVER_FLOORS = {
    "postgresql_unbatched": PostgreSQLUnbatchedFloor,
    "postgresql_batched": PostgreSQLBatchedFloor,
    "redis_unbatched": RedisUnbatchedFloor,
    "redis_batched": RedisBatchedFloor,
}
FLOORS = (*FILE_FLOORS, *SERVER_FLOORS)
WARMING = 1_000_000_000
"""From here on sagas are numbered that run before the measurement."""
WARMING_AT_ONCE = 16


def storage_of(name: str, directory: Path) -> SagaStorage:
    """Return a new, empty storage; SQLite's default is ``synchronous=FULL``."""
    fresh = os.urandom(8).hex()
    if name == "memory":
        return InMemorySagaStorage()
    if name == "postgresql":
        return PostgreSQLSagaStorage(postgres_url(), schema=f"bench_{fresh}")
    if name == "redis":
        return RedisSagaStorage(redis_url(), prefix=f"bench-{fresh}")
    return SQLiteSagaStorage(_fresh_file(directory))


def floor_of(name: str, directory: Path) -> Program:
    """Return a floor on a storage of its kind with nothing in it."""
    if name in FILE_FLOORS:
        return FILE_FLOORS[name](_fresh_file(directory))
    return SERVER_FLOORS[name](postgres_url() if name.startswith("postgresql") else redis_url())


@asynccontextmanager
async def library(name: str, directory: Path) -> AsyncIterator[SagaOrchestrator]:
    """Run the library on a new storage of this name."""
    async with storage_of(name, directory) as storage, SagaOrchestrator(storage) as orchestrator:
        # The look for abandoned sagas, with which every orchestrator begins, is no part of a saga.
        await orchestrator.recover()
        yield orchestrator


async def measure(runner: str, workload: str, concurrency: int, *, seconds: float, directory: Path) -> Sample:
    """Measure one runner once, on a new storage."""
    if runner in FLOORS:
        async with floor_of(runner, directory) as floor:
            return await _warm(lambda number: floor.run(number, fails=workload == "W2"), concurrency, seconds)
    if runner == "floor_asyncio":
        return await drive(lambda _: sleep_by_hand(workload), concurrency, seconds)
    async with library(runner, directory) as orchestrator:
        return await _warm(_to_the_end(orchestrator, workload), concurrency, seconds)


async def _warm(run: Callable[[int], Awaitable[None]], concurrency: int, seconds: float) -> Sample:
    """Measure after each connection has prepared its statements, which a process does once."""
    await drive(lambda number: run(number + WARMING), max(concurrency, WARMING_AT_ONCE), 0.0)
    return await drive(run, concurrency, seconds)


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
