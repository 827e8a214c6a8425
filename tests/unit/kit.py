"""Small sagas made to measure, for tests that need many of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from saga import (
    DAGSaga,
    InMemorySagaStorage,
    RetryPolicy,
    Saga,
    SagaContext,
    SagaOrchestrator,
    SagaStatus,
    SagaStorage,
)
from saga.building import birth_of, definition_of, life_of
from saga.storage.base import NewSaga, Row
from tests.virtual import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from saga import Page, SagaFilter, SagaRecord, SagaStatistics
    from saga.definition import SagaDefinition
    from saga.events import Event
    from saga.storage.base import Appended, Claim, Entry, StoredSaga

AT_ONCE = RetryPolicy(max_attempts=2, initial_interval=0.001, jitter="none")


async def succeed(ctx: SagaContext) -> str:
    """Return the step's name."""
    return ctx.step_name


async def fail(ctx: SagaContext) -> None:
    """Fail definitely."""
    message = f"{ctx.step_name} failed"
    raise ValueError(message)


async def undo(result: Any, ctx: SagaContext) -> None:
    """Undo nothing."""


class Hush(BaseException):
    """An error that is no Exception, as some libraries use for flow control."""


async def cancel_myself(ctx: SagaContext) -> None:
    """Cancel the task that runs this."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def never_end(ctx: SagaContext) -> None:
    """Go on for a long time, whoever asks for an end."""
    while True:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(1_000)


def raising(error: BaseException | type[BaseException]) -> Callable[[SagaContext], Awaitable[None]]:
    """Return an action that raises this."""

    async def action(ctx: SagaContext) -> None:
        raise error

    return action


def returning(value: Any) -> Callable[[SagaContext], Awaitable[Any]]:
    """Return an action that returns this."""

    async def action(ctx: SagaContext) -> Any:
        return value

    return action


def step(name: Any = "a", action: Any = succeed, compensation: Any = undo, **options: Any) -> dict[str, Any]:
    """Return what add_step and add_dag_step take."""
    return {"name": name, "action": action, "compensation": compensation, **options}


def chain(*steps: Mapping[str, Any], name: str = "Sample", **attributes: Any) -> type[Saga]:
    """Return a linear saga of these steps."""

    async def build(self: Saga) -> None:
        for each in steps:
            await self.add_step(**each)

    return type(name, (Saga,), {"build": build, "__doc__": "A saga made to measure.", **attributes})


def dag(*steps: Mapping[str, Any], name: str = "Sample", **attributes: Any) -> type[DAGSaga]:
    """Return a graph of these steps."""

    async def build(self: DAGSaga) -> None:
        for each in steps:
            await self.add_dag_step(**each)

    return type(name, (DAGSaga,), {"build": build, "__doc__": "A saga made to measure.", **attributes})


async def defined(cls: type[Saga]) -> SagaDefinition:
    """Return the definition of a saga class."""
    return await definition_of(cls())


def orchestrator(storage: SagaStorage | None = None, *, seed: str = "one", **options: Any) -> SagaOrchestrator:
    """Return an orchestrator in virtual time; several on one storage need different seeds."""
    return SagaOrchestrator(storage, clock=VirtualClock(seed), **options)


def memory() -> InMemorySagaStorage:
    """Return a storage in virtual time."""
    return InMemorySagaStorage(clock=VirtualClock("storage"))


async def leave(storage: SagaStorage, saga: Saga, saga_id: str) -> None:
    """Store a saga that nobody drives yet."""
    definition = await definition_of(saga)
    created = birth_of(life_of(saga), definition, None)
    row = Row(status=SagaStatus.PENDING)
    new = NewSaga(saga_id=saga_id, saga_name=definition.name, saga_version=definition.version, row=row)
    await storage.create(new, (created,), claim=None, write_id=f"leave {saga_id}")


class Line(SagaStorage):
    """Leads to another storage; subclasses delay or cut what goes through ``before`` and ``after``."""

    def __init__(self, inner: InMemorySagaStorage) -> None:
        """Lead to this storage, which somebody else opens and closes."""
        self.inner = inner

    async def before(self, call: str) -> None:
        """Do what comes before a call of this name reaches the storage."""

    async def after(self, call: str) -> None:
        """Do what comes between the storage's answer and the caller."""

    async def open(self) -> None:
        """Do nothing: the inner storage is open."""

    async def close(self) -> None:
        """Do nothing: whoever opened the inner storage closes it."""

    async def create(
        self, new: NewSaga, events: Sequence[Event], *, claim: Claim | None, write_id: str, connection: Any = None
    ) -> Appended:
        """Lead on."""
        await self.before("create")
        answer = await self.inner.create(new, events, claim=claim, write_id=write_id, connection=connection)
        await self.after("create")
        return answer

    async def load(self, saga_ids: Collection[str]) -> list[StoredSaga]:
        """Lead on."""
        await self.before("load")
        answer = await self.inner.load(saga_ids)
        await self.after("load")
        return answer

    async def append(
        self,
        saga_id: str,
        events: Sequence[Event],
        *,
        row: Row | None,
        expected_version: int | None,
        claim: Claim | None,
        write_id: str,
    ) -> Appended:
        """Lead on."""
        await self.before("append")
        answer = await self.inner.append(
            saga_id, events, row=row, expected_version=expected_version, claim=claim, write_id=write_id
        )
        await self.after("append")
        return answer

    async def claim_due(self, owner: str, token: str, ttl: float, limit: int, **options: Any) -> list[StoredSaga]:
        """Lead on."""
        await self.before("claim_due")
        answer = await self.inner.claim_due(owner, token, ttl, limit, **options)
        await self.after("claim_due")
        return answer

    async def renew(self, claims: Mapping[str, str], ttl: float) -> dict[str, int]:
        """Lead on."""
        await self.before("renew")
        answer = await self.inner.renew(claims, ttl)
        await self.after("renew")
        return answer

    async def release(self, claims: Mapping[str, str]) -> None:
        """Lead on."""
        await self.before("release")
        await self.inner.release(claims)
        await self.after("release")

    async def query(self, selected: SagaFilter, cursor: str | None = None, limit: int = 100) -> Page[SagaRecord]:
        """Lead on."""
        return await self.inner.query(selected, cursor, limit)

    async def history(self, saga_id: str, cursor: str | None = None, limit: int = 100) -> Page[Entry]:
        """Lead on."""
        return await self.inner.history(saga_id, cursor, limit)

    async def statistics(self) -> SagaStatistics:
        """Lead on."""
        return await self.inner.statistics()

    async def prune(self, older_than: float, statuses: Collection[SagaStatus], limit: int) -> int:
        """Lead on."""
        return await self.inner.prune(older_than, statuses, limit)

    async def health_check(self) -> None:
        """Lead on."""
        await self.inner.health_check()
