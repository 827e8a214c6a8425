"""Claims: keeping those of running sagas alive, and taking over what nobody drives any more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from saga.clock import sleep
from saga.environment import ANEW_AFTER
from saga.events import AttentionSet, Event, Reshaped
from saga.exceptions import (
    SagaClaimLostError,
    SagaStorageError,
    SagaStorageUnavailableError,
    SagaVersionMovedError,
)
from saga.executor import SagaRun
from saga.outcomes import record_of
from saga.recording import folded
from saga.storage.base import Claim, Row
from saga.types import Attention, AttentionCode, SagaInfo, UnknownReason
from saga.user_code import contained

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from saga.definition import SagaDefinition
    from saga.environment import Environment
    from saga.registry import Registry
    from saga.state import SagaState
    from saga.storage.base import StoredSaga

CLAIMS_MAX = 500
"""Sagas that one sweep claims at the most; it goes on at once while there are more."""

BAD_CODE_PAUSE = 60.0
"""Seconds after which a saga whose code does not fit is due again."""

CLAIM_TRIES = 3


SUSPECTS_MAX = 8
"""Suspects (sagas that two processes in a row died with) that a process drives at once, when those before them did it
no harm. Each death leaves the guilty one with half as many: it is alone before a neighbour counts as a crash loop."""

SUSPECTS_LOOK = 0.1
"""Seconds between two looks at whether a suspect has got anywhere."""


class Ownership:
    """The sagas that this process drives, and the two loops that concern claims.

    Attributes:
        runs: The runs by saga id.
        closing: Whether nothing is claimed any more.
    """

    def __init__(self, env: Environment, registry: Registry, sweep_interval: float) -> None:
        """Keep the collaborators."""
        self.runs: dict[str, SagaRun] = {}
        self.closing = False
        self._env = env
        self._registry = registry
        self._beat_interval = env.ttl / 3
        self._sweep_interval = sweep_interval
        self._claim_not_before = 0.0
        self._beat_failed = False
        self._loops: set[asyncio.Task[None]] = set()
        self._over = False
        self._sweeping = asyncio.Lock()
        self._sweep_soon: asyncio.Event = asyncio.Event()
        self._hinted: set[str] = set()
        self._full = False
        self._suspects: dict[str, SagaRun] = {}
        self._suspects_most = 1

    def begin(self) -> None:
        """Start both loops."""
        self._keep(self._beat)
        self._keep(self._sweep_when_due)

    def end(self) -> None:
        """Stop both loops."""
        self._over = True
        for loop in self._loops:
            loop.cancel()

    def _keep(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a loop, and run it again where something cancels it that is not this class: user code, or a driver."""

        def again() -> None:
            if not self._over:
                context = {"message": "a background loop of the orchestrator was cancelled and begins anew"}
                asyncio.get_running_loop().call_exception_handler(context)
                self._keep(work)

        def ended(loop: asyncio.Task[None]) -> None:
            self._loops.discard(loop)
            if not self._over:
                # Not at once: on an event loop that is torn down nothing begins any more.
                self._env.clock.call_later(ANEW_AFTER, again)

        loop = self._env.spawn(self._forever(work))
        self._loops.add(loop)
        loop.add_done_callback(ended)

    def forget(self, run: SagaRun) -> None:
        """Take a run out when this process stops driving it."""
        if self.runs.get(run.saga_id) is run:
            del self.runs[run.saga_id]
        slots = self._env.slots
        if self._full and slots.free * 2 >= slots.size:
            self._full = False
            self.sweep_soon()

    def sweep_soon(self) -> None:
        """Let the next sweep begin at once."""
        self._sweep_soon.set()

    def wake(self, saga_id: str) -> None:
        """Look at once at a saga to which somebody else did something."""
        if saga_id not in self.runs:
            self.sweep_soon()
        elif not self.closing:
            self._hinted.add(saga_id)
            if len(self._hinted) == 1:
                self._env.spawn(self._follow_hints()).add_done_callback(self._followed)

    def _followed(self, following: asyncio.Task[None]) -> None:
        if following.cancelled():
            # Maybe before its first turn: the next hint must not find one that nobody follows.
            self._hinted.clear()

    async def _follow_hints(self) -> None:
        hinted = list(self._hinted)
        self._hinted.clear()
        with suppress(SagaStorageUnavailableError):
            await self.catch_up(hinted)

    async def close(self) -> None:
        """Claim nothing more; what a claim under way still gets is given back, if the storage answers in time."""
        self.closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._env.limits.storage_backoff), self._sweeping:
                pass

    async def _forever(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - documented place 3: this loop must outlive any storage error
                if not isinstance(error, SagaStorageUnavailableError):
                    context = {"message": "a background loop of the orchestrator goes on after", "exception": error}
                    asyncio.get_running_loop().call_exception_handler(context)
                await sleep(self._env.clock, self._beat_interval / 4)

    # heartbeats

    async def _beat(self) -> None:
        """Renew all claims in one write; learn of lost claims and of what others appended (R16, R17)."""
        clock = self._env.clock
        planned = clock.monotonic() + self._beat_interval
        await sleep(clock, self._beat_interval)
        self._note_lag(clock.monotonic() - planned)
        sent_at = clock.monotonic()
        running = {id_: run for id_, run in self.runs.items() if run.exists}
        if not running:
            self._beat_failed = False
            return
        for run in running.values():
            if run.overdue():
                run.interrupt(UnknownReason.INTERRUPTED)
        try:
            versions = await self._env.storage.renew(
                {id_: run.claim.token for id_, run in running.items()}, self._env.ttl
            )
        except SagaStorageUnavailableError:
            self._beat_failed = True
            raise
        if self._beat_failed:
            # After an outage all processes come back at once: renew first, let others do so too, then claim (R16).
            self._beat_failed = False
            self._claim_not_before = clock.monotonic() + self._beat_interval
        stale: list[str] = []
        for saga_id, run in running.items():
            if saga_id not in versions:
                run.lose()
            elif run.renewed(sent_at, versions[saga_id]):
                stale.append(saga_id)
        await self.catch_up(stale)

    async def catch_up(self, saga_ids: list[str]) -> None:
        """Tell runs what others appended."""
        if not saga_ids:
            return
        for stored in await self._env.storage.load(saga_ids):
            run = self.runs.get(stored.record.saga_id)
            if run is not None:
                run.catch_up(stored.entries)

    def _note_lag(self, lag: float) -> None:
        if lag < self._env.ttl / 6:
            return
        for run in list(self.runs.values()):
            for step in run.running_steps():
                # No figure in the text: each step is warned of once.
                self._env.warner(run.definition.name)(
                    f"the event loop was blocked for a long time while step {step!r} ran: use async calls or a thread, "
                    f"or this process loses its claims"
                )

    # the sweep

    async def _sweep_when_due(self) -> None:
        pause = self._sweep_interval * (0.75 + self._env.clock.random() / 2)
        timer = self._env.clock.call_later(pause, self._sweep_soon.set)
        try:
            await self._sweep_soon.wait()
        finally:
            timer.cancel()
        self._sweep_soon.clear()
        await self.sweep()

    async def sweep(self) -> int:
        """Claim what is due and nobody drives, as far as there are free slots; return how many sagas that were."""
        async with self._sweeping:
            total = 0
            while not (self.closing or self._beat_failed) and self._env.clock.monotonic() >= self._claim_not_before:
                limit = min(CLAIMS_MAX, self._env.slots.free)
                if limit <= 0:
                    self._full = True  # There may be more: the next sweep comes when half of the slots are free.
                    break
                token = self._env.clock.token()
                found = await self._claim(token, limit)
                if self.closing:
                    await self._env.storage.release({stored.record.saga_id: token for stored in found})
                    break
                misfits = [(stored, why) for stored in found if (why := await self._adopt(stored, token))]
                for stored, why in misfits:
                    await self._put_back(stored, token, why)
                total += len(found)
                if len(found) < limit:
                    break
            return total

    async def _claim(self, token: str, limit: int) -> list[StoredSaga]:
        suspects = max(0, self._suspects_most - len(self._suspects))
        for attempt in range(CLAIM_TRIES):
            try:
                # The same token again returns what a call whose answer was lost has claimed.
                return await self._env.storage.claim_due(
                    self._env.owner,
                    token,
                    self._env.ttl,
                    limit,
                    definitions=self._registry.keys(),
                    exclude=set(self.runs),
                    suspects=suspects,
                )
            except SagaStorageUnavailableError:
                if attempt + 1 == CLAIM_TRIES:
                    raise
        return []

    async def _adopt(self, stored: StoredSaga, token: str) -> str | None:
        """Drive a saga that was claimed; say why not where this process's code cannot carry it on."""
        record = stored.record
        claim = Claim(self._env.owner, token, self._env.ttl)
        rebuilt, error = await contained(self._rebuilt, stored)
        if error is not None:
            return record_of(error).message or type(error).__name__
        state, definition = rebuilt
        reshaped: tuple[Event, ...] = (Reshaped(definition.shape),) if definition.shape != state.graph.shape else ()
        run = SagaRun(
            self._env, record.saga_id, definition, claim, state=state, first_facts=reshaped, on_left=self.forget
        )
        await self._env.slots.take(at_once=True)
        self.runs[record.saga_id] = run
        if state.recoveries > 1:
            self._watch(run)
        run.created.set(None)
        self._env.observers.on_events(run.info, stored.entries[-1].events)
        run.begin()
        return None

    async def _rebuilt(self, stored: StoredSaga) -> tuple[SagaState, SagaDefinition]:
        if stored.unreadable is not None:
            raise SagaStorageError(stored.unreadable, saga_id=stored.record.saga_id)
        state = folded(stored.entries)
        return state, await self._registry.rebuild(state)

    def _watch(self, suspect: SagaRun) -> None:
        if not self._suspects:
            self._env.clock.call_later(SUSPECTS_LOOK, self._look_at_suspects)
        self._suspects[suspect.saga_id] = suspect

    def _look_at_suspects(self) -> None:
        """Let the next ones be claimed for those that got on, more each time, and for those that left (R18)."""
        for saga_id, run in list(self._suspects.items()):
            harmless = run.state.recoveries <= 1
            if harmless:
                self._suspects_most = min(2 * self._suspects_most, SUSPECTS_MAX)
            if harmless or self.runs.get(saga_id) is not run:
                del self._suspects[saga_id]
                self.sweep_soon()
        if self._suspects and not self.closing:
            self._env.clock.call_later(SUSPECTS_LOOK, self._look_at_suspects)

    async def _put_back(self, stored: StoredSaga, token: str, why: str) -> None:
        """Release a saga that this process's code cannot carry on, visibly (R20)."""
        record = stored.record
        claim = Claim(self._env.owner, token, self._env.ttl)
        attention = Attention(AttentionCode.BAD_CODE, why, self._env.clock.now(), blocking=False)
        row = Row(
            status=record.status,
            attention=attention,
            due_in=BAD_CODE_PAUSE,
            release=True,
            recoveries=record.recoveries,
        )
        facts = (AttentionSet(attention.code, attention.message),)
        try:
            await self._env.storage.append(
                record.saga_id,
                facts,
                row=row,
                expected_version=record.version,
                claim=claim,
                write_id=self._env.clock.token(),
            )
        except (SagaVersionMovedError, SagaClaimLostError):
            # Somebody asked something of it or took it meanwhile; the next claim looks again.
            await self._env.storage.release({record.saga_id: token})
            return
        info = SagaInfo(record.saga_id, record.saga_name, record.saga_version)
        self._env.observers.on_events(info, facts)
