"""``SagaOrchestrator``: runs many sagas at once and carries on what other processes left."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from saga.building import belong_to, birth_of, definition_of, life_of
from saga.checks import check_saga_id, check_seconds, is_number, refuse
from saga.clock import Clock, SystemClock
from saga.environment import Environment
from saga.exceptions import SagaAlreadyExistsError, SagaExecutionError, SagaStorageUnavailableError
from saga.handle import Host, SagaHandle
from saga.observers import Observer, Observers
from saga.ownership import Ownership
from saga.registry import Registry
from saga.requests import request_cancel, request_retry
from saga.starting import Starter
from saga.storage.base import SagaStorage
from saga.storage.memory import InMemorySagaStorage
from saga.types import Limits, Page, SagaFilter, SagaRecord, SagaResult, SagaStatistics, UnknownReason
from saga.visits import load_state, with_no_code
from saga.waiting import Latch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from saga.core import Saga
    from saga.executor import SagaRun

EVERYTHING = SagaFilter()


class SagaOrchestrator:
    """Runs sagas durably on one storage; use it with ``async with``, from one event loop.

    Several orchestrators, also in several processes, may share a storage: each saga is driven by one of them, and
    when that one dies another carries its sagas on. All methods raise SagaExecutionError outside ``async with``, and on
    another event loop than the one that entered it.
    """

    def __init__(
        self,
        storage: SagaStorage | None = None,
        *,
        sagas: Iterable[type[Saga]] = (),
        observers: Iterable[Observer] = (),
        resources: Mapping[str, object] | None = None,
        limits: Limits | None = None,
        lease_ttl: float = 15.0,
        sweep_interval: float = 5.0,
        drain_timeout: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        """Configure; nothing runs before ``async with``.

        Args:
            storage: An open storage; None for private memory that no crash survives.
            sagas: The classes whose sagas it may carry on; the class of a saga that it is given to start is added.
            observers: Who is told of facts.
            resources: Live objects for ``ctx.resource(name)``; never stored.
            limits: The engine's bounds.
            lease_ttl: Seconds after which others may take over a saga of a process that gives no sign of life.
            sweep_interval: Seconds between two looks for sagas that nobody drives.
            drain_timeout: Seconds that running attempts may take to end on leaving ``async with``.
            clock: Time and randomness; the system's by default.

        Raises:
            SagaDefinitionError: If a class is no saga, or two share name and version.
            SagaValidationError: If a value is not what it must be.
        """
        _check_parts(storage, limits, resources)
        _check_intervals(lease_ttl, sweep_interval, drain_timeout)
        self.clock: Clock = SystemClock() if clock is None else clock
        self.storage: SagaStorage = InMemorySagaStorage(clock=self.clock) if storage is None else storage
        self._private = storage is None
        self._registry = Registry(sagas)
        self._drain_timeout = drain_timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        limits = Limits() if limits is None else limits
        observing = Observers(observers)
        self._env = Environment(self.storage, self.clock, observing, resources or {}, limits, ttl=lease_ttl)
        self._owned = Ownership(self._env, self._registry, float(sweep_interval))
        self._closing: Latch[None] = Latch()
        self._starter = Starter(self._env, self._owned, self._closing)
        self._host = Host(self.storage, self.clock, self._closing, self._owned.runs, self.cancel)

    # life

    async def __aenter__(self) -> Self:
        """Begin to drive sagas and to look for those that nobody drives.

        Raises:
            SagaExecutionError: If it was entered before.
        """
        if self._loop is not None:
            message = "a SagaOrchestrator is entered once; make a new one"
            raise SagaExecutionError(message)
        self._loop = asyncio.get_running_loop()
        if self._private:
            await self.storage.open()
        self._owned.begin()
        self.storage.listen(self._owned.wake)
        self._owned.sweep_soon()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let running attempts end, for at most ``drain_timeout`` seconds, and hand over what is not at rest."""
        self._closing.set(None)
        try:
            await self._owned.close()
            await self._drain()
        finally:
            self._owned.end()
            await self._env.close()
            if self._private:
                await self.storage.close()

    async def _drain(self) -> None:
        runs = list(self._owned.runs.values())
        for run in runs:
            run.hurry()
        if not await self._all_left(runs, self._drain_timeout):
            for run in runs:
                run.interrupt(UnknownReason.INTERRUPTED)
            if not await self._all_left(runs, 2 * self._env.limits.abandon_after):
                for run in runs:
                    run.give_up()
                await self._all_left(runs, self._env.limits.storage_backoff)

    async def _all_left(self, runs: list[SagaRun], seconds: float) -> bool:
        until = self.clock.monotonic() + seconds
        for run in runs:
            if not await run.finished.wait_up_to(max(0.0, until - self.clock.monotonic()), self.clock):
                return False
        return True

    # running sagas

    async def execute(self, saga: Saga, *, saga_id: str | None = None, deadline: float | None = None) -> SagaResult:
        """Run a saga durably to its resting point and return its result.

        Args:
            saga: An instance of a Saga subclass.
            saga_id: 1 to 128 characters of ``A-Z a-z 0-9 . _ : -``; a random one by default. The same id with the
                same definition and arguments is the same saga: its result is returned and nothing runs twice.
            deadline: Seconds after which the saga turns back, or is reported late where there is no way back.

        Raises:
            SagaAlreadyExistsError: If a different saga has this id.
            SagaDefinitionError: If the saga or its steps are wrong; nothing has run.
            SagaExecutionError: For misuse, or if the orchestrator stops first and hands the saga over.
            SagaStorageUnavailableError: If the storage is away.
            SagaValidationError: If the id or the deadline is not what it must be.
        """
        handle = await self.start(saga, saga_id=saga_id, deadline=deadline)
        return await handle.wait()

    async def start(
        self, saga: Saga, *, saga_id: str | None = None, deadline: float | None = None, connection: Any = None
    ) -> SagaHandle:
        """Start a saga and return once it is durable and has a slot; see ``execute``.

        With a connection the saga is written in the transaction that the caller has open on it: it exists once that
        commits, and a sweep of any orchestrator then begins it. Until then, and after a rollback, the handle raises
        SagaNotFoundError, and the same instance may be started again. Observers are not told of its creation.

        Args:
            saga: See ``execute``, as for the id and the deadline.
            saga_id: The saga's id.
            deadline: Seconds.
            connection: A connection to the storage's own database inside a transaction: of asyncpg for PostgreSQL, of
                ``sqlite3`` for SQLite, where nothing may be awaited between ``start`` and the commit.

        Raises:
            SagaAlreadyExistsError: If a different saga has this id.
            SagaDefinitionError: If the saga or its steps are wrong; nothing has run.
            SagaExecutionError: For misuse, or if the orchestrator stops before the saga is stored.
            SagaStorageUnavailableError: If the storage is away.
            SagaValidationError: If a value is not what it must be, or the storage cannot write on this connection.
        """
        self._check_usable()
        if saga_id is not None:
            check_saga_id(saga_id)
        check_seconds("deadline", deadline)
        life = life_of(saga)
        definition = await definition_of(saga)
        self._registry.add(type(saga))
        is_first = life.owner is None
        known = belong_to(life, self, saga_id or self.clock.token())
        if saga_id not in (None, known):
            message = f"this {life.saga_name} runs as {known} and cannot run as {saga_id}: one instance is one run"
            raise SagaExecutionError(message, saga_name=life.saga_name, saga_id=known)
        created = birth_of(life, definition, deadline)
        try:
            if connection is None:
                run = await self._starter.start(known, definition, created)
            else:
                run = await self._starter.start_on(connection, known, definition, created)
        except SagaAlreadyExistsError:
            if is_first:
                # Another saga has the id: this instance has not run, and may yet, under a different one.
                life.owner = life.saga_id = None
            raise
        return SagaHandle(self._host, known, definition, run)

    # requests

    async def cancel(self, saga_id: str, reason: str) -> None:
        """Ask a saga to turn back; durable when this returns.

        One that this process drives is told at once, one that another drives with that one's next heartbeat. A saga
        that turns back already, is FAILED or ROLLED_BACK stays as it is. While its pivot's answer is open, that answer
        decides.

        Args:
            saga_id: The saga's id.
            reason: Why, for its journal; 1 to 1,000 characters.

        Raises:
            SagaNotFoundError: If there is no such saga.
            SagaNotCancellableError: If it completed or its pivot has succeeded.
            SagaStorageUnavailableError: If the storage is away; whether the request was stored is not known then.
            SagaValidationError: If the id or the reason is not what it must be.
        """
        self._check_usable()
        await request_cancel(self._env, saga_id, reason)
        with suppress(SagaStorageUnavailableError):
            # The request is stored; if it cannot be read now, the next heartbeat brings it.
            await self._owned.catch_up([saga_id])
        self._owned.sweep_soon()

    async def retry(self, saga_id: str, reason: str) -> None:
        """Try again what rests: the undos that failed, or the step that parked, each with a fresh budget.

        A saga that has ended loses its attention, since somebody has looked; any other stays as it is.

        Args:
            saga_id: The saga's id.
            reason: Why, for its journal; 1 to 1,000 characters.

        Raises:
            SagaNotFoundError: If there is no such saga.
            SagaStorageUnavailableError: If the storage is away.
            SagaValidationError: If the id or the reason is not what it must be.
        """
        self._check_usable()
        await request_retry(self._env, saga_id, reason)
        self._owned.sweep_soon()

    async def recover(self) -> int:
        """Look now for sagas that nobody drives; return how many this process took over. It also happens by itself.

        Raises:
            SagaStorageUnavailableError: If the storage is away.
        """
        self._check_usable()
        return await self._owned.sweep()

    # looking

    async def get(self, saga_id: str) -> SagaRecord:
        """Return a saga's row.

        Raises:
            SagaNotFoundError: If there is no such saga.
            SagaStorageUnavailableError: If the storage is away.
            SagaValidationError: If the id cannot be one.
        """
        self._check_usable()
        stored, _ = await load_state(self.storage, check_saga_id(saga_id))
        return with_no_code(stored.record, self.clock.now())

    async def query(
        self,
        filter: SagaFilter = EVERYTHING,  # noqa: A002 - the word of the public face
        cursor: str | None = None,
        limit: int = 100,
    ) -> Page[SagaRecord]:
        """Return rows, newest first, a page at a time.

        Args:
            filter: Which sagas.
            cursor: Where the page before ended.
            limit: From 1 to 500.

        Raises:
            SagaStorageUnavailableError: If the storage is away.
            SagaValidationError: If a value is not what it must be.
        """
        self._check_usable()
        if not isinstance(filter, SagaFilter):
            refuse("filter", filter, "a SagaFilter")
        page = await self.storage.query(filter, cursor, limit)
        now = self.clock.now()
        return Page(tuple(with_no_code(record, now) for record in page.items), page.cursor)

    async def statistics(self) -> SagaStatistics:
        """Return counts by name and status.

        Raises:
            SagaStorageUnavailableError: If the storage is away.
        """
        self._check_usable()
        return await self.storage.statistics()

    def _check_usable(self) -> None:
        if self._loop is None:
            message = "use the SagaOrchestrator inside 'async with'"
            raise SagaExecutionError(message)
        if asyncio.get_running_loop() is not self._loop:
            message = (
                "a SagaOrchestrator is used from the event loop that entered it; make one for each loop and thread"
            )
            raise SagaExecutionError(message)
        if self._closing.done:
            message = "this SagaOrchestrator has left its 'async with' and starts nothing more"
            raise SagaExecutionError(message)


def _check_parts(storage: object, limits: object, resources: object) -> None:
    if not (storage is None or isinstance(storage, SagaStorage)):
        refuse("storage", storage, "a SagaStorage, such as open_storage(url) makes, or None")
    if not (limits is None or isinstance(limits, Limits)):
        refuse("limits", limits, "a Limits, or None for the defaults")
    if not (resources is None or isinstance(resources, Mapping)):
        refuse("resources", resources, "a mapping of names to objects, or None")


def _check_intervals(lease_ttl: float, sweep_interval: float, drain_timeout: float) -> None:
    for name, value in (("lease_ttl", lease_ttl), ("sweep_interval", sweep_interval)):
        if check_seconds(name, value) is None:
            refuse(name, value, "a number of seconds above 0")
    if not (is_number(drain_timeout) and drain_timeout >= 0):
        refuse("drain_timeout", drain_timeout, "a number of seconds, at least 0")
