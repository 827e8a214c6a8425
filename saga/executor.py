"""Runs one saga to its next resting point: commands in, facts out.

One driver task a saga: it decides, appends what happened together with what comes next, and then starts what was
decided. Nothing runs that is not durable first, and nothing is reported that is not stored. A lone attempt is
awaited in the driver itself, since a task an attempt would halve the throughput; siblings get tasks. An attempt
therefore shares the contextvars of its saga's driver; what it sets there is gone after a takeover.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING

from msgspec.structs import replace

from saga.environment import ANEW_AFTER, CURRENT_SAGA, Environment, Seat
from saga.events import Claimed, Created
from saga.exceptions import SagaClaimLostError, SagaError, SagaExecutionError, SagaStateLostError
from saga.flights import Flights
from saga.fold import apply, fold
from saga.outcomes import Ended, fact_of
from saga.planner import Decision, Work, decide, due_in
from saga.recording import Recorder
from saga.storage.base import Claim, Entry, NewSaga, Row
from saga.types import LeaveReason, SagaInfo, UnknownReason
from saga.visits import append_late, mark_lost
from saga.waiting import Latch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from saga.attempt import Scope
    from saga.clock import TimerHandle
    from saga.definition import SagaDefinition
    from saga.events import Event
    from saga.state import SagaState

BREATH = 32
"""After so many turns a saga lets others run, since a storage in memory never makes it wait."""


class SagaRun:
    """One saga while this process drives it.

    Attributes:
        env: What it shares with others.
        saga_id: The saga's id.
        definition: Its steps.
        claim: What this process shows the storage.
        left: Why this process stopped driving it; None while it does.
        created: Done once the saga is durable.
        finished: Done when this process stops driving it.
        seat: Its place among the sagas that run at once.
    """

    def __init__(
        self,
        env: Environment,
        saga_id: str,
        definition: SagaDefinition,
        claim: Claim,
        *,
        state: SagaState | None = None,
        first_facts: Sequence[Event] = (),
        on_left: Callable[[SagaRun], None] = lambda _run: None,
        nested: bool = False,
    ) -> None:
        """Take over a saga in this state, or prepare to create one.

        Args:
            env: What it shares with others.
            saga_id: The saga's id.
            definition: Its steps.
            claim: What this process shows the storage.
            state: What its journal says; None for a new saga.
            first_facts: Facts to append first, before anything is decided.
            on_left: Called when this process stops driving the saga.
            nested: Whether a step of another saga may wait for it, so that it must never wait for a slot.
        """
        self.saga_id = saga_id
        self.definition = definition
        self.claim = claim
        self.left: LeaveReason | None = None
        self.discarded = False
        self.created: Latch[None] = Latch()
        self.finished: Latch[LeaveReason] = Latch()
        self.env = env
        self.seat = Seat(env.slots)
        self._journal = Recorder(env, saga_id, claim, state)
        self._first_facts = first_facts
        self._flights = Flights(env, definition)
        self._ended: list[Ended] = []
        self._alarm: asyncio.Future[None] | None = None
        self._driver: asyncio.Task[None] | None = None
        self._drivers = 0
        self._around = copy_context()
        self._on_left = on_left
        self._nested = nested
        self._hurry = False
        self._poked = False
        self._turns = 0
        self._info: SagaInfo | None = None

    # what others ask and tell the run

    @property
    def state(self) -> SagaState:
        """What the journal says; only once the saga is created."""
        state = self._journal.state
        if state is None:
            message = f"saga {self.saga_id} is not created yet"
            raise SagaError(message, saga_id=self.saga_id)
        return state

    @property
    def live_errors(self) -> Mapping[Work, BaseException]:
        """The last exception of each step and phase that was raised here."""
        return self._flights.live_errors

    @property
    def exists(self) -> bool:
        """Whether the saga is stored."""
        return self._journal.state is not None

    @property
    def info(self) -> SagaInfo:
        """What observers are told the saga is."""
        if self._info is None:
            state = self._journal.state
            known = () if state is None else (state.headers, state.created_at)
            self._info = SagaInfo(self.saga_id, self.definition.name, self.definition.version, *known)
        return self._info

    def begin(self) -> None:
        """Start driving, in a task of the environment's; the one before, if there was one, drives no more."""
        self._drivers += 1
        # Not in the context of whoever is at it now: that may be a timer of another saga's.
        self._driver = self.env.spawn(self._drive(self._drivers), self._around.copy())
        self._driver.add_done_callback(self._driver_ended)

    def catch_up(self, entries: Sequence[Entry]) -> None:
        """Take note of appends by others; interrupt at once what they put an end to."""
        if self.left is not None or not self.exists:
            return
        if self._journal.writing:
            # The append under way will be refused or has just passed; either way the driver looks again after it.
            self._journal.stale = True
            return
        self._journal.take_entries(entries)
        self._nudge()

    def renewed(self, sent_at: float, version: int) -> bool:
        """Take note of a renewal; say whether the journal has grown behind this run's back."""
        self._journal.renewed(sent_at)
        if self.exists and not self._journal.writing and version < self.state.version:
            # Older than the last append, or the storage has lost that: the driver looks.
            self._journal.stale = True
            self._wake()
        return self.exists and not self._journal.writing and version > self.state.version

    def overdue(self) -> bool:
        """Whether the claim may have run out by this process's own clock."""
        return self._journal.overdue()

    def lose(self) -> None:
        """Stop: another process owns the saga."""
        self._leave(LeaveReason.LOST)
        self.interrupt(UnknownReason.INTERRUPTED)

    def hurry(self) -> None:
        """Begin nothing more; leave as soon as nothing runs."""
        self._hurry = True
        self._wake()

    def discard(self, error: SagaError) -> None:
        """End a run that never began."""
        self.discarded = True
        self.seat.forget()
        self._fail(error)

    def give_up(self) -> None:
        """Stop waiting for a storage that is away."""
        self._journal.given_up = True

    def interrupt(self, reason: UnknownReason) -> None:
        """Interrupt all attempts."""
        self._flights.interrupt(reason)

    def running_steps(self) -> list[str]:
        """Return the steps whose user code runs now."""
        return [step for step, _ in self._flights.works]

    # the driver

    async def _drive(self, number: int) -> None:
        CURRENT_SAGA.set(self.saga_id)
        try:
            if number > 1:
                await self.seat.take(at_once=self._nested or self._hurry)
            decision = None if self.exists else await self._create()
            while self.left is None and self._drivers == number:
                if decision is None:
                    decision = await self._advance()
                else:
                    await self._perform(decision)
                    decision = None
        except SagaClaimLostError as error:
            if not self.exists:
                self._fail(error)
            self.lose()
        except SagaStateLostError as error:
            self.interrupt(UnknownReason.INTERRUPTED)
            if error.stored is None:
                self._fail(error)
            else:
                await mark_lost(self.env, error, self.claim.token)
                self.lose()
        except SagaError as error:
            self._fail(error)

    async def _create(self) -> Decision:
        facts = self._first_facts
        if self.env.observers.present and (headers := self.env.observers.headers(self.info)):
            facts = tuple(replace(fact, headers=headers) if isinstance(fact, Created) else fact for fact in facts)
        self._info = None
        now = self.env.clock.now()
        opening = (*facts, Claimed(self.claim.owner, 1))
        decision = decide(self.definition, fold(None, 1, now, opening), (), now)
        events = (*opening, *decision.facts)
        row = self._row(decision, now)
        name, version = self.definition.name, self.definition.version
        new = NewSaga(saga_id=self.saga_id, saga_name=name, saga_version=version, row=row)
        await self._journal.create(new, events, decision.state, now)
        if self.env.observers.present:
            self.env.observers.on_events(self.info, events)
        self._first_facts = ()
        self.created.set(None)
        if row.release:
            self._leave(LeaveReason.REST)
        return decision

    async def _advance(self) -> Decision | None:
        """Append what happened with what comes next; None if somebody else's append came first."""
        if self._journal.stale:
            await self._journal.reload()
        self._turns += 1
        if self._turns % BREATH == 0:
            await asyncio.sleep(0)
        self._poked = False
        now = self._journal.now()
        ended, self._ended = self._ended, []
        state, events = self._with_outcomes(ended, now)
        decision = decide(self.definition, state, self._flights.works, now, hurry=self._hurry)
        events += decision.facts
        row = self._row(decision, now)
        # A request may have made the row due now although nothing changes, so a release writes the due time again.
        if events or (row.release and not self._hurry):
            if not await self._journal.append(events, row, decision.state, now):
                self._ended = ended + self._ended
                return None
            self._first_facts = ()
            if self.env.observers.present:
                self.env.observers.on_events(self.info, events)
        elif row.release:
            await self.env.storage.release({self.saga_id: self.claim.token})
        self._flights.interrupt_as_decided(decision)
        if row.release:
            self._leave(LeaveReason.REST if decision.state.at_rest else LeaveReason.RELEASED)
        return decision

    def _with_outcomes(self, ended: list[Ended], now: float) -> tuple[SagaState, list[Event]]:
        """Return the facts that come first, those of what ended among them, and the state that they lead to."""
        state, facts = self.state, [*self._first_facts]
        if facts:
            for fact in facts:
                state = apply(state, fact, now)
        for end in ended:
            outcome = fact_of(self.definition, state, end, now=now, draw=self.env.clock.random())
            state = apply(state, outcome, now)
            facts.append(outcome)
        return state, facts

    def _row(self, decision: Decision, now: float) -> Row:
        state = decision.state
        wait, release = 0.0 if not state.at_rest else None, False
        # What a crash loop was cut off in stays open while the saga rests; nobody here runs it.
        if not state.open or (state.at_rest and not self._flights.works):
            wait = due_in(decision, now)
            long = self.env.patient and wait is not None and wait > self.env.limits.hold_claim
            release = wait is None or self._hurry or long
        return Row(
            status=state.status,
            attention=state.attention,
            due_in=wait,
            release=release,
            recoveries=state.recoveries,
        )

    async def _perform(self, decision: Decision) -> None:
        """Start what was decided, or wait for something to happen."""
        runs = decision.runs
        if runs and (self._hurry or self._journal.stale or self._journal.overdue()):
            # Between the write and here something came that forbids to begin: definite, nothing has happened.
            self._ended += [Ended(step=r.step, phase=r.phase, attempt=r.attempt, not_run=True) for r in runs]
            return
        # A driver that awaits user code can interrupt it (a deadline) but not begin anything (a sibling's retry).
        only_interrupts = decision.wake_at is None or decision.wake_at == decision.state.deadline_at
        if only_interrupts and len(runs) == 1 and not self._flights.works:
            timer = self._timer(decision.wake_at, self._nudge)
            try:
                await self._flights.inline(runs[0], self.state, self.info, self._take)
            finally:
                if timer is not None:
                    timer.cancel()
            return
        for run in runs:
            self._flights.beside(run, self.state, self.info, self._take)
        if not (self._ended or self._journal.stale or self._poked):
            await self._wait(decision.wake_at)

    def _timer(self, at: float | None, callback: Callable[[], None]) -> TimerHandle | None:
        return None if at is None else self.env.clock.call_later(max(0.0, at - self._journal.now()), callback)

    async def _wait(self, wake_at: float | None) -> None:
        alarm = self._alarm = asyncio.get_running_loop().create_future()
        timer = self._timer(wake_at, self._wake)
        if not self._flights.works:
            self.seat.leave()
        try:
            await alarm
        finally:
            self._alarm = None
            if timer is not None:
                timer.cancel()
        await self.seat.take(at_once=self._nested or self._hurry)

    def _wake(self) -> None:
        # A driver that does not wait now must look again before it does, or the wake-up would be lost.
        self._poked = True
        if self._alarm is not None and not self._alarm.done():
            self._alarm.set_result(None)

    def _nudge(self) -> None:
        """Wake the driver, or where it awaits user code itself do what it would do first: interrupt."""
        self._wake()
        if self.left is None and not self._journal.writing and self._flights.held:
            now = self._journal.now()
            state, _ = self._with_outcomes(self._ended, now)
            decision = decide(self.definition, state, self._flights.works, now)
            self._flights.interrupt_as_decided(decision)

    def _leave(self, reason: LeaveReason) -> None:
        if self.left is not None:
            return
        self.left = reason
        self.seat.leave(for_good=True)
        if self.env.observers.present and self._drivers:
            self.env.observers.on_leave(self.info, reason)
        self.finished.set(reason)
        self._on_left(self)
        self._wake()

    def _fail(self, error: SagaError) -> None:
        """Tell whoever waits that this saga cannot be driven here."""
        if self.left is None:
            self.created.fail(error)
            self.finished.fail(error)
            self._leave(LeaveReason.LOST)
            self.interrupt(UnknownReason.INTERRUPTED)

    def _driver_ended(self, driver: asyncio.Task[None]) -> None:
        """Let nobody wait for a driver that broke, and replace one that user code has cancelled."""
        error = None if driver.cancelled() else driver.exception()
        if driver is not self._driver:
            return
        if driver.cancelled() and self.exists and not (self.env.closing or self._journal.cut):
            # Not at once: on an event loop that is torn down nothing begins any more.
            self.env.clock.call_later(ANEW_AFTER, lambda: self._begin_anew(driver))
        elif error is not None or self.left is None:
            failure = SagaExecutionError(f"the driver of saga {self.saga_id} stopped: {error!r}", saga_id=self.saga_id)
            failure.__cause__ = error
            self._fail(failure)

    def _begin_anew(self, after: asyncio.Task[None]) -> None:
        if self.left is None and after is self._driver:
            self.begin()

    def _take(self, ended: Ended, scope: Scope) -> None:
        """Take the end of an attempt; a driver that was held by one which was given up is replaced."""
        if self.left is None:
            self._ended.append(ended)
            self._wake()
            if scope.inline and not scope.over:
                self.begin()
            elif scope.abandoned:
                self._nudge()
        elif scope.abandoned and scope.over and not self.env.closing:
            self.env.spawn(append_late(self.env, self.saga_id, ended))
