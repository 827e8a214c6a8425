"""What somebody would write by hand, without the library, for the same sagas on PostgreSQL and Redis.

As in ``floors.py``: a row a saga and a journal, each write durable before the next step, no claims, no checks of
versions, nothing retried, nothing recovered.

- ``postgresql_unbatched`` commits each write by itself: one prepared statement that writes row and journal, on as many
  connections as sagas write at once, at most 10 (what a pool of asyncpg has).
- ``postgresql_batched`` puts what many sagas write meanwhile into one statement with arrays, on two connections.
- ``redis_unbatched`` calls a script for each write, on a pool of connections.
- ``redis_batched`` calls a script for what many sagas write meanwhile, on one connection.
"""

from __future__ import annotations

import asyncio
import json
import time
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Self

import asyncpg
import msgspec
from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.floors import Facts, Program, Write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

SCHEMA = """
DROP SCHEMA IF EXISTS floor CASCADE;
CREATE SCHEMA floor;
CREATE TABLE floor.saga (
    saga_id text PRIMARY KEY, name text NOT NULL, status text NOT NULL, version integer NOT NULL,
    owner text NOT NULL, created_at double precision NOT NULL, updated_at double precision NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE floor.journal (
    saga_id text NOT NULL, version integer NOT NULL, at double precision NOT NULL, facts text NOT NULL,
    PRIMARY KEY (saga_id, version)
);
"""
INSERT = """
WITH row AS (INSERT INTO floor.saga VALUES ($1, 'order', $3, $2, 'host:1', $4, $4))
INSERT INTO floor.journal VALUES ($1, $2, $4, $5)
"""
UPDATE = """
WITH row AS (UPDATE floor.saga SET status = $3, version = $2, updated_at = $4 WHERE saga_id = $1)
INSERT INTO floor.journal VALUES ($1, $2, $4, $5)
"""
BATCH = """
WITH
new AS (
    SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::double precision[], $5::text[])
        AS new (saga_id, version, status, at, facts)
),
inserted AS (
    INSERT INTO floor.saga SELECT saga_id, 'order', status, version, 'host:1', at, at FROM new WHERE version = 1
),
updated AS (
    UPDATE floor.saga SET status = new.status, version = new.version, updated_at = new.at
    FROM new WHERE saga.saga_id = new.saga_id AND new.version > 1
)
INSERT INTO floor.journal SELECT saga_id, version, at, facts FROM new
"""
SCRIPT = """
for _, write in ipairs(cmsgpack.unpack(ARGV[1])) do
    local key = KEYS[1] .. write[1]
    redis.call('HSET', key, 'name', 'order', 'status', write[3], 'version', write[2], 'updated_at', write[4])
    redis.call('RPUSH', key .. ':journal', write[5])
end
return 1
"""
POSTGRESQL_CONNECTIONS = 10
REDIS_CONNECTIONS = 64

_PLANS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_hashjoin": "off", "jit": "off"}


class PostgreSQLUnbatchedFloor(Program):
    """One durable commit per write."""

    connections = POSTGRESQL_CONNECTIONS

    def __init__(self, url: str) -> None:
        """Take the server."""
        self._url = url

    async def __aenter__(self) -> Self:
        """Make the tables anew."""
        self._pool: Any = await asyncpg.create_pool(
            self._url, min_size=self.connections, max_size=self.connections, reset=_keep, server_settings=_PLANS
        )
        async with self._pool.acquire() as connection:
            await connection.execute(SCHEMA)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._pool.close()

    async def _write(self, saga_id: str, version: int, status: str, facts: Facts) -> None:
        sql = INSERT if version == 1 else UPDATE
        async with self._pool.acquire() as connection:
            await connection.execute(sql, saga_id, version, status, time.time(), json.dumps(facts))


class Batches:
    """Gathers writes while others are under way."""

    def __init__(self, lanes: int) -> None:
        """Say how many batches may be under way at once."""
        self._lanes = lanes
        self._waiting: list[tuple[Write, asyncio.Future[None]]] = []
        self._flushers: set[asyncio.Task[None]] = set()
        self._under_way = 0

    async def write(self, write: Write) -> None:
        """Return when the write is durable."""
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, durable))
        if self._under_way < self._lanes:
            self._under_way += 1
            flusher = asyncio.create_task(self._flush())
            self._flushers.add(flusher)
            flusher.add_done_callback(self._flushers.discard)
        await durable

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await self.commit([write for write, _ in batch])
            for _, durable in batch:
                durable.set_result(None)
        self._under_way -= 1

    async def commit(self, writes: Sequence[Write]) -> None:
        """Make these writes durable."""
        raise NotImplementedError


class PostgreSQLBatchedFloor(PostgreSQLUnbatchedFloor, Batches):
    """One durable commit for all writes that came while the commits before were under way."""

    connections = 2

    def __init__(self, url: str) -> None:
        """Take the server."""
        PostgreSQLUnbatchedFloor.__init__(self, url)
        Batches.__init__(self, lanes=2)

    async def _write(self, saga_id: str, version: int, status: str, facts: Facts) -> None:
        await self.write((saga_id, version, status, json.dumps(facts)))

    async def commit(self, writes: Sequence[Write]) -> None:
        """Send them as one statement."""
        at = time.time()
        ids, versions, statuses, facts = zip(*sorted(writes), strict=True)
        async with self._pool.acquire() as connection:
            await connection.execute(BATCH, ids, versions, statuses, [at] * len(ids), facts)


class RedisUnbatchedFloor(Program):
    """One call of a script per write."""

    connections = REDIS_CONNECTIONS

    def __init__(self, url: str) -> None:
        """Take the server."""
        self._url = url

    async def __aenter__(self) -> Self:
        """Empty the server, and load the script."""
        self._pool = BlockingConnectionPool.from_url(self._url, max_connections=self.connections)
        self._client: Any = Redis(connection_pool=self._pool)
        await self._client.flushdb()
        await self._client.script_load(SCRIPT)
        self._digest = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._client.aclose()
        await self._pool.aclose()

    async def _write(self, saga_id: str, version: int, status: str, facts: Facts) -> None:
        await self._send([(saga_id, version, status, json.dumps(facts))])

    async def _send(self, writes: Sequence[Write]) -> None:
        at = str(time.time())
        packed = msgspec.msgpack.encode([(write[0], write[1], write[2], at, write[3]) for write in writes])
        await self._client.evalsha(self._digest, 1, "{floor}:", packed)


class RedisBatchedFloor(RedisUnbatchedFloor, Batches):
    """One call of a script for all writes that came while the call before was under way."""

    connections = 2

    def __init__(self, url: str) -> None:
        """Take the server."""
        RedisUnbatchedFloor.__init__(self, url)
        Batches.__init__(self, lanes=1)

    async def _write(self, saga_id: str, version: int, status: str, facts: Facts) -> None:
        await self.write((saga_id, version, status, json.dumps(facts)))

    async def commit(self, writes: Sequence[Write]) -> None:
        """Send them as one call."""
        await self._send(writes)


async def _keep(_connection: object) -> None:
    """Reset nothing."""
