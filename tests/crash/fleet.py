"""Fleets for tests: workers as real processes, sagas that wait for them, and the audit of what they did."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import msgspec

from saga import SagaFilter, SagaRecord, SagaStatus, SagaStorage
from saga.building import birth_of, definition_of, life_of
from saga.storage.base import NewSaga, Row
from saga.types import AT_REST
from tests.crash.fleet_app import Ledger, Plan, Transfer

ROOT = Path(__file__).resolve().parents[2]
PENDING = Row(status=SagaStatus.PENDING)
PATIENCE = 60.0


class Fleet:
    """Workers on one plan; all are killed at the end."""

    def __init__(self, plan: Plan) -> None:
        """Keep the plan."""
        self.plan = plan
        self.ledger = Ledger(plan.ledger)
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Begin without workers."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what is left."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait(PATIENCE)
            assert worker.stderr is not None
            worker.stderr.close()
        self.ledger.close()

    def start(self) -> subprocess.Popen[bytes]:
        """Start a worker and return when it is ready."""
        worker = subprocess.Popen(
            [sys.executable, "-m", "saga", "worker", "tests.crash.fleet_app:fleet"],
            cwd=ROOT,
            env={**os.environ, "FLEET": msgspec.json.encode(self.plan).decode()},
            stderr=subprocess.PIPE,
        )
        self.workers.append(worker)
        assert worker.stderr is not None
        line = worker.stderr.readline()
        assert b"ready" in line, line + worker.stderr.read()
        return worker

    def kill(self, worker: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
        """Send a worker a signal that ends it, and return when it has ended."""
        os.kill(worker.pid, number)
        worker.wait(PATIENCE)

    def until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> float:
        """Return how many seconds it took until this held."""
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() - begun < seconds, "it never held"
            time.sleep(0.01)
        return time.monotonic() - begun

    def called(self, step: str) -> int:
        """How many calls of a step the ledger has noted."""
        return int(self.ledger.ask("SELECT count(*) FROM calls WHERE step = ?", step)[0][0])

    def who_called_last(self, step: str) -> subprocess.Popen[bytes]:
        """The worker that made the latest call of a step."""
        [(process,)] = self.ledger.ask("SELECT process FROM calls WHERE step = ? ORDER BY rowid DESC LIMIT 1", step)
        [worker] = [worker for worker in self.workers if worker.pid == process]
        return worker

    def living(self) -> list[subprocess.Popen[bytes]]:
        """The workers that have not ended."""
        return [worker for worker in self.workers if worker.poll() is None]

    def put(self, sagas: Iterable[Transfer]) -> None:
        """Store sagas that nobody drives yet."""
        asyncio.run(self._put(list(sagas)))

    async def _put(self, sagas: list[Transfer]) -> None:
        async with self.plan.storage() as storage:
            for first in range(0, len(sagas), 500):
                await asyncio.gather(*(self._put_one(storage, saga) for saga in sagas[first : first + 500]))

    async def _put_one(self, storage: SagaStorage, saga: Transfer) -> None:
        definition = await definition_of(saga)
        created = birth_of(life_of(saga), definition, None)
        saga_id = f"t-{saga.number}"
        new = NewSaga(saga_id=saga_id, saga_name=definition.name, saga_version=definition.version, row=PENDING)
        await storage.create(new, (created,), claim=None, write_id=f"put-{saga_id}")

    def unfinished(self) -> int:
        """How many sagas are not at rest."""
        return sum(count for status, count in self.statuses().items() if status not in AT_REST)

    def statuses(self) -> Counter[SagaStatus]:
        """How many sagas there are of each status."""
        return asyncio.run(self._statuses())

    async def _statuses(self) -> Counter[SagaStatus]:
        counted: Counter[SagaStatus] = Counter()
        async with self.plan.storage() as storage:
            for by_status in (await storage.statistics()).by_status.values():
                counted.update(by_status)
        return counted

    def versions(self) -> dict[str, int]:
        """The version of each saga."""
        return {record.saga_id: record.version for record in asyncio.run(self._records())}

    def fences(self) -> dict[str, int]:
        """How often each saga was claimed."""
        return {record.saga_id: record.fence for record in asyncio.run(self._records())}

    async def _records(self) -> list[SagaRecord]:
        found: list[SagaRecord] = []
        cursor: str | None = None
        async with self.plan.storage() as storage:
            while True:
                page = await storage.query(SagaFilter(), cursor, 500)
                found.extend(page.items)
                cursor = page.cursor
                if cursor is None:
                    return found

    def audit(self, sagas: int, amount: int) -> None:
        """Check that each saga has ended, with every effect that its end calls for, each booked once, and no other."""
        refused = sum(number % 3 == 0 for number in range(1, sagas + 1))
        assert self.statuses() == {
            status: count
            for status, count in (
                (SagaStatus.COMPLETED, sagas - refused),
                (SagaStatus.ROLLED_BACK, refused),
            )
            if count
        }
        booked: dict[str, set[str]] = {}
        for saga_id, step in self.ledger.ask("SELECT saga, step FROM booked"):
            booked.setdefault(saga_id, set()).add(step)
        done = {"debit:action", "hold:action", "credit:action"}
        undone = {"debit:action", "hold:action", "hold:compensation", "debit:compensation"}
        for number in range(1, sagas + 1):
            assert booked.get(f"t-{number}") == (undone if number % 3 == 0 else done), number
        balances = dict(self.ledger.ask("SELECT account, sum(amount) FROM booked GROUP BY account"))
        moved = amount * (sagas - refused)
        assert balances == {"giver": -moved, "hold": 0, "taker": moved}
