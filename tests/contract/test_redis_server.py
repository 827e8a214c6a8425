"""What is special to Redis: what the server must be, what its settings mean, prefixes, and how calls fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from time import time
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from saga import (
    RedisSagaStorage,
    SagaFilter,
    SagaStatus,
    SagaStorageError,
    SagaStorageUnavailableError,
    SagaValidationError,
)
from saga.storage._redis_server import Durability
from saga.storage.base import NewSaga
from saga.testing.contract_kit import (
    all_ids,
    append,
    at_rest,
    attention,
    claim,
    claim_due,
    create,
    request,
    row,
    stored,
)
from saga.types import AT_REST
from tests.servers import PASSWORD, RedisServer

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def client(redis_url: str) -> AsyncIterator[Any]:
    """A client past the library."""
    async with Redis.from_url(redis_url) as client:
        yield client


async def opened(url: str, **options: Any) -> Durability:
    """Open and close a storage, and return what it says of the server."""
    async with RedisSagaStorage(url, **options) as storage:
        return storage.durability


@pytest.mark.parametrize("prefix", ["", "a{b}", "a*", "a b", "a\nb", "é", "x" * 65, None, 3, b"x"])
async def test_a_prefix_that_is_no_plain_one_is_refused(prefix: Any) -> None:
    """By name, before anything is connected."""
    with pytest.raises(SagaValidationError, match="prefix"):
        RedisSagaStorage("redis://localhost", prefix=prefix)


@pytest.mark.parametrize(
    "url", ["", None, 3, "localhost:6379", "http://localhost", "redis", "postgresql://localhost/db"]
)
async def test_what_is_no_url_of_redis_is_refused(url: Any) -> None:
    """By name."""
    with pytest.raises(SagaValidationError, match="url"):
        RedisSagaStorage(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:{secret}@localhost:port/0",
        "redis://:{secret}@127.0.0.1:1/0",
        "redis://:{secret}@no-such-host.invalid:6379/0",
        "redis://:{secret}@127.0.0.1:{port}/0",
        "redis://u:{secret}@127.0.0.1:{port}/0",
        "redis://127.0.0.1:{port}/0",
        "redis://127.0.0.1:{port}/0?password={secret}",
    ],
)
async def test_a_server_that_cannot_be_used_is_a_named_error_without_the_password(redis_url: str, url: str) -> None:
    """Neither in the error, nor in what caused it, nor in the storage's own text."""
    port = redis_url.rpartition(":")[2].partition("/")[0]
    storage = RedisSagaStorage(url.replace("{secret}", "sesame-secret").replace("{port}", port), answer_timeout=2.0)
    with pytest.raises(SagaStorageError, match=r"Redis|URL") as caught:
        await storage.open()
    error: BaseException | None = caught.value
    while error is not None:
        assert "sesame-secret" not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__
    assert "sesame-secret" not in repr(storage)


@pytest.mark.parametrize(
    ("settings", "durability"),
    [
        ({"appendonly": "no"}, Durability.NONE),
        ({"appendfsync": "everysec"}, Durability.BEST_EFFORT),
        ({"appendfsync": "always"}, Durability.DURABLE_SINGLE_NODE),
    ],
)
async def test_the_servers_durability_is_reported_and_may_be_required(
    settings: dict[str, str], durability: Durability
) -> None:
    """As its AOF setting gives it."""
    with RedisServer("redis", **settings) as server:
        assert await opened(server.url) is durability
        if durability is Durability.DURABLE_SINGLE_NODE:
            assert await opened(server.url, require_durability=True) is durability
        else:
            with pytest.raises(SagaStorageError, match="appendfsync always"):
                await opened(server.url, require_durability=True)


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_server_that_may_evict_keys_is_refused(kind: Any) -> None:
    """It would drop sagas without a word."""
    with RedisServer(kind, maxmemory_policy="allkeys-lru") as server, pytest.raises(SagaStorageError, match="noevic"):
        await opened(server.url)


async def test_data_of_another_format_are_refused(redis_url: str, client: Any, prefix: str) -> None:
    """Nothing is changed."""
    await client.set(f"{{{prefix}}}:format", "2")
    with pytest.raises(SagaStorageError, match="format"):
        await opened(redis_url, prefix=prefix)
    assert await client.get(f"{{{prefix}}}:format") == b"2"


async def test_a_replica_is_refused() -> None:
    """It takes no writes."""
    with RedisServer("redis") as server:
        async with Redis.from_url(server.url) as replica:
            await replica.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(SagaStorageError, match="replica"):
            await opened(server.url)


async def test_two_prefixes_never_see_each_other(redis_url: str, prefix: str) -> None:
    """Also where one begins with the other."""
    async with (
        RedisSagaStorage(redis_url, prefix=prefix) as one,
        RedisSagaStorage(redis_url, prefix=f"{prefix}:saga") as other,
    ):
        await create(one, "s", first_row=at_rest())
        await create(one, "due")
        assert await all_ids(other) == []
        assert await claim_due(other, "t") == []
        assert (await other.statistics()).by_status == {}
        assert await other.prune(0.0, AT_REST, 10) == 0
        await create(other, "s")
        assert sorted(await all_ids(one)) == ["due", "s"]


async def test_scripts_that_the_server_forgot_are_sent_again(redis_url: str, client: Any, prefix: str) -> None:
    """In mid-run."""
    async with RedisSagaStorage(redis_url, prefix=prefix) as storage:
        await create(storage, "s", held=claim("t"))
        await client.script_flush()
        assert (await append(storage, "s", 1, claim("t"))).version == 2
        assert len((await stored(storage, "s")).entries) == 2


async def test_no_call_walks_through_all_keys(redis_url: str, client: Any, prefix: str) -> None:
    """Neither KEYS nor SCAN: the server counts none of them, and no script has one."""
    await client.config_resetstat()
    async with RedisSagaStorage(redis_url, prefix=prefix) as storage:
        await create(storage, "s", first_row=at_rest())
        await create(storage, "due")
        await claim_due(storage, "t")
        await storage.query(SagaFilter())
        await storage.statistics()
        await storage.prune(0.0, AT_REST, 10)
    counted = set(await client.info("commandstats"))
    assert "cmdstat_evalsha" in counted
    assert not {name for name in counted if "scan" in name or name == "cmdstat_keys"}
    scripts = [file.read_text() for file in files("saga.storage").joinpath("lua").iterdir()]
    assert len(scripts) > 5
    assert not [script for script in scripts if "'KEYS'" in script or "SCAN'" in script]


async def test_only_ended_sagas_that_need_nobody_go_by_themselves(redis_url: str, client: Any, prefix: str) -> None:
    """And no list, count or page shows what has gone."""
    async with RedisSagaStorage(redis_url, prefix=prefix, ended_ttl=0.3) as storage:
        await create(storage, "running", held=claim("t"))
        await create(storage, "ends", held=claim("t"))
        await append(storage, "ends", 1, claim("t"), new_row=at_rest())
        await create(storage, "failed", first_row=at_rest(SagaStatus.FAILED))
        await create(storage, "parked", first_row=row(due_in=None, attention=attention(blocking=True)))
        looked_at = row(SagaStatus.COMPLETED, due_in=None, attention=attention(blocking=False), release=True)
        await create(storage, "late", first_row=at_rest())
        await append(storage, "late", 1, None, new_row=looked_at)
        assert sorted(await all_ids(storage)) == ["ends", "failed", "late", "parked", "running"]
        await asyncio.sleep(0.5)
        assert sorted(await all_ids(storage)) == ["failed", "late", "parked", "running"]
        counts = (await storage.statistics()).by_status["order"]
        assert counts == {SagaStatus.EXECUTING: 2, SagaStatus.FAILED: 1, SagaStatus.COMPLETED: 1}
        assert await storage.load(["ends"]) == []
        left = {key async for key in client.scan_iter(f"{{{prefix}}}:*ends*")}
        assert left == set()


async def test_without_a_clock_the_server_tells_the_time(redis_url: str, prefix: str) -> None:
    """Stamps are the server's, and leases end by it."""
    async with RedisSagaStorage(redis_url, prefix=prefix) as storage:
        before = time()
        answer = await create(storage, "s", held=claim("mine", ttl=0.2))
        assert before - 1 <= answer.at <= time() + 1
        assert await claim_due(storage, "early") == []
        await asyncio.sleep(0.3)
        assert await claim_due(storage, "late") == ["s"]


async def test_a_server_without_memory_left_says_so_and_half_writes_nothing() -> None:
    """It is unavailable, not broken: with memory again the same write is taken."""
    with RedisServer("redis") as server:
        async with RedisSagaStorage(server.url) as storage, Redis.from_url(server.url) as client:
            await create(storage, "s", held=claim("t"))
            await client.config_set("maxmemory", "1")
            with pytest.raises(SagaStorageUnavailableError, match="maxmemory"):
                await append(storage, "s", 1, claim("t"), write="w")
            with pytest.raises(SagaStorageUnavailableError, match="maxmemory"):
                await create(storage, "new")
            await client.config_set("maxmemory", "0")
            assert (await stored(storage, "s")).record.version == 1
            assert await all_ids(storage) == ["s"]
            assert (await append(storage, "s", 1, claim("t"), write="w")).version == 2


async def test_keys_of_somebody_else_are_not_touched(redis_url: str, client: Any, prefix: str) -> None:
    """A saga's name that another program uses is refused, and its neighbours are written."""
    await client.set(f"{{{prefix}}}:saga:taken", "mine")
    async with RedisSagaStorage(redis_url, prefix=prefix) as storage:
        names = ("a", "taken", "z")
        answers = await asyncio.gather(*(create(storage, name) for name in names), return_exceptions=True)
        assert isinstance(answers[1], SagaStorageError)
        assert "prefix" in str(answers[1])
        assert sorted(await all_ids(storage)) == ["a", "z"]
        assert [len(saga.entries) for saga in await storage.load(["a", "z"])] == [1, 1]
        assert await client.get(f"{{{prefix}}}:saga:taken") == b"mine"


async def cancelled(storage: RedisSagaStorage, _client: Any) -> None:
    """Cancel reads in mid-air."""
    for place in range(30):
        task = asyncio.create_task(storage.load([f"s{place}"]))
        await asyncio.sleep(0.0002 * place)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def killed(_storage: RedisSagaStorage, client: Any) -> None:
    """Have the server close all connections."""
    await client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@pytest.mark.parametrize("harm", [cancelled, killed])
async def test_after_harm_to_its_connections_every_answer_is_the_one_to_its_question(
    redis_url: str, client: Any, prefix: str, harm: Callable[[RedisSagaStorage, Any], Awaitable[None]]
) -> None:
    """A connection whose answer nobody read is not used again."""
    async with RedisSagaStorage(redis_url, prefix=prefix, connections=2) as storage:
        for place in range(30):
            await create(storage, f"s{place}")
        await harm(storage, client)
        for place in range(30):
            assert (await stored(storage, f"s{place}")).record.saga_id == f"s{place}"
            assert (await request(storage, f"s{place}")).version == 2


async def test_a_connection_of_the_caller_is_refused(redis_url: str, prefix: str) -> None:
    """There are no transactions to write in."""
    async with RedisSagaStorage(redis_url, prefix=prefix) as storage, Redis.from_url(redis_url) as client:
        new = NewSaga(saga_id="s", saga_name="order", saga_version="1", row=row())
        with pytest.raises(SagaValidationError, match="connection"):
            await storage.create(new, (), claim=None, write_id="w", connection=client)


async def test_the_password_of_the_test_server_is_needed(redis_url: str) -> None:
    """Or the tests above would show nothing."""
    assert PASSWORD in redis_url
