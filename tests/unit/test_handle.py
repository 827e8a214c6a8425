"""Handles: what wait() returns, however late and however often it is asked."""

from __future__ import annotations

import asyncio

import pytest

from saga import (
    AttentionCode,
    RetryPolicy,
    SagaContext,
    SagaExecutionError,
    SagaFilter,
    SagaNotCancellableError,
    SagaStatus,
)
from tests.unit.kit import Line, chain, fail, memory, orchestrator, step, succeed

ONCE = RetryPolicy(max_attempts=1)


async def cannot(result: object, ctx: SagaContext) -> None:
    """Fail to undo."""
    message = "no way"
    raise ValueError(message)


@pytest.mark.asyncio
async def test_the_first_look_comes_after_a_repair() -> None:
    """A handle that nobody awaited tells what has become of the saga, not what it was when its first run left."""
    broken = [True]

    async def stuck(result: object, ctx: SagaContext) -> None:
        if broken:
            await cannot(result, ctx)

    async with orchestrator() as runs:
        handle = await runs.start(chain(step("a", compensation=stuck), step("b", fail))(), saga_id="s")
        await asyncio.sleep(1_000)
        assert await handle.status() is SagaStatus.FAILED
        broken.clear()
        await runs.retry("s", "mended")
        await asyncio.sleep(1_000)
        assert (await handle.wait()).status is SagaStatus.ROLLED_BACK
        assert (await handle.wait()).status is SagaStatus.ROLLED_BACK


@pytest.mark.asyncio
async def test_what_has_ended_can_be_asked_for_again_and_again() -> None:
    """With the exception that was raised here as its cause; also when the orchestrator has left."""
    boom = ValueError("boom")

    async def explode(ctx: SagaContext) -> None:
        raise boom

    async with orchestrator() as runs:
        handle = await runs.start(chain(step(action=explode, retry=ONCE))(), saga_id="s")
        results = [await handle.wait(), await handle.wait()]
    results.append(await handle.wait())
    for result in results:
        assert result.status is SagaStatus.ROLLED_BACK
        assert result.error is not None
        assert result.error.__cause__ is boom


@pytest.mark.asyncio
async def test_what_has_failed_can_be_asked_for_after_the_orchestrator_has_left() -> None:
    """It was at rest when this process stopped; no storage is asked, since none may be left."""
    async with orchestrator() as runs:
        handle = await runs.start(chain(step("a", compensation=cannot), step("b", fail))())
        assert (await handle.wait()).status is SagaStatus.FAILED
    assert (await handle.wait()).status is SagaStatus.FAILED


@pytest.mark.asyncio
async def test_an_error_of_a_run_is_told_once() -> None:
    """The next wait looks at what another run has made of the saga."""
    breaks = [True]

    class Breaking(Line):
        """A storage that breaks once where an outcome is to be written."""

        async def before(self, call: str) -> None:
            """Break."""
            if call == "append" and breaks:
                breaks.clear()
                message = "a bug"
                raise RuntimeError(message)

    cls = chain(step("a"))
    async with memory() as storage, orchestrator(Breaking(storage), sagas=[cls]) as runs:
        handle = await runs.start(cls(), saga_id="s")
        with pytest.raises(SagaExecutionError, match="the driver of saga s stopped"):
            await handle.wait()
        await asyncio.sleep(100)
        assert (await handle.wait()).success


@pytest.mark.asyncio
async def test_a_wait_that_was_too_short_loses_nothing() -> None:
    """The next one still has the live cause."""
    boom = ValueError("boom")

    async def explode(ctx: SagaContext) -> None:
        await asyncio.sleep(10)
        raise boom

    async with orchestrator() as runs:
        handle = await runs.start(chain(step(action=explode, retry=ONCE))())
        with pytest.raises(TimeoutError):
            await handle.wait(timeout=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await handle.wait()
        result = await handle.wait()
    assert result.error is not None
    assert result.error.__cause__ is boom


@pytest.mark.asyncio
async def test_a_saga_that_ended_late_needs_attention_until_somebody_has_looked() -> None:
    """A retry of what has ended tries nothing again; it says that somebody has, and why."""

    async def slow(ctx: SagaContext) -> None:
        await asyncio.sleep(100)

    async with memory() as storage, orchestrator(storage) as runs:
        result = await runs.execute(
            chain(step("a", pivot=True), step("b", slow, timeout=None))(), saga_id="s", deadline=50
        )
        assert result.success
        assert result.attention is not None
        assert result.attention.code is AttentionCode.PAST_DEADLINE
        assert (await runs.statistics()).needs_attention == 1
        await runs.retry("s", "told the customer")
        assert (await runs.statistics()).needs_attention == 0
        assert (await runs.query(SagaFilter(attention=True))).items == ()
        before = await runs.get("s")
        assert (before.status, before.due_at) == (SagaStatus.COMPLETED, None)
        await runs.retry("s", "once more")
        assert (await runs.get("s")).version == before.version


@pytest.mark.parametrize("second", [succeed, fail])
@pytest.mark.asyncio
async def test_a_cancel_of_what_has_ended_writes_nothing(second: object) -> None:
    """However often it is asked for."""
    async with orchestrator() as runs:
        await runs.execute(chain(step("a"), step("b", second))(), saga_id="s")
        before = await runs.get("s")
        for _ in range(3):
            if second is succeed:
                with pytest.raises(SagaNotCancellableError, match="has completed"):
                    await runs.cancel("s", "too late")
            else:
                await runs.cancel("s", "too late")
        assert (await runs.get("s")).version == before.version
