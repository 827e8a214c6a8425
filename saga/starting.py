"""Starting sagas: an id stands for one saga, however often it is started and by however many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from saga.environment import CURRENT_SAGA, lent_seat
from saga.exceptions import SagaAlreadyExistsError, SagaExecutionError, SagaNotFoundError
from saga.executor import SagaRun
from saga.storage.base import Claim, NewSaga, Row
from saga.types import LeaveReason, SagaInfo, SagaStatus
from saga.visits import check_same, load_state

if TYPE_CHECKING:
    from saga.definition import SagaDefinition
    from saga.environment import Environment
    from saga.events import Created
    from saga.ownership import Ownership
    from saga.waiting import Latch


class Starter:
    """Creates sagas for one orchestrator, or finds those that exist."""

    def __init__(self, env: Environment, owned: Ownership, closing: Latch[None]) -> None:
        """Keep the collaborators."""
        self._env = env
        self._owned = owned
        self._closing = closing

    async def start(self, saga_id: str, definition: SagaDefinition, created: Created) -> SagaRun | None:
        """Return once the saga is durable and has a slot: its run in this process, if it has one.

        Raises:
            SagaAlreadyExistsError: If a different saga has this id.
            SagaExecutionError: If the orchestrator stops first.
            SagaStorageUnavailableError: If the storage is away.
        """
        while True:
            run, is_new = self._run_for(saga_id, definition, created)
            if is_new:
                await self._begin(run)
            try:
                if is_new:
                    await run.created.wait()
                else:
                    with lent_seat(self._owned.runs):
                        await run.created.wait()
            except SagaAlreadyExistsError:
                # Somebody else has it, maybe in another process: the same saga is waited for, never taken over alive.
                await self._check_stored(saga_id, created)
                return self._driven(saga_id)
            except SagaExecutionError:
                if is_new or self._closing.done or not run.discarded:
                    raise
                # Whoever asked for it first gave up while it waited for a slot, which is nothing to do with this one.
                continue
            if not is_new:
                check_same(saga_id, created, run.state)
            return run

    async def start_on(
        self, connection: Any, saga_id: str, definition: SagaDefinition, created: Created
    ) -> SagaRun | None:
        """Store a saga that nobody drives yet in the caller's transaction.

        Raises:
            SagaAlreadyExistsError: If a different saga has this id.
            SagaValidationError: If the storage cannot write on this connection.
        """
        info = SagaInfo(saga_id, definition.name, definition.version)
        # Of one that this process drives observers know already; asked again, they would begin it a second time.
        driven = self._driven(saga_id) is not None
        if not driven:
            created = replace(created, headers=self._env.observers.headers(info))
        row = Row(status=SagaStatus.PENDING)
        new = NewSaga(saga_id=saga_id, saga_name=definition.name, saga_version=definition.version, row=row)
        reason = LeaveReason.LOST
        try:
            write_id = self._env.clock.token()
            await self._env.storage.create(new, (created,), claim=None, write_id=write_id, connection=connection)
            reason = LeaveReason.RELEASED
        except SagaAlreadyExistsError:
            await self._check_stored(saga_id, created)
        finally:
            if not driven:
                self._env.observers.on_leave(info, reason)
        return self._driven(saga_id)

    def _driven(self, saga_id: str) -> SagaRun | None:
        run = self._owned.runs.get(saga_id)
        return run if run is not None and run.exists else None

    def _run_for(self, saga_id: str, definition: SagaDefinition, created: Created) -> tuple[SagaRun, bool]:
        """Return the saga's run in this process, and whether it is a new one."""
        run = self._owned.runs.get(saga_id)
        if run is not None:
            return run, False
        run = self._owned.runs[saga_id] = SagaRun(
            self._env,
            saga_id,
            definition,
            Claim(self._env.owner, self._env.clock.token(), self._env.ttl),
            first_facts=(created,),
            on_left=self._owned.forget,
            nested=CURRENT_SAGA.get() is not None,
        )
        return run, True

    async def _begin(self, run: SagaRun) -> None:
        """Begin a run once there is a slot for it; a caller that gives up before leaves nothing behind."""
        begun = False
        try:
            await self._env.slots.take(at_once=CURRENT_SAGA.get() is not None)
            if self._closing.done:
                self._env.slots.give_back()
            else:
                run.begin()
                begun = True
        finally:
            if not begun:
                why = "the orchestrator stopped" if self._closing.done else "its caller gave up"
                run.discard(SagaExecutionError(f"saga {run.saga_id} was not started: {why}", saga_id=run.saga_id))

    async def _check_stored(self, saga_id: str, created: Created) -> None:
        """Check that the saga of this id that somebody else has created is the same."""
        try:
            _, state = await load_state(self._env.storage, saga_id)
        except SagaNotFoundError as error:
            message = f"saga {saga_id} was started before in a transaction that is not committed yet"
            raise SagaAlreadyExistsError(message, saga_id=saga_id) from error
        check_same(saga_id, created, state)
