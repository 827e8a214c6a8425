"""A storage that is away for a while: sagas pause and go on, none fails for it, and a new start is refused at once."""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from saga import (
    PostgreSQLSagaStorage,
    RedisSagaStorage,
    Saga,
    SagaContext,
    SagaOrchestrator,
    SagaStatus,
    SagaStorage,
    SagaStorageUnavailableError,
    SQLiteSagaStorage,
)
from tests.servers import PostgresServer, RedisServer, Server

SAGAS = 40
AWAY_SECONDS = 2.0
ANSWER_SECONDS = 1.0
BACK_SECONDS = 30.0
"""The promise: after so long every saga goes on."""


class Stage(Saga):
    """Three steps with pauses, so that an outage meets some of them running and others being written."""

    def __init__(self, number: int) -> None:
        """Keep the number."""
        self.number = number

    async def build(self) -> None:
        """Add the steps."""
        for name in ("one", "two", "three"):
            await self.add_step(name, self._act, self._undo)

    async def _act(self, ctx: SagaContext) -> None:
        ctx.resource("ran").append((self.number, ctx.step_name))
        await asyncio.sleep(0.05 * (self.number % 7))

    async def _undo(self, _result: None, ctx: SagaContext) -> None:
        ctx.resource("ran").append((self.number, f"undo {ctx.step_name}"))


class Place(ABC):
    """A storage that can be made to go away."""

    @abstractmethod
    def storage(self) -> SagaStorage:
        """Return the storage."""

    @abstractmethod
    def go_away(self) -> None:
        """Answer no more."""

    @abstractmethod
    def come_back(self) -> None:
        """Answer again, with everything that was acknowledged."""


class KilledServer(Place):
    """A server that is killed and started again."""

    def __init__(self, server: Server) -> None:
        """Use this server."""
        self.server = server

    def storage(self) -> SagaStorage:
        """Return a storage on it."""
        if isinstance(self.server, PostgresServer):
            return PostgreSQLSagaStorage(self.server.url, answer_timeout=ANSWER_SECONDS)
        return RedisSagaStorage(self.server.url, answer_timeout=ANSWER_SECONDS)

    def go_away(self) -> None:
        """Kill it."""
        self.server.kill()

    def come_back(self) -> None:
        """Start it."""
        self.server.start()


class PausedServer(KilledServer):
    """A server that takes connections and answers nothing, as behind a network that drops packets."""

    def go_away(self) -> None:
        """Pause it."""
        self.server.pause()

    def come_back(self) -> None:
        """Let it go on."""
        self.server.go_on()


class HeldFile(Place):
    """An SQLite file whose write lock somebody holds for longer than anybody waits."""

    def __init__(self, path: Path) -> None:
        """Use this file."""
        self.path = path
        self.holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def storage(self) -> SagaStorage:
        """Return a storage on it."""
        return SQLiteSagaStorage(self.path, busy_timeout=0.2)

    def go_away(self) -> None:
        """Take the lock."""
        self.holder.execute("PRAGMA busy_timeout = 10000")
        self.holder.execute("BEGIN IMMEDIATE")

    def come_back(self) -> None:
        """Give it back."""
        self.holder.execute("ROLLBACK")


@pytest.fixture(params=["postgresql killed", "postgresql paused", "redis killed", "redis paused", "sqlite held"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A storage, and how it goes away."""
    kind, how = request.param.split()
    if kind == "sqlite":
        held = HeldFile(tmp_path / "sagas.db")
        yield held
        held.holder.close()
        return
    with PostgresServer() if kind == "postgresql" else RedisServer("redis") as server:
        yield KilledServer(server) if how == "killed" else PausedServer(server)


@pytest.mark.asyncio
async def test_sagas_pause_while_the_storage_is_away_and_go_on_when_it_is_back(place: Place) -> None:
    """Each step runs once, none is undone, and who starts a saga meanwhile is told so soon."""
    ran: list[tuple[int, str]] = []
    async with (
        place.storage() as storage,
        SagaOrchestrator(storage, resources={"ran": ran}, lease_ttl=15.0) as orchestrator,
    ):
        handles = [await orchestrator.start(Stage(number)) for number in range(SAGAS)]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(place.go_away)
        begun = monotonic()
        with pytest.raises(SagaStorageUnavailableError):
            await orchestrator.start(Stage(1_000))
        assert monotonic() - begun < 4 * ANSWER_SECONDS
        await asyncio.sleep(max(0.0, AWAY_SECONDS - (monotonic() - begun)))
        assert len(ran) < 3 * SAGAS, "the outage met sagas that ran"
        await asyncio.to_thread(place.come_back)
        back = monotonic()
        results = await asyncio.gather(*(handle.wait(BACK_SECONDS) for handle in handles))
        print(f"\nall went on within {monotonic() - back:.2f} s")  # noqa: T201
    assert {result.status for result in results} == {SagaStatus.COMPLETED}
    mine = sorted(call for call in ran if call[0] < SAGAS)
    assert mine == sorted((number, step) for number in range(SAGAS) for step in ("one", "two", "three"))
