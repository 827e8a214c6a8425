"""What somebody would write by hand, without the library, for the same sagas on the same kind of file.

Both floors keep a row a saga and a journal, write before each step what came out of the last one, and wait until that
is durable (WAL, ``synchronous=FULL``), in one writer thread as an asyncio program does it. They take no claims,
check no versions, retry nothing and recover nothing.

- ``floor_unbatched`` commits each write by itself.
- ``floor_batched`` puts what many sagas write while a commit is under way into the next commit.
- ``floor_asyncio`` sleeps S3's and S4's sleeps with nothing but asyncio, whose timers are late by themselves.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from benchmarks.workloads import SLEEP, SLEEPING_LAYERS, STEPS

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

SCHEMA = """
CREATE TABLE saga (
    saga_id TEXT PRIMARY KEY, name TEXT NOT NULL, status TEXT NOT NULL, version INTEGER NOT NULL,
    owner TEXT NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE journal (
    saga_id TEXT NOT NULL, version INTEGER NOT NULL, at REAL NOT NULL, facts TEXT NOT NULL,
    PRIMARY KEY (saga_id, version)
) WITHOUT ROWID;
"""
INSERT_ROW = "INSERT INTO saga VALUES (?1, 'order', ?2, 1, 'host:1', ?3, ?3)"
UPDATE_ROW = "UPDATE saga SET status = ?, version = ?, updated_at = ? WHERE saga_id = ?"
INSERT_ENTRY = "INSERT INTO journal VALUES (?, ?, ?, ?)"

Facts = Sequence[Mapping[str, object]]
Write = tuple[str, int, str, str]
"""Saga id, version after the write, status, facts as JSON."""


async def sleep_by_hand(workload: str) -> None:
    """Sleep layer after layer."""
    for width in SLEEPING_LAYERS[workload]:
        async with asyncio.TaskGroup() as layer:
            for _ in range(width):
                layer.create_task(asyncio.sleep(SLEEP))


class Program(ABC):
    """A program that runs W1 and W2 by hand."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Begin with nothing stored."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""

    async def run(self, number: int, *, fails: bool) -> None:
        """Run one saga: W1 (6 writes), or W2 (10) where its last step fails."""
        saga_id = f"order-{number}"
        arguments = {"order_id": saga_id, "amount": number, "fails": fails}
        await self._write(saga_id, 1, "executing", [{"created": arguments}, {"started": "step1"}])
        for step in range(1, STEPS):
            done = {"succeeded": f"step{step}", "attempt": 1, "result": None}
            await self._write(saga_id, step + 1, "executing", [done, {"started": f"step{step + 1}"}])
        if not fails:
            done = {"succeeded": f"step{STEPS}", "attempt": 1, "result": None}
            await self._write(saga_id, STEPS + 1, "completed", [done, {"completed": True}])
            return
        failed = [{"failed": f"step{STEPS}", "error": "DeclinedError"}, {"undoing": f"step{STEPS - 1}"}]
        await self._write(saga_id, STEPS + 1, "compensating", failed)
        for step in range(STEPS - 1, 0, -1):
            after = {"undoing": f"step{step - 1}"} if step > 1 else {"rolled_back": True}
            status = "compensating" if step > 1 else "rolled_back"
            await self._write(saga_id, 2 * STEPS + 1 - step, status, [{"undone": f"step{step}"}, after])

    @abstractmethod
    async def _write(self, saga_id: str, version: int, status: str, facts: Facts) -> None:
        """Return when the write is durable."""


class FileFloor(Program):
    """A program with its SQLite file open."""

    def __init__(self, path: Path) -> None:
        """Take the file that ``async with`` creates."""
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._database: sqlite3.Connection

    async def __aenter__(self) -> Self:
        """Create the file in the writer thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()

    def _open(self) -> None:
        self._database = sqlite3.connect(self._path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL").close()
        self._database.execute("PRAGMA synchronous = FULL").close()
        self._database.executescript(SCHEMA).close()


class UnbatchedFloor(FileFloor):
    """One durable commit per write."""

    async def _write(self, saga_id: str, version: int, status: str, facts: Facts) -> None:
        write = (saga_id, version, status, json.dumps(facts))
        await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, write)

    def _commit(self, write: Write) -> None:
        saga_id, version, status, facts = write
        execute, at = self._database.execute, time.time()
        execute("BEGIN IMMEDIATE")
        if version == 1:
            execute(INSERT_ROW, (saga_id, status, at))
        else:
            execute(UPDATE_ROW, (status, version, at, saga_id))
        execute(INSERT_ENTRY, (saga_id, version, at, facts))
        execute("COMMIT")


class BatchedFloor(FileFloor):
    """One durable commit for all writes that came while the commit before was under way."""

    def __init__(self, path: Path) -> None:
        """Take the file that ``async with`` creates."""
        super().__init__(path)
        self._waiting: list[tuple[Write, asyncio.Future[None]]] = []
        self._flusher: asyncio.Task[None] | None = None

    async def _write(self, saga_id: str, version: int, status: str, facts: Facts) -> None:
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(((saga_id, version, status, json.dumps(facts)), durable))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        await durable

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await loop.run_in_executor(self._thread, self._commit, [write for write, _ in batch])
            for _, durable in batch:
                durable.set_result(None)
        self._flusher = None

    def _commit(self, writes: list[Write]) -> None:
        # One statement a batch over json_each, which the library uses, was slower here: nothing else wants the
        # interpreter's lock while all sagas wait for this commit.
        database, at = self._database, time.time()
        database.execute("BEGIN IMMEDIATE")
        database.executemany(INSERT_ROW, [(w[0], w[2], at) for w in writes if w[1] == 1])
        database.executemany(UPDATE_ROW, [(w[2], w[1], at, w[0]) for w in writes if w[1] > 1])
        database.executemany(INSERT_ENTRY, [(w[0], w[1], at, w[3]) for w in writes])
        database.execute("COMMIT")
