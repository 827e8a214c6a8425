"""A storage that lost what it had acknowledged: no saga goes on as if nothing had happened."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from saga import AttentionCode, Saga, SagaContext, SagaOrchestrator, SagaStateLostError, SagaStatus
from saga.storage.redis import RedisSagaStorage

pytestmark = pytest.mark.asyncio


class Journey(Saga):
    """Books, loses on purpose what was stored of it, and pays."""

    def __init__(self, name: str) -> None:
        """Keep the name."""
        self.name = name

    async def build(self) -> None:
        """Add the steps."""
        await self.add_step("book", self._book, self._undo)
        await self.add_step("wait", self._wait, self._undo, timeout=20.0)
        await self.add_step("pay", self._pay, self._undo)

    async def _book(self, ctx: SagaContext) -> None:
        await ctx.resource("before")()
        ctx.resource("done").append("book")

    async def _wait(self, ctx: SagaContext) -> None:
        ctx.resource("done").append("wait")
        await ctx.resource("during")()

    async def _pay(self, ctx: SagaContext) -> None:
        ctx.resource("done").append("pay")

    async def _undo(self, _result: object, ctx: SagaContext) -> None:
        ctx.resource("done").append(f"undo {ctx.step_name}")


class Past:
    """Remembers what Redis holds of a saga, and puts it back."""

    def __init__(self, client: Any, prefix: str) -> None:
        """Use this client for the keys of this prefix."""
        self._client = client
        self._keys = [f"{{{prefix}}}:{kind}:s" for kind in ("saga", "journal")]
        self._dumps: list[bytes] = []

    async def remember(self) -> None:
        """Keep what stands there now."""
        self._dumps = [await self._client.dump(key) for key in self._keys]

    async def restore(self) -> None:
        """Put it back, as a failover to a replica that lagged would."""
        for key, dump in zip(self._keys, self._dumps, strict=True):
            await self._client.restore(key, 0, dump, replace=True)

    async def erase(self) -> None:
        """Take it away, as FLUSHALL would."""
        await self._client.delete(*self._keys)


@asynccontextmanager
async def running(
    url: str, prefix: str, lose: Callable[[Past], Awaitable[None]], ttl: float = 15.0
) -> AsyncIterator[tuple[SagaOrchestrator, list[str]]]:
    """An orchestrator whose sagas lose their state while their second step runs."""
    client = Redis.from_url(url)
    past = Past(client, prefix)
    done: list[str] = []

    async def during() -> None:
        if done.count("wait") == 1:
            await lose(past)

    resources = {"before": past.remember, "during": during, "done": done}
    async with (
        client,
        RedisSagaStorage(url, prefix=prefix) as storage,
        SagaOrchestrator(storage, resources=resources, lease_ttl=ttl, drain_timeout=0.1) as orchestrator,
    ):
        yield orchestrator, done


async def test_a_saga_whose_end_of_the_journal_is_gone_rests_until_a_person_looks(redis_url: str, prefix: str) -> None:
    """It is no success, it says which versions, and nothing runs; `retry` goes on from what is stored."""
    async with running(redis_url, prefix, Past.restore) as (orchestrator, done):
        result = await orchestrator.execute(Journey("a"), saga_id="s")
        assert not result.success
        assert result.status is SagaStatus.EXECUTING
        assert result.attention is not None
        assert (result.attention.code, result.attention.blocking) == (AttentionCode.STATE_LOST, True)
        assert "version 2" in result.attention.message
        assert "version 1" in result.attention.message
        assert done == ["book", "wait"]
        assert await orchestrator.recover() == 0
        await orchestrator.retry("s", "looked: nothing was booked")
        handle = await orchestrator.start(Journey("a"), saga_id="s")
        assert (await handle.wait(10)).success
        assert done == ["book", "wait", "book", "wait", "pay"]


async def test_a_heartbeat_finds_out_while_a_step_runs(redis_url: str, prefix: str) -> None:
    """The saga is marked although its step goes on for long."""

    async def lose(past: Past) -> None:
        await past.restore()
        await asyncio.sleep(1.0)

    async with running(redis_url, prefix, lose, ttl=0.6) as (orchestrator, done):
        result = await orchestrator.execute(Journey("a"), saga_id="s")
        assert result.attention is not None
        assert result.attention.code is AttentionCode.STATE_LOST
        assert done == ["book", "wait"]


async def test_a_saga_that_is_gone_altogether_is_an_error_to_whoever_waits(redis_url: str, prefix: str) -> None:
    """Nothing can be marked; it is no success, and nothing goes on."""
    async with running(redis_url, prefix, Past.erase) as (orchestrator, done):
        with pytest.raises(SagaStateLostError, match="nothing of it"):
            await orchestrator.execute(Journey("a"), saga_id="s")
        assert done == ["book", "wait"]
