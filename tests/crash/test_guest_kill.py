"""A process that dies inside the transaction in which it started a saga leaves neither the saga nor its own row."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import asyncpg
import pytest

from saga import Saga, SagaContext, SagaNotFoundError, SagaOrchestrator, SagaStatus, open_storage

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 30.0

CHILD = """
import asyncio, sqlite3, sys
import asyncpg
from saga import SagaOrchestrator, open_storage
from tests.crash.test_guest_kill import Noted

async def main(kind, url, schema):
    options = {"schema": schema} if kind == "postgresql" else {}
    storage = open_storage(url, **options)
    async with storage, SagaOrchestrator(storage, sagas=[Noted], sweep_interval=0.2) as orchestrator:
        if kind == "postgresql":
            mine = await asyncpg.connect(url)
            transaction = mine.transaction()
            await transaction.start()
            await mine.execute(f"INSERT INTO {schema}_rows VALUES ('s')")
        else:
            mine = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
            mine.execute("BEGIN IMMEDIATE")
            mine.execute("INSERT INTO rows VALUES ('s')")
        await orchestrator.start(Noted(), saga_id="s", connection=mine)
        print("started", flush=True)
        sys.stdin.readline()
        if kind == "postgresql":
            await transaction.commit()
        else:
            mine.execute("COMMIT")
        print("committed", flush=True)
        sys.stdin.readline()

asyncio.run(main(*sys.argv[1:]))
"""


class Noted(Saga):
    """One step."""

    async def build(self) -> None:
        """Add it."""
        await self.add_step("only", self._only)

    async def _only(self, ctx: SagaContext) -> None:
        """Do nothing."""


class Place:
    """A storage, and a table of somebody else's beside its own."""

    def __init__(self, kind: str, url: str, schema: str) -> None:
        """Make the storage's tables, and the other one."""
        self.kind = kind
        self.url = url
        self.options = {"schema": schema} if kind == "postgresql" else {}
        self.schema = schema
        asyncio.run(self._make())
        self.ask("CREATE TABLE {rows} (id text)")

    def ask(self, sql: str) -> int:
        """Execute this; return how many rows it answers."""
        if self.kind == "postgresql":
            return len(asyncio.run(self._ask(sql.format(rows=f"{self.schema}_rows"))))
        database = sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None, timeout=SECONDS)
        try:
            return len(database.execute(sql.format(rows="rows")).fetchall())
        finally:
            database.close()

    async def _make(self) -> None:
        async with open_storage(self.url, **self.options):
            pass

    async def _ask(self, sql: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()

    def start(self) -> subprocess.Popen[str]:
        """Start a process and return when it has started the saga in its open transaction."""
        command = [sys.executable, "-c", CHILD, self.kind, self.url, self.schema]
        child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        return child

    async def ended(self) -> SagaStatus | None:
        """Let another process's orchestrator do what is to be done; return the saga's status then, None without one."""
        async with (
            open_storage(self.url, **self.options) as storage,
            SagaOrchestrator(storage, sagas=[Noted], lease_ttl=1.5, sweep_interval=0.2) as orchestrator,
        ):
            until = monotonic() + SECONDS
            while monotonic() < until:
                await orchestrator.recover()
                try:
                    record = await orchestrator.get("s")
                except SagaNotFoundError:
                    return None
                if record.status is SagaStatus.COMPLETED:
                    break
                await asyncio.sleep(0.05)
            return record.status


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A storage, empty."""
    if request.param == "sqlite":
        yield Place("sqlite", f"sqlite:///{tmp_path / 'sagas.db'}", "")
        return
    place = Place("postgresql", request.getfixturevalue("postgres_url"), request.getfixturevalue("schema"))
    yield place
    place.ask("DROP TABLE {rows}")


@pytest.mark.parametrize("moment", ["before its commit", "after its commit"])
def test_a_saga_started_in_a_transaction_shares_its_fate_when_the_process_is_killed(place: Place, moment: str) -> None:
    """Killed before the commit: neither exists. Killed after it: both do, and another process carries the saga on."""
    committed = moment == "after its commit"
    child = place.start()
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        if committed:
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "committed\n"
    finally:
        child.kill()
        child.wait(SECONDS)
        child.stdin.close()
        child.stdout.close()
    assert place.ask("SELECT id FROM {rows}") == int(committed)
    assert asyncio.run(place.ended()) == (SagaStatus.COMPLETED if committed else None)
